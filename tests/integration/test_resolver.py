"""Names: one lookup shared, answers kept, and names that fail kept from starving the rest."""

import socket
import threading
from collections import Counter
from queue import SimpleQueue

import pytest

from jobsched.callback.resolver import Resolver
from tests.conftest import eventually


class Names:
    """A stand-in for getaddrinfo whose answers a test holds back and lets go."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.gates: dict[str, threading.Event] = {}
        self.dead: set[str] = set()
        self.running = 0
        self.lock = threading.Lock()

    def hold(self, host: str) -> threading.Event:
        return self.gates.setdefault(host, threading.Event())

    def __call__(self, host, port, **kinds):
        with self.lock:
            self.asked[host] += 1
            self.running += 1
        try:
            if gate := self.gates.get(host):
                assert gate.wait(30)
            if host in self.dead:
                raise socket.gaierror(-2, "Name or service not known")
            return [
                (socket.AF_INET, 1, 6, "", ("127.0.0.1", port)),
                (socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0)),
                (socket.AF_INET, 1, 6, "", ("127.0.0.1", port)),
            ]
        finally:
            with self.lock:
                self.running -= 1


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def resolver(names):
    made = Resolver(threads=8, lookup=names)
    yield made
    for gate in names.gates.values():
        gate.set()
    made.close()


def ask(resolver: Resolver, host: str) -> SimpleQueue:
    answers: SimpleQueue = SimpleQueue()
    resolver.resolve(host, 80, answers.put)
    return answers


def test_addresses_come_in_order_and_once(resolver):
    assert ask(resolver, "a.example").get(timeout=5) == ("127.0.0.1", "::1")


def test_waiters_share_one_lookup(resolver, names):
    gate = names.hold("a.example")
    waiting = [ask(resolver, "a.example") for _ in range(50)]
    gate.set()
    assert {answers.get(timeout=5) for answers in waiting} == {("127.0.0.1", "::1")}
    assert names.asked == {"a.example": 1}


def test_answers_are_kept_and_given_at_once(resolver, names):
    first = ask(resolver, "a.example").get(timeout=5)
    assert resolver.cached("a.example") is first
    assert ask(resolver, "a.example").get_nowait() is first
    assert names.asked["a.example"] == 1


def test_answers_grow_old(names):
    resolver = Resolver(threads=1, ttl=0.0, lookup=names)
    ask(resolver, "a.example").get(timeout=5)
    assert resolver.cached("a.example") is None
    ask(resolver, "a.example").get(timeout=5)
    assert names.asked["a.example"] == 2
    resolver.close()


def test_a_failure_is_a_sentence_and_is_not_kept(resolver, names):
    names.dead.add("a.example")
    reason = ask(resolver, "a.example").get(timeout=5)
    assert reason == "The name a.example cannot be resolved: Name or service not known."
    names.dead.clear()
    assert ask(resolver, "a.example").get(timeout=5) == ("127.0.0.1", "::1")


@pytest.mark.parametrize("error", [None, UnicodeError("label too long"), ValueError("embedded null")])
def test_whatever_goes_wrong_every_waiter_gets_an_answer(error):
    def lookup(*_args, **_kinds):
        if error:
            raise error
        return []

    resolver = Resolver(threads=1, lookup=lookup)
    for _ in range(3):
        assert isinstance(ask(resolver, "a.example").get(timeout=5), str)
    resolver.close()


def test_dead_names_occupy_a_quarter_of_the_threads(resolver, names):
    dead = [f"dead{n}.example" for n in range(10)]
    names.dead.update(dead)
    for host in dead:
        ask(resolver, host).get(timeout=5)
    gates = [names.hold(host) for host in dead]
    waiting = [ask(resolver, host) for host in dead]
    eventually(lambda: _equal(names.running, 2), timeout=3)
    for n in range(20):
        assert ask(resolver, f"healthy{n}.example").get(timeout=5) == ("127.0.0.1", "::1")
    assert names.running == 2
    for gate in gates:
        gate.set()
    assert all("cannot be resolved" in answers.get(timeout=5) for answers in waiting)


def test_a_name_that_recovers_is_no_suspect_any_more(resolver, names):
    names.dead.add("a.example")
    ask(resolver, "a.example").get(timeout=5)
    names.dead.clear()
    ask(resolver, "a.example").get(timeout=5)
    assert "a.example" not in resolver._failed


def test_hanging_lookups_leave_the_other_threads_to_others(resolver, names):
    for n in range(7):
        names.hold(f"slow{n}.example")
        ask(resolver, f"slow{n}.example")
    assert ask(resolver, "a.example").get(timeout=5) == ("127.0.0.1", "::1")


def test_a_burst_uses_all_threads_at_once(resolver, names):
    ask(resolver, "first.example").get(timeout=5)
    for n in range(8):
        names.hold(f"slow{n}.example")
        ask(resolver, f"slow{n}.example")
    eventually(lambda: _equal(names.running, 8))


def test_a_closed_resolver_refuses(resolver):
    resolver.close()
    assert ask(resolver, "a.example").get(timeout=5) == "The worker is stopping."


def test_the_system_resolves_localhost():
    resolver = Resolver(threads=1)
    assert set(ask(resolver, "localhost").get(timeout=5)) <= {"127.0.0.1", "::1"}
    assert "cannot be resolved" in ask(resolver, "a..b").get(timeout=5)
    resolver.close()


def _equal(one: object, other: object) -> None:
    assert one == other

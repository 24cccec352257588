"""Strands: lines of work that share the delivering thread, and wait for Postgres without holding up anybody."""

import json
import threading
from contextlib import closing

import pytest

from jobsched import log
from jobsched.clock import monotonic
from jobsched.db.connection import Link
from jobsched.errors import DatabaseUnavailable
from jobsched.testing.target import Target
from jobsched.worker.deliver import Deliver
from jobsched.worker.strands import Bell, Handover, Strands
from tests.conftest import eventually
from tests.integration.toxic import Toxic
from tests.integration.transports import call, in_strand, open_transport, running_strands


@pytest.fixture
def strands():
    with running_strands() as running:
        yield running


def test_a_strand_returns_and_raises_what_its_work_does(strands):
    assert in_strand(strands, lambda: threading.current_thread().name) == "deliver"
    with pytest.raises(ZeroDivisionError):
        in_strand(strands, lambda: 1 / 0)


def test_strands_take_turns_while_they_pause(strands):
    told = []

    def count(name):
        for n in range(3):
            told.append((name, n))
            strands.pause(0.0)

    both = [strands.add(name, lambda name=name: count(name)) for name in "ab"]
    strands.call(lambda: [one.begin() for one in both])
    assert all(one.join(5) for one in both)
    assert told == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_pause_lasts_as_long_as_it_says(strands):
    def pause():
        began = monotonic()
        strands.pause(0.2)
        return monotonic() - began

    assert 0.2 <= in_strand(strands, pause) < 1.0


def test_a_bell_is_heard_from_anywhere_and_only_once(strands):
    bell = Bell(strands)
    assert not in_strand(strands, lambda: bell.wait(0.05)), "nobody has rung"
    bell.ring()
    bell.ring()
    assert in_strand(strands, lambda: bell.wait(5)), "rung before the wait"
    assert not in_strand(strands, lambda: bell.wait(0.05)), "both rings ended one wait"
    threading.Timer(0.1, bell.ring).start()
    began = monotonic()
    assert in_strand(strands, lambda: bell.wait(10)), "rung on another thread"
    assert monotonic() - began < 5


def test_a_bell_rung_while_the_thread_turns_is_not_slept_on(strands):
    # A wake-up that came while the transport looked at its sockets before a wait was forgotten for up to a second.
    bell = Bell(strands)

    def rings():
        return [bell.wait(5) for _ in range(500)]

    over = threading.Event()

    def ring():
        while not over.wait(0.0005):
            bell.ring()

    ringing = threading.Thread(target=ring)
    ringing.start()
    began = monotonic()
    assert all(in_strand(strands, rings))
    over.set()
    ringing.join()
    assert monotonic() - began < 3


def test_what_is_handed_over_arrives_in_order_and_one_at_a_time(strands):
    handover, told = Handover(strands), []

    def give():
        for n in range(3):
            handover.put(n)
            told.append(f"given {n}")
        handover.close()

    def take():
        while (thing := handover.get()) is not None:
            told.append(f"taken {thing}")
            strands.pause(0.01)

    giving, taking = strands.add("give", give), strands.add("take", take)
    giving.begin()
    assert not giving.join(0.1), "there is room for one"
    taking.begin()
    assert giving.join(5)
    assert taking.join(5)
    assert [line for line in told if line.startswith("taken")] == ["taken 0", "taken 1", "taken 2"]
    assert told.index("given 2") > told.index("taken 1")


def test_what_blocks_is_done_elsewhere_and_holds_up_nobody(strands):
    release = threading.Event()

    def block():
        return strands.elsewhere(lambda: (release.wait(10), threading.current_thread().name))

    waiting = strands.add("slow", lambda: told.append(block()))
    told = []
    waiting.begin()
    assert in_strand(strands, lambda: "others go on") == "others go on"
    release.set()
    assert waiting.join(5)
    assert told == [(True, "slow-beside")]
    eventually(lambda: _no_thread("slow-beside"), 5)
    with pytest.raises(ZeroDivisionError):
        in_strand(strands, lambda: strands.elsewhere(lambda: 1 / 0))


def test_a_statement_lets_the_others_go_on(strands, database_url):
    with closing(Link(database_url, "strand", waits=strands)) as link:
        slow = strands.add("slow", lambda: told.append(link.execute("SELECT pg_sleep(0.5)")))
        told = []
        in_strand(strands, lambda: link.execute("SELECT 1"))
        began = monotonic()
        slow.begin()
        for _ in range(20):
            in_strand(strands, lambda: strands.pause(0.0))
        assert monotonic() - began < 0.4
        assert told == []
        assert slow.join(5)
        assert len(told) == 1


def test_a_link_of_strands_serves_other_threads_as_well(strands, database_url):
    with closing(Link(database_url, "strand", waits=strands)) as link:
        assert link.execute("SELECT 1") == [(1,)]
        assert in_strand(strands, lambda: link.execute("SELECT 2")) == [(2,)]
        assert link.execute("SELECT 3") == [(3,)]


def test_large_parameters_and_answers_pass_through_a_strand(strands, database_url):
    text = "x" * 8_000_000
    with closing(Link(database_url, "strand", waits=strands)) as link:
        [(answer,)] = in_strand(strands, lambda: link.execute("SELECT %s::text || 'y'", (text,)))
    assert answer == text + "y"


def test_a_server_that_falls_silent_is_given_up_and_the_strand_goes_on(strands, database_url):
    with Toxic(database_url) as toxic:
        link = Link(toxic.url, "strand", statement_timeout=0.3, waits=strands)
        in_strand(strands, lambda: link.execute("SELECT 1"))
        toxic.lose_next_answer()
        with pytest.raises(DatabaseUnavailable):
            in_strand(strands, lambda: link.execute("SELECT 2"))
        assert in_strand(strands, lambda: link.execute("SELECT 3")) == [(3,)]
        link.close()


def test_calls_go_on_while_a_strand_waits_for_the_database(database_url):
    strands, ended = Strands(), []
    with Target() as target, closing(Link(database_url, "strand", waits=strands)) as link:
        deliver = Deliver(open_transport, lambda results, _at: ended.extend(results), strands=strands)
        deliver.begin()
        in_strand(strands, lambda: link.execute("SELECT 1"))
        slow = strands.add("slow", lambda: link.execute("SELECT pg_sleep(1)"))
        slow.begin()
        deliver.start([call(f"{target.url}/ok") for _ in range(20)])
        eventually(lambda: _all_answered(ended, 20), 0.9)
        assert slow.alive
        assert slow.join(5)
        deliver.end(5)


def _no_thread(name):
    assert name not in {thread.name for thread in threading.enumerate()}


def _all_answered(ended, count):
    assert [result.status for result in ended] == [200] * count


def test_a_broken_strand_ends_and_says_so(strands, capsys):
    log.configure(json=True)
    broken = strands.add("broken", lambda: 1 / 0)
    broken.begin()
    assert broken.join(5)
    assert not broken.alive
    assert json.loads(capsys.readouterr().err)["event"] == "strand_broken"
    assert in_strand(strands, lambda: "the others live") == "the others live"

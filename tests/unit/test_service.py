import threading

import pytest

from jobsched.errors import ConfigError, DatabaseUnavailable, JobschedError
from jobsched.runtime.service import Service, ServiceDied, run, wait_for
from jobsched.runtime.signals import StopSignal
from tests.conftest import eventually

LONG = 3600.0


class Rounds:
    """A run_once that counts its rounds and does what the test says in each."""

    def __init__(self, *naps: float | BaseException, then: float = LONG) -> None:
        self.naps = list(naps)
        self.then = then
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        nap = self.naps.pop(0) if self.naps else self.then
        if isinstance(nap, BaseException):
            raise nap
        return nap


def test_it_naps_as_long_as_a_round_says_and_a_wake_ends_the_nap() -> None:
    rounds = Rounds(0.0, 0.0)
    service = Service("a", rounds)
    service.start()
    eventually(lambda: _equal(rounds.count, 3))
    service.wake()
    eventually(lambda: _equal(rounds.count, 4))
    assert service.stop(5)
    assert not service.alive


def test_a_wake_during_a_round_skips_the_next_nap() -> None:
    entered, leave = threading.Event(), threading.Event()
    count = 0

    def run_once() -> float:
        nonlocal count
        count += 1
        entered.set()
        assert leave.wait(5)
        return LONG

    service = Service("a", run_once)
    service.start()
    assert entered.wait(5)
    service.wake()
    leave.set()
    eventually(lambda: _equal(count, 2))
    assert service.stop(5)


def test_a_round_that_raises_is_followed_by_another_and_the_error_is_shown_until_then() -> None:
    error = DatabaseUnavailable("away")
    second = threading.Event()

    def run_once() -> float:
        if service.last_error is None and not second.is_set():
            second.set()
            raise error
        assert service.last_error is error
        return LONG

    service = Service("a", run_once, nap_on_error=0.01)
    service.start()
    eventually(lambda: _equal((second.is_set(), service.last_error), (True, None)))
    assert service.alive
    assert service.stop(5)


def test_wakes_do_not_shorten_the_pause_after_an_error() -> None:
    rounds = Rounds(RuntimeError("bug"))
    service = Service("a", rounds, nap_on_error=LONG)
    service.start()
    eventually(lambda: _equal(isinstance(service.last_error, RuntimeError), True))
    service.wake()
    service.wake()
    assert rounds.count == 1
    assert service.stop(5), "a stop does end it"


@pytest.mark.parametrize(
    "order", [("stop", "start"), ("start", "start", "stop"), ("stop", "stop", "start", "wake")]
)
def test_start_stop_and_wake_are_legal_in_any_order(order: tuple[str, ...]) -> None:
    service = Service("a", Rounds())
    for verb in order:
        getattr(service, verb)()
    assert service.stop(5)
    assert not service.alive


def test_start_and_stop_from_many_threads_end_with_a_stopped_service() -> None:
    for _ in range(30):
        service = Service("a", Rounds(then=0.0))
        barrier = threading.Barrier(4)

        def act(verb: str, service: Service = service, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(5)
            getattr(service, verb)()

        threads = [threading.Thread(target=act, args=(verb,)) for verb in ("start", "stop", "wake", "start")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        eventually(lambda service=service: _equal(service.alive, False))


def test_a_service_may_stop_itself() -> None:
    def run_once() -> float:
        assert service.stop()
        return LONG

    service = Service("a", run_once)
    service.start()
    eventually(lambda: _equal(service.alive, False))


def test_run_stops_in_reverse_order_once_asked() -> None:
    ended: list[str] = []

    class Noted(Service):
        def stop(self, timeout: float = 30.0) -> bool:
            done = super().stop(timeout)
            ended.append(self.name)
            return done

    stop = StopSignal()
    services = [Noted(name, Rounds()) for name in ("first", "second", "third")]
    runner = threading.Thread(target=run, args=(services, stop))
    runner.start()
    eventually(lambda: _equal([service.alive for service in services], [True] * 3))
    stop.request()
    runner.join(5)
    assert ended == ["third", "second", "first"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_run_ends_with_the_reason_when_a_service_dies() -> None:
    healthy = Service("healthy", Rounds())
    with pytest.raises(ServiceDied, match=r"doomed.*KeyboardInterrupt"):
        run([healthy, Service("doomed", Rounds(KeyboardInterrupt()))], StopSignal())
    assert not healthy.alive


def test_waiting_ends_when_the_check_passes() -> None:
    check = Rounds(DatabaseUnavailable("starting"), OSError("refused"))
    assert wait_for(check, 5, StopSignal(), "Postgres")
    assert check.count == 3


def test_waiting_gives_up_with_the_last_reason() -> None:
    def check() -> None:
        raise DatabaseUnavailable("no such host")

    with pytest.raises(JobschedError, match=r"Postgres: not there after 0\.1 s\. no such host"):
        wait_for(check, 0.1, StopSignal(), "Postgres")


def test_waiting_ends_at_once_when_a_stop_is_asked_for() -> None:
    stop = StopSignal()

    def check() -> None:
        stop.request()
        raise DatabaseUnavailable("away")

    assert wait_for(check, LONG, stop, "Postgres") is False


@pytest.mark.parametrize("error", [ConfigError("wrong"), TypeError("bug")])
def test_waiting_does_not_wait_for_what_cannot_mend_itself(error: Exception) -> None:
    check = Rounds(error)
    with pytest.raises(type(error)):
        wait_for(check, LONG, StopSignal(), "Postgres")
    assert check.count == 1


def _equal(found: object, wanted: object) -> None:
    assert found == wanted

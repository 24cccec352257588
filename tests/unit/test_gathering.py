import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from jobsched.db.gathering import Gathering, TogetherFailed
from tests.conftest import eventually


class Act:
    """Doubles numbers, when it is let; keeps what it was given at once."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[list[int]] = []
        self.go_on = threading.Semaphore(0)
        self.error = error

    def __call__(self, items):
        self.calls.append(list(items))
        assert self.go_on.acquire(timeout=10)
        if self.error is not None and len(items) > 1:
            raise self.error
        return [2 * item for item in items]


def until(condition: Callable[[], bool]) -> None:
    def check() -> None:
        assert condition()

    eventually(check)


def start(pool, gathering, act, first, others):
    """One that is under way, and ``others`` who have come meanwhile, in their order."""
    futures = [pool.submit(gathering.do, first)]
    until(lambda: act.calls == [[first]])
    for number, item in enumerate(others, 1):
        futures.append(pool.submit(gathering.do, item))
        until(lambda number=number: len(gathering._waiting) == number)
    return futures


def test_who_comes_first_begins_at_once_and_the_others_go_together(pool):
    act = Act()
    gathering = Gathering(act, most=3, at_once=1, patience=60)
    futures = start(pool, gathering, act, 1, [2, 3, 4, 5])
    act.go_on.release(3)
    assert [future.result(10) for future in futures] == [2, 4, 6, 8, 10]
    assert act.calls == [[1], [2, 3, 4], [5]]
    act.go_on.release()
    assert gathering.do(6) == 12


def test_so_many_are_under_way_at_once(pool):
    act = Act()
    gathering = Gathering(act, most=9, at_once=2, patience=60)
    futures = [pool.submit(gathering.do, item) for item in range(2)]
    until(lambda: len(act.calls) == 2)
    futures.append(pool.submit(gathering.do, 2))
    until(lambda: len(gathering._waiting) == 1)
    act.go_on.release(3)
    assert [future.result(10) for future in futures] == [0, 2, 4]
    assert sorted(act.calls) == [[0], [1], [2]]


def test_a_failure_of_several_is_told_to_each_and_that_of_one_is_its_own(pool):
    act = Act(error=KeyError("x"))
    gathering = Gathering(act, most=9, at_once=1, patience=60)
    first, *others = start(pool, gathering, act, 1, [2, 3])
    act.go_on.release(2)
    assert first.result(10) == 2
    raised = [other.exception(10) for other in others]
    assert [type(error) for error in raised] == [TogetherFailed] * 2
    assert raised[0] is not raised[1]
    assert all(error.__cause__ is act.error for error in raised)

    def fail(items):
        raise act.error

    with pytest.raises(KeyError):
        Gathering(fail, most=9, at_once=1, patience=60).do(1)


def test_who_has_waited_for_long_goes_alone(pool):
    act = Act()
    gathering = Gathering(act, most=9, at_once=1, patience=0.5)
    first, second = start(pool, gathering, act, 1, [2])
    until(lambda: act.calls == [[1], [2]])
    assert gathering._waiting == []
    act.go_on.release(2)
    assert (first.result(10), second.result(10)) == (2, 4)


def test_who_is_acted_for_by_then_waits_for_the_end(pool):
    act = Act()
    gathering = Gathering(act, most=9, at_once=1, patience=0.3)
    first, *others = start(pool, gathering, act, 1, [2, 3])
    act.go_on.release()
    until(lambda: act.calls == [[1], [2, 3]])
    assert first.result(10) == 2
    with pytest.raises(TimeoutError):
        others[1].result(0.5)
    act.go_on.release()
    assert [other.result(10) for other in others] == [4, 6]


def test_a_thread_that_is_made_to_leave_while_it_acts_for_others_leaves_nobody_waiting():
    act = Act(error=SystemExit())
    gathering = Gathering(act, most=9, at_once=1, patience=60)
    left: Future[BaseException] = Future()

    def do_and_leave():
        try:
            gathering.do(2)
        except BaseException as error:
            left.set_result(error)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gathering.do, 1)
        until(lambda: act.calls == [[1]])
        leader = threading.Thread(target=do_and_leave)
        leader.start()
        until(lambda: len(gathering._waiting) == 1)
        other = pool.submit(gathering.do, 3)
        until(lambda: len(gathering._waiting) == 2)
        act.go_on.release(2)
        assert first.result(10) == 2
        assert type(other.exception(10)) is TogetherFailed
        assert type(left.result(10)) is SystemExit
        leader.join()
    act.error = None
    act.go_on.release()
    assert gathering.do(4) == 8


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool

import uuid
from types import SimpleNamespace

from jobsched.worker.seats import Seat, Seats

OWNER = uuid.uuid4()


def seat(id, queue="default"):
    return Seat(SimpleNamespace(id=id, queue=queue), OWNER)


def test_one_seat_in_ten_is_kept_for_the_high_queues():
    seats = Seats(20)
    assert seats.free() == (18, False)
    for id in range(18):
        seats.take(seat(id))
    assert seats.free() == (2, True)
    seats.take(seat(100, "default.high"))
    assert seats.free() == (1, True)
    seats.release([3])
    assert seats.free() == (1, False)


def test_high_work_may_sit_anywhere():
    seats = Seats(20)
    for id in range(20):
        seats.take(seat(id, "default.high"))
    assert len(seats) == 20
    assert seats.free()[0] == 0


def test_a_small_worker_reserves_nothing():
    assert Seats(1).free() == (1, False)


def test_an_execution_sits_once():
    seats = Seats(5)
    assert seats.take(seat(1))
    assert not seats.take(seat(1))
    seats.release([1, 1, 2])
    assert len(seats) == 0
    assert seats.free() == (5, False)


def test_a_release_is_told():
    seats, told = Seats(5), []
    seats.on_release = lambda: told.append(len(seats))
    seats.take(seat(1))
    seats.release([1])
    assert told == [0]

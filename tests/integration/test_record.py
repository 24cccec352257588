"""Recording: which outcomes share a commit, and which wait for nobody."""

import time
from contextlib import closing

import pytest

from jobsched import clock
from jobsched.callback.model import Call, Phases, Result
from jobsched.db import claims
from jobsched.db.connection import Link
from jobsched.worker import record
from jobsched.worker.record import Recorder
from jobsched.worker.seats import Seat, Seats
from tests.conftest import eventually
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.transports import running_strands

#: Long enough to tell what waited from what did not, on a machine that does other things as well.
PACE = 1.0


class Silent:
    """A picture for RQ that nobody looks at."""

    def ended(self, _queues, _recorded):
        pass


def answered(claimed):
    call = Call(claimed.id, claimed.attempt, "POST", claimed.api, (), "", None, 30.0)
    return Result(call, 200, (), b"", False, None, None, True, Phases(0, 0, 0, 0, 1), clock.utc_now())


@pytest.fixture
def commits(monkeypatch):
    """How many outcomes each commit has had so far."""
    counted, finish = [], claims.finish

    def counting(link, owner, worker, ended, **how):
        recorded = finish(link, owner, worker, ended, **how)
        counted.append(len(ended))
        return recorded

    monkeypatch.setattr(claims, "finish", counting)
    monkeypatch.setattr(record, "_PACE", PACE)
    return counted


@pytest.fixture
def recorded(link, database_url, broker):
    """Claims so many executions for a worker with so many seats, and begins to record: (one by one, seats)."""
    with running_strands() as strands, closing(Link(database_url, "record", waits=strands)) as own:
        own.execute("SELECT 1")

        def begin(count, concurrency):
            me, job = make_worker(link), make_job(link, due=None)
            seats = Seats(concurrency)
            claimed = claims.claim(link, me, [make_execution(link, job) for _ in range(count)])
            for one in claimed:
                seats.take(Seat(one, me))
            recorder = Recorder(own, broker, seats, Silent(), "worker-1", lambda _due_in: None, strands)
            recorder.begin()
            begun.append(recorder)
            return (lambda one: recorder.results([answered(one)], clock.monotonic())), claimed, seats

        begun = []
        yield begin
        for recorder in begun:
            recorder.end(5)


def test_what_ends_soon_after_a_recording_shares_the_next_commit(recorded, commits):
    end, claimed, seats = recorded(count=6, concurrency=50)
    began = time.monotonic()
    end(claimed[0])
    eventually(lambda: _equal(commits, [1]))
    assert time.monotonic() - began < PACE, "what comes alone waits for nobody"
    for one in claimed[1:]:
        end(one)
        time.sleep(0.01)
    assert seats.wait_until_empty(10)
    assert commits == [1, 5]
    assert time.monotonic() - began >= PACE


def test_where_seats_are_short_no_outcome_keeps_one(recorded, commits):
    end, claimed, seats = recorded(count=3, concurrency=4)
    began = time.monotonic()
    for left, one in ((2, claimed[0]), (1, claimed[1])):
        end(one)
        eventually(lambda left=left: _equal(len(seats), left))
    assert time.monotonic() - began < PACE
    assert commits == [1, 1]


def _equal(found, wanted):
    assert found == wanted

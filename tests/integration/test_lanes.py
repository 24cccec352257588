"""Two lanes of one poller, once more is due than a batch takes."""

import threading

import pytest

from jobsched.db import firing
from jobsched.db.connection import Link
from jobsched.errors import DatabaseUnavailable
from jobsched.poller.lanes import Lanes
from jobsched.poller.pusher import Pusher
from tests.integration.factories import make_job

JOBS, BATCH = 200, 20


@pytest.fixture
def beside(database_url):
    link = Link(database_url, "beside")
    yield link
    link.close()


@pytest.fixture
def lanes(link, beside, broker):
    lanes = Lanes(link, beside, broker, 10_000, Pusher(broker))
    yield lanes
    lanes.close()


def fire_all(lanes):
    rounds = [lanes.run_once(BATCH)]
    while rounds[-1].more:
        rounds.append(lanes.run_once(BATCH))
    return rounds


def test_two_lanes_fire_each_slot_once_and_push_it_once(link, lanes, broker):
    for _ in range(JOBS):
        make_job(link)
    rounds = fire_all(lanes)
    assert rounds[0].executions == 20, "the first round has one lane"
    assert [one.executions for one in rounds[1:6]] == [40, 40, 40, 40, 20]
    assert sum(len(one.late) for one in rounds) == JOBS
    assert link.execute("SELECT count(*), count(DISTINCT job_id) FROM execution") == [(JOBS, JOBS)]
    ids = broker.take(["default"], 1000)
    assert len(ids) == len(set(ids)) == JOBS


def test_what_one_batch_takes_needs_no_second_connection(link, lanes, beside):
    make_job(link)
    assert [one.executions for one in fire_all(lanes)] == [1]
    assert beside._connection is None


def test_both_lanes_are_in_their_transactions_at_once(link, lanes, monkeypatch):
    for _ in range(JOBS):
        make_job(link)
    lanes.run_once(BATCH)
    meeting, insert = threading.Barrier(2, timeout=10), firing.insert

    def and_wait_for_the_other(cursor, executions):
        inserted = insert(cursor, executions)
        meeting.wait()
        return inserted

    monkeypatch.setattr(firing, "insert", and_wait_for_the_other)
    assert lanes.run_once(BATCH).executions == 40


def test_an_error_of_either_lane_is_raised_when_both_have_ended(link, lanes, monkeypatch):
    for _ in range(JOBS):
        make_job(link)
    lanes.run_once(BATCH)
    for failing in ("MainThread", "fire-beside"):
        insert = firing.insert

        def refuse(cursor, executions, failing=failing, insert=insert):
            if threading.current_thread().name.startswith(failing):
                raise DatabaseUnavailable("gone")
            return insert(cursor, executions)

        with monkeypatch.context() as patch:
            patch.setattr(firing, "insert", refuse)
            before = link.execute("SELECT count(*) FROM execution")[0][0]
            with pytest.raises(DatabaseUnavailable):
                lanes.run_once(BATCH)
        assert link.execute("SELECT count(*) FROM execution") == [(before + 20,)]
    fire_all(lanes)
    assert link.execute("SELECT count(*), count(DISTINCT job_id) FROM execution") == [(JOBS, JOBS)]


def test_two_lanes_together_stay_below_the_mark(link, beside, broker):
    for _ in range(JOBS):
        make_job(link)
    lanes = Lanes(link, beside, broker, 90, Pusher(broker))
    fire_all(lanes)
    lanes.close()
    assert link.execute("SELECT state, count(*) FROM execution GROUP BY 1 ORDER BY 1") == [
        ("pending", JOBS - 90),
        ("queued", 90),
    ]

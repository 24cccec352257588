"""The lines about single attempts: which, at which level, and how many of them."""

import json
import logging
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import structlog

from jobsched import log
from jobsched.db.claims import Claimed, Recorded
from jobsched.db.ended import Ended
from jobsched.worker import journal
from jobsched.worker.journal import Journal
from jobsched.worker.seats import Seat, Seats


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("jobsched").setLevel(logging.NOTSET)


def claimed(id):
    values = dict.fromkeys(Claimed._fields)
    values |= {"id": id, "job_id": 7, "attempt": 2, "queue": "default", "scheduled_for": datetime.now(UTC)}
    return Claimed(**values)


def ended(id, state="failed", code="http_status"):
    return Ended(
        id=id,
        attempt=2,
        state=state,
        age=0.0,
        duration_ms=12.5,
        max_retry_count=3,
        status=500,
        error_code=code,
    )


@pytest.fixture
def seats():
    seats = Seats(2000)
    for id in range(1, 501):
        seats.take(Seat(claimed(id), uuid4()))
    return seats


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_failed_attempt_says_what_follows_and_a_success_is_for_debug(seats, capsys):
    ends = [ended(1, "retrying"), ended(2), ended(3, "succeeded", None), ended(4, "cancelled", "cancelled")]
    recorded = [
        Recorded(1, "retrying", 1.5),
        Recorded(2, "failed"),
        Recorded(3, "succeeded"),
        Recorded(4, "cancelled"),
    ]
    log.configure(json=True, level="info", process="worker")
    Journal("w-1").ended(ends, recorded, seats)
    failed, dead = lines(capsys)
    for line in (failed, dead):
        del line["timestamp"]
    same = {
        "job_id": 7,
        "attempt": 2,
        "worker": "w-1",
        "status": 500,
        "milliseconds": 12.5,
        "process": "worker",
    }
    same |= {"error_code": "http_status"}
    assert failed == same | {
        "event": "attempt_failed", "level": "info", "execution_id": 1, "retry_in_seconds": 1.5,
    }  # fmt: skip
    assert dead == same | {"event": "dead_letter", "level": "warning", "execution_id": 2}

    log.configure(json=True, level="debug", process="worker")
    quiet = Journal("w-1")
    quiet.claimed([claimed(3)])
    quiet.ended(ends, recorded, seats)
    assert [(line["event"], line["execution_id"]) for line in lines(capsys)] == [
        ("claimed", 3),
        ("attempt_failed", 1),
        ("dead_letter", 2),
        ("attempt_succeeded", 3),
        ("attempt_cancelled", 4),
    ]


def test_what_was_fenced_is_not_told_as_if_it_counted(seats, capsys):
    log.configure(json=True, level="debug")
    Journal("w-1").ended([ended(1), ended(2)], [Recorded(2, "failed")], seats)
    assert [line["execution_id"] for line in lines(capsys)] == [2]


def test_a_target_that_always_fails_does_not_flood_the_log(seats, capsys):
    log.configure(json=True, level="info")
    now = 0.0
    told = Journal("w-1", lambda: now)
    batch = [ended(id) for id in range(1, 501)]
    told.ended(batch, [Recorded(one.id, "failed") for one in batch], seats)
    assert len(lines(capsys)) == journal.BURST
    now = 1.0
    told.ended(batch, [Recorded(one.id, "failed") for one in batch], seats)
    again = lines(capsys)
    assert len(again) == journal.LINES_A_SECOND
    assert [line.get("left_out") for line in again] == [400] + [None] * 9


def test_nothing_is_made_where_nothing_would_be_written(seats, capsys):
    log.configure(json=True, level="error")
    told = Journal("w-1")
    told.claimed([claimed(1)])
    told.ended([ended(3, "succeeded")], [Recorded(3, "succeeded")], seats)
    assert lines(capsys) == []

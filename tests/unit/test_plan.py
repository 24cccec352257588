from datetime import UTC, datetime, timedelta

import pytest

from jobsched.db.firing import DueSchedule
from jobsched.errors import InvalidSchedule
from jobsched.poller.plan import BACKLOG_LIMIT, make_plan

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def due(**fields):
    slot = fields.pop("slot", NOON)
    values = {
        "job_id": 7,
        "next_slot": slot,
        "next_execution_time": slot,
        "last_slot": None,
        "anchor": NOON - timedelta(days=1),
        "runs": 0,
        "project_id": 1,
        "schedule": "@every 1h",
        "timezone": "UTC",
        "is_recurring": True,
        "misfire_policy": "fire_once",
        "misfire_grace_seconds": 60.0,
        "priority": 5,
        "pool": "default",
        "start_at": None,
        "end_at": None,
        "max_runs": None,
        "jitter_seconds": 0.0,
        "max_retry_count": 3,
        "version": 1,
    }
    return DueSchedule(**{**values, **fields})


def slots(plan):
    return [slot for slot, _due_at in plan.run]


def test_a_slot_on_time_runs_and_the_next_one_follows():
    plan = make_plan(due(), NOON + timedelta(milliseconds=3), 0)
    assert plan.run == ((NOON, NOON),)
    assert plan.skipped == ()
    advance = plan.advance
    assert (advance.next_slot, advance.next_execution_time) == (NOON + HOUR, NOON + HOUR)
    assert (advance.last_slot, advance.runs) == (NOON, 1)


def test_slots_missed_fold_into_one_run_of_the_newest():
    plan = make_plan(due(), NOON + 5.5 * HOUR, 0)
    assert slots(plan) == [NOON + 5 * HOUR]
    assert [(one.count, one.error_code, one.scheduled_for) for one in plan.skipped] == [
        (5, "misfire", NOON + 4 * HOUR)
    ]
    assert plan.advance.next_slot == NOON + 6 * HOUR
    assert plan.advance.last_slot == NOON + 5 * HOUR


def test_runs_stop_at_max_runs():
    plan = make_plan(due(misfire_policy="fire_all", max_runs=3, runs=1), NOON + 5.5 * HOUR, 0)
    assert slots(plan) == [NOON, NOON + HOUR]
    assert (plan.advance.next_slot, plan.advance.runs) == (None, 3)


def test_slots_after_the_end_are_never_due():
    plan = make_plan(due(misfire_policy="fire_all", end_at=NOON + HOUR), NOON + 5.5 * HOUR, 0)
    assert slots(plan) == [NOON, NOON + HOUR]
    assert plan.advance.next_slot is None


def test_a_cron_that_does_not_recur_runs_once():
    plan = make_plan(due(schedule="0 * * * *", is_recurring=False), NOON, 0)
    assert slots(plan) == [NOON]
    assert plan.advance.next_slot is None


def test_jitter_delays_a_slot_but_is_no_lateness():
    job = due(jitter_seconds=1800.0, misfire_policy="skip")
    planned = make_plan(job, NOON + timedelta(seconds=1799), 0)
    [(slot, due_at)] = planned.run
    assert slot == NOON
    assert NOON <= due_at < NOON + timedelta(seconds=1800)
    assert planned.advance.next_slot == NOON + HOUR
    assert NOON + HOUR <= planned.advance.next_execution_time < NOON + 1.5 * HOUR


def test_a_slot_whose_jitter_is_not_over_waits():
    job = due(jitter_seconds=3599.0)
    first = make_plan(job, NOON + timedelta(seconds=3599), 0)
    following = first.advance.next_execution_time
    plan = make_plan(job, following - timedelta(milliseconds=1), 0)
    assert slots(plan) == [NOON]
    assert plan.advance.next_slot == NOON + HOUR


@pytest.mark.parametrize(("waiting", "run"), [(BACKLOG_LIMIT - 1, 1), (BACKLOG_LIMIT, 0)])
def test_a_job_with_too_many_waiting_gets_its_slot_skipped(waiting, run):
    plan = make_plan(due(), NOON, waiting)
    assert len(plan.run) == run
    assert [one.error_code for one in plan.skipped] == ["backlog"] * (1 - run)
    assert plan.advance.runs == run


def test_executions_wait_as_pending_where_the_room_ends():
    job = due(misfire_policy="fire_all", priority=9)
    plan = make_plan(job, NOON + 2.5 * HOUR, 0)
    assert [(one.state, one.queue) for one in plan.executions(job, 2)] == [
        ("queued", "default.high"),
        ("queued", "default.high"),
        ("pending", "default.high"),
    ]


def test_a_schedule_that_cannot_be_read_raises():
    with pytest.raises(InvalidSchedule):
        make_plan(due(schedule="nonsense"), NOON, 0)

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.db.firing import BACKLOG_LIMIT, DueSchedule
from jobsched.domain.overlap import FREE, Occupancy
from jobsched.domain.schedule import Due, effective_time, parse_schedule
from jobsched.errors import InvalidSchedule
from jobsched.poller import plan as planning
from jobsched.poller.plan import next_without_skipped

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
        "overlap_policy": "allow",
        "priority": 5,
        "pool": "default",
        "start_at": None,
        "end_at": None,
        "max_runs": None,
        "jitter_seconds": 0.0,
        "max_retry_count": 3,
        "version": 1,
        "waiting": 0,
        "now": NOON,
    }
    return DueSchedule(**{**values, **fields})


def make_plan(job, now, waiting=0, room=100, occupancy=FREE):
    return planning.make_plan(job._replace(waiting=waiting), now, room=room, occupancy=occupancy)


def slots(plan):
    return [one.scheduled_for for one in plan.executions]


def skips(plan):
    return [(one.count, one.error_code, one.scheduled_for) for one in plan.skipped]


def test_a_slot_on_time_runs_and_the_next_one_follows():
    plan = make_plan(due(), NOON + timedelta(milliseconds=3))
    assert [(one.scheduled_for, one.due_at) for one in plan.executions] == [(NOON, NOON)]
    assert plan.skipped == ()
    advance = plan.advance
    assert (advance.next_slot, advance.next_execution_time) == (NOON + HOUR, NOON + HOUR)
    assert (advance.last_slot, advance.runs) == (NOON, 1)


def test_slots_missed_fold_into_one_run_of_the_newest():
    plan = make_plan(due(), NOON + 5.5 * HOUR)
    assert slots(plan) == [NOON + 5 * HOUR]
    assert [(one.count, one.error_code, one.scheduled_for) for one in plan.skipped] == [
        (5, "misfire", NOON + 4 * HOUR)
    ]
    assert plan.advance.next_slot == NOON + 6 * HOUR
    assert plan.advance.last_slot == NOON + 5 * HOUR


def test_runs_stop_at_max_runs():
    plan = make_plan(due(misfire_policy="fire_all", max_runs=3, runs=1), NOON + 5.5 * HOUR)
    assert slots(plan) == [NOON, NOON + HOUR]
    assert (plan.advance.next_slot, plan.advance.runs) == (None, 3)


def test_slots_after_the_end_are_never_due():
    plan = make_plan(due(misfire_policy="fire_all", end_at=NOON + HOUR), NOON + 5.5 * HOUR)
    assert slots(plan) == [NOON, NOON + HOUR]
    assert plan.advance.next_slot is None


def test_a_cron_that_does_not_recur_runs_once():
    plan = make_plan(due(schedule="0 * * * *", is_recurring=False), NOON)
    assert slots(plan) == [NOON]
    assert plan.advance.next_slot is None


def test_jitter_delays_a_slot_but_is_no_lateness():
    job = due(jitter_seconds=1800.0, misfire_policy="skip")
    planned = make_plan(job, NOON + timedelta(seconds=1799))
    [one] = planned.executions
    assert one.scheduled_for == NOON
    assert NOON <= one.due_at < NOON + timedelta(seconds=1800)
    assert planned.advance.next_slot == NOON + HOUR
    assert NOON + HOUR <= planned.advance.next_execution_time < NOON + 1.5 * HOUR


def test_a_slot_whose_jitter_is_not_over_waits():
    job = due(jitter_seconds=3599.0)
    first = make_plan(job, NOON + timedelta(seconds=3599))
    following = first.advance.next_execution_time
    plan = make_plan(job, following - timedelta(milliseconds=1))
    assert slots(plan) == [NOON]
    assert plan.advance.next_slot == NOON + HOUR


@pytest.mark.parametrize(("waiting", "run"), [(BACKLOG_LIMIT - 1, 1), (BACKLOG_LIMIT, 0)])
def test_a_job_with_too_many_waiting_gets_its_slot_skipped(waiting, run):
    plan = make_plan(due(), NOON, waiting)
    assert len(plan.executions) == run
    assert [one.error_code for one in plan.skipped] == ["backlog"] * (1 - run)
    assert plan.advance.runs == run


def test_executions_wait_as_pending_where_the_room_ends():
    job = due(misfire_policy="fire_all", priority=9)
    plan = make_plan(job, NOON + 2.5 * HOUR, room=2)
    assert plan.queued == 2
    assert [(one.state, one.queue) for one in plan.executions] == [
        ("queued", "default.high"),
        ("queued", "default.high"),
        ("pending", "default.high"),
    ]


def test_a_schedule_that_cannot_be_read_raises():
    with pytest.raises(InvalidSchedule):
        make_plan(due(schedule="nonsense"), NOON)


@pytest.mark.parametrize(
    ("policy", "occupancy", "states", "skipped"),
    [
        ("allow", Occupancy(occupied=True, blocked=True), ["queued"] * 3, []),
        ("skip", FREE, ["queued"], [(2, "overlap", NOON + 2 * HOUR)]),
        ("skip", Occupancy(occupied=True), [], [(3, "overlap", NOON + 2 * HOUR)]),
        ("queue", FREE, ["queued", "blocked"], [(1, "overlap", NOON + 2 * HOUR)]),
        ("queue", Occupancy(occupied=True), ["blocked"], [(2, "overlap", NOON + 2 * HOUR)]),
        ("queue", Occupancy(occupied=True, blocked=True), [], [(3, "overlap", NOON + 2 * HOUR)]),
        ("queue", Occupancy(occupied=True, undecided=True), ["pending"], [(2, "overlap", NOON + 2 * HOUR)]),
        ("queue", Occupancy(blocked=True), ["pending"], [(2, "overlap", NOON + 2 * HOUR)]),
    ],
)
def test_an_overlap_policy_decides_about_slots_that_fire_together(policy, occupancy, states, skipped):
    job = due(misfire_policy="fire_all", overlap_policy=policy)
    plan = make_plan(job, NOON + 2.5 * HOUR, occupancy=occupancy)
    assert [one.state for one in plan.executions] == states
    assert skips(plan) == skipped
    assert plan.advance.runs == len(states)
    assert plan.advance.next_slot == NOON + 3 * HOUR


def test_without_room_nothing_is_decided_about_overlaps():
    job = due(misfire_policy="fire_all", overlap_policy="skip")
    plan = make_plan(job, NOON + 2.5 * HOUR, room=0, occupancy=Occupancy(occupied=True))
    assert [one.state for one in plan.executions] == ["pending"] * 3
    assert skips(plan) == []


def test_a_slot_that_is_skipped_for_an_overlap_is_no_run():
    job = due(overlap_policy="skip", max_runs=5, runs=4)
    plan = make_plan(job, NOON, occupancy=Occupancy(occupied=True))
    assert (plan.advance.runs, plan.advance.next_slot) == (4, NOON + HOUR)
    plan = make_plan(due(overlap_policy="queue", misfire_policy="fire_all", max_runs=1), NOON + 1.5 * HOUR)
    assert [one.state for one in plan.executions] == ["queued"]
    assert (plan.advance.runs, plan.advance.next_slot) == (1, None)


def test_a_schedule_goes_on_when_a_counted_slot_is_taken_back():
    used_up = due(next_slot=None, next_execution_time=None, last_slot=NOON, max_runs=3, runs=2)
    assert next_without_skipped(used_up).next_slot == NOON + HOUR
    still_used_up = due(next_slot=None, next_execution_time=None, last_slot=NOON, max_runs=3, runs=3)
    assert next_without_skipped(still_used_up).next_slot is None
    going_on = due(last_slot=NOON - HOUR, max_runs=9, runs=2)
    assert next_without_skipped(going_on).next_slot == NOON
    once = due(next_slot=None, next_execution_time=None, last_slot=NOON, runs=0, is_recurring=False)
    assert next_without_skipped(once).next_slot is None


@pytest.mark.parametrize(
    ("policy", "left", "states", "skipped"),
    [("skip", 1, ["queued"], 0), ("skip", 2, ["queued"], 3), ("queue", 2, ["queued", "blocked"], 0)],
)
def test_what_comes_after_the_last_run_is_no_slot_that_could_be_skipped(policy, left, states, skipped):
    job = due(overlap_policy=policy, misfire_policy="fire_all", max_runs=9, runs=9 - left)
    plan = make_plan(job, NOON + 3 * HOUR)
    assert [one.state for one in plan.executions] == states
    assert sum(slots.count for slots in plan.skipped) == skipped
    assert (plan.advance.next_slot is None) == (len(states) == left)


def test_a_row_whose_slot_is_none_of_its_schedule_does_not_fire_the_next_one_twice():
    job = due(schedule="0 * * * *", slot=NOON - timedelta(minutes=7), misfire_policy="fire_all")
    plan = make_plan(job, NOON + timedelta(seconds=1))
    assert slots(plan) == [NOON]
    assert (plan.advance.next_slot, plan.advance.runs) == (NOON + HOUR, 1)


CRONS = ["@every 1h", "0 * * * *", "30 2 * * *", "0 0 1 * *", "@at 2026-11-21T12:00:00Z", "*/5 * * * * *"]


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.data())
def test_the_shortcut_past_the_policies_is_what_they_come_to(data):
    def choose(*values):
        return data.draw(st.sampled_from(values))

    job = due(
        schedule=choose(*CRONS),
        timezone=choose("UTC", "Europe/Berlin"),
        is_recurring=choose(True, True, False),
        misfire_policy=choose("fire_once", "fire_all", "skip"),
        misfire_grace_seconds=choose(0.0, 1.0, 60.0, 1e9),
        overlap_policy=choose("allow", "skip", "queue"),
        priority=choose(0, 5, 10),
        end_at=choose(None, NOON, NOON + HOUR),
        start_at=choose(None, NOON - HOUR, NOON + 2 * HOUR),
        max_runs=choose(None, 1, 2, 5),
        runs=choose(0, 1, 4, 5),
        jitter_seconds=choose(0.0, 0.5, 1800.0),
        waiting=choose(0, 1, BACKLOG_LIMIT - 1, BACKLOG_LIMIT),
    )
    now = NOON + timedelta(seconds=choose(0, 0.5, 1, 60, 61, 3599, 3600, 9000))
    room, occupancy = choose(-1, 0, 1, 100), Occupancy(*(choose(False, False, True) for _ in range(3)))
    plan = planning.make_plan(job, now, room=room, occupancy=occupancy)
    assert plan == by_policies(job, now, room, occupancy)
    assert plan.queued == sum(one.state == "queued" for one in plan.executions)
    assert plan.blocks == any(one.state == "blocked" for one in plan.executions)


def by_policies(job, now, room, occupancy):
    """A plan without the shortcut."""
    schedule = parse_schedule(job.schedule, job.timezone)
    gap = schedule.shortest_gap() if job.jitter_seconds else None
    following = planning._following(job, schedule, job.next_slot, job.runs + 1)
    alone = following is None or effective_time(following, job.job_id, job.jitter_seconds, gap) > now
    slots = Due((job.next_slot,), 1) if alone else planning._due_slots(job, schedule, gap, now)
    return planning._by_policies(job, now, schedule, gap, slots, following, room, occupancy)

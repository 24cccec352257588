from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobsched.domain import schedule as schedules
from jobsched.domain.advance import next_slot
from jobsched.domain.schedule import effective_time, parse_schedule
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times, first_times, times_after_edit

NOW = datetime(2026, 3, 1, 12, 0, 30, 123456, tzinfo=UTC)


def at(*parts):
    return datetime(2026, *parts, tzinfo=UTC)


def spec(schedule, recurring=True, **changes):
    return JobSpec(schedule=schedule, api="http://a.example/", is_recurring=recurring, **changes)


def first(job):
    return first_times(job, job_id=1, now=NOW)


def edit(old, new, times, last_slot=None, runs=0, now=NOW + timedelta(hours=1)):
    return times_after_edit(old, new, times, job_id=1, now=now, last_slot=last_slot, runs=runs)


def test_a_cron_job_is_due_at_its_next_match():
    assert first(spec("0 * * * *")).next_slot == at(3, 1, 13)


def test_without_jitter_nobody_looks_for_the_shortest_time_between_slots():
    before = schedules._cron_gap.cache_info()
    assert first(spec("17 3 5 7 *")).next_execution_time == at(7, 5, 3, 17)
    assert schedules._cron_gap.cache_info() == before


def test_an_interval_counts_from_the_millisecond_of_its_creation():
    times = first(spec("@every 90s"))
    assert times.anchor == at(3, 1, 12, 0, 30, 123000)
    assert times.next_slot == at(3, 1, 12, 2, 0, 123000)


@pytest.mark.parametrize("when", [at(3, 1), at(4, 1)])
def test_an_interval_starts_one_interval_after_its_start_even_in_the_past(when):
    assert first(spec("@every 90s", start_at=when)).next_slot == when + timedelta(seconds=90)


@pytest.mark.parametrize("when", [at(2, 1), at(4, 1)])
def test_a_start_is_inclusive_and_may_lie_in_the_past(when):
    assert first(spec("0 * * * *", start_at=when)).next_slot == when


def test_a_past_instant_is_due_at_once():
    times = first(spec("2026-01-01T00:00:00Z", False))
    assert times.next_slot == times.next_execution_time == at(1, 1)


def test_a_delay_counts_from_now_or_from_a_start_to_come():
    assert first(spec("@in 10m", False)).next_slot == at(3, 1, 12, 10, 30, 123000)
    assert first(spec("@in 10m", False, start_at=at(2, 1))).next_slot == at(3, 1, 12, 10, 30, 123000)
    assert first(spec("@in 10m", False, start_at=at(4, 1))).next_slot == at(4, 1, 0, 10)


def test_the_end_is_inclusive():
    assert first(spec("0 * * * *", end_at=at(3, 1, 13))).next_slot == at(3, 1, 13)
    assert first(spec("0 * * * *", end_at=at(3, 1, 12, 59))) == Times(None, None, at(3, 1, 12, 0, 30, 123000))


def test_jitter_moves_the_due_time_and_not_the_slot():
    times = first(spec("0 * * * *", jitter_seconds=600))
    assert times.next_slot == at(3, 1, 13)
    assert times.next_execution_time == effective_time(at(3, 1, 13), 1, 600, timedelta(hours=1))


def test_a_paused_job_is_not_due():
    assert first(spec("0 * * * *", is_active=False)).next_execution_time is None


def test_an_edit_of_anything_else_leaves_the_times_alone():
    old = spec("@every 90s")
    assert edit(old, replace(old, name="n", payload=1, priority=9), first(old)) is None


def test_an_edited_schedule_counts_from_now_on_a_new_anchor():
    old = spec("@every 90s")
    times = edit(old, replace(old, schedule="@every 60s"), first(old))
    assert times.anchor == at(3, 1, 13, 0, 30, 123000)
    assert times.next_slot == at(3, 1, 13, 1, 30, 123000)


def test_an_edited_schedule_does_not_make_up_for_a_start_long_ago():
    old = spec("0 * * * *", start_at=at(1, 1))
    assert edit(old, replace(old, schedule="30 * * * *"), first(old)).next_slot == at(3, 1, 13, 30)


def test_a_slot_that_fired_never_fires_again():
    old = spec("0 * * * *")
    ahead = at(3, 1, 15)  # the clock was set back after it fired
    assert edit(old, replace(old, schedule="0 */1 * * *"), first(old), last_slot=ahead).next_slot == at(
        3, 1, 16
    )
    once = spec("2026-03-01T11:00:00Z", False)
    times = edit(old, once, first(old), last_slot=at(3, 1, 12))
    assert times.next_slot is None


def test_a_one_off_gets_another_run_by_another_schedule():
    old = spec("2026-03-01T11:00:00Z", False)
    times = Times(None, None, NOW)
    new = replace(old, schedule="2026-03-01T11:30:00Z")
    assert edit(old, new, times, last_slot=at(3, 1, 11), runs=1).next_slot == at(3, 1, 11, 30)
    cron = replace(old, schedule="0 * * * *")
    assert edit(old, cron, times, last_slot=at(3, 1, 11), runs=1).next_slot == at(3, 1, 14)


def test_resume_counts_from_now_on_the_old_anchor():
    paused = spec("@every 7m", is_active=False)
    times = edit(paused, replace(paused, is_active=True), first(paused))
    assert times.anchor == first(paused).anchor
    assert times.next_slot == at(3, 1, 13, 3, 30, 123000)
    once = spec("2026-03-01T12:30:00Z", False, is_active=False)
    assert edit(once, replace(once, is_active=True), first(once)).next_slot is None


def test_pause_and_resume_do_not_repeat_a_job_that_ran_once():
    active = spec("0 * * * *", False)
    over = Times(None, None, NOW)
    paused = replace(active, is_active=False)
    assert edit(active, paused, over, last_slot=at(3, 1, 13), runs=1) == over
    assert edit(paused, active, over, last_slot=at(3, 1, 13), runs=1) == over
    waiting = edit(active, paused, first(active))
    assert waiting.next_execution_time is None
    assert edit(paused, active, waiting).next_slot == at(3, 1, 14)


def test_bounds_take_the_next_slot_away_and_give_it_back():
    old = spec("0 * * * *")
    ended = replace(old, end_at=at(3, 1, 12, 30))
    none = edit(old, ended, first(old))
    assert none.next_slot is None
    assert edit(ended, old, none).next_slot == at(3, 1, 14)
    assert edit(old, replace(old, end_at=at(5, 1)), first(old)).next_slot == at(3, 1, 13)
    assert edit(old, replace(old, max_runs=2), first(old), last_slot=at(3, 1, 12), runs=2).next_slot is None
    assert edit(old, replace(old, is_recurring=False), first(old)).next_slot == at(3, 1, 13)


def test_jitter_can_be_changed_without_moving_the_slot():
    old = spec("0 * * * *")
    times = edit(old, replace(old, jitter_seconds=60), first(old))
    assert times.next_slot == at(3, 1, 13)
    assert times.next_execution_time == effective_time(at(3, 1, 13), 1, 60, timedelta(hours=1))


def test_slots_end_with_the_runs_and_for_a_job_that_does_not_recur_with_the_first():
    schedule = parse_schedule("0 * * * *")
    common = {"after": NOW, "anchor": NOW, "start_at": None, "end_at": None}
    assert next_slot(schedule, **common, max_runs=3, runs=2, is_recurring=True) == at(3, 1, 13)
    assert next_slot(schedule, **common, max_runs=3, runs=3, is_recurring=True) is None
    assert next_slot(schedule, **common, max_runs=None, runs=0, is_recurring=False) is None
    assert next_slot(schedule, **common, max_runs=None, runs=0, is_recurring=False, fired=False) == at(
        3, 1, 13
    )

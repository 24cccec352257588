"""The next runs, with remarks where a clock changes."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from jobsched.domain.schedule import effective_time, parse_schedule
from jobsched.domain.upcoming import Bounds, Run, local_time, runs_from, runs_of_new

JUMP = "(the clock jumps from 02:00 to 03:00)"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def runs(text: str, zone: str, now: str, count: int = 3, **bounds: object) -> list[Run]:
    schedule = parse_schedule(text, zone)
    return list(islice(runs_of_new(schedule, at(now), Bounds(**bounds)), count))  # type: ignore[arg-type]


def told(text: str, zone: str, now: str, count: int = 3) -> list[tuple[str, str | None]]:
    return [(run.local, run.remark) for run in runs(text, zone, now, count)]


def test_a_run_is_shown_in_utc_and_on_the_clock_of_its_zone() -> None:
    [run] = runs("30 9 * * *", "Asia/Kolkata", "2026-12-01T00:00Z", 1)
    assert run.shown() == {
        "scheduledFor": "2026-12-01T04:00:00.000Z",
        "dueAt": "2026-12-01T04:00:00.000Z",
        "local": "2026-12-01T09:30:00.000+05:30",
        "remark": None,
    }


def test_a_fixed_time_in_a_gap_runs_after_it_and_says_so() -> None:
    assert told("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z") == [
        ("2026-03-28T02:30:00.000+01:00", None),
        (
            "2026-03-29T03:00:00.000+02:00",
            f"02:30 does not exist on this day {JUMP}; it runs at the first instant after the gap.",
        ),
        ("2026-03-30T02:30:00.000+02:00", None),
    ]


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (
            "0,10,20 2,3 * * *",
            f"The times from 02:00 to 02:20 do not exist on this day {JUMP}; they are one run, "
            "at the first instant after the gap, together with 03:00.",
        ),
        (
            "15 0 2 * * *",
            f"02:00:15 does not exist on this day {JUMP}; it runs at the first instant after the gap.",
        ),
        (
            "2026-03-29T02:30",
            f"02:30 does not exist on this day {JUMP}; it runs at the first instant after the gap.",
        ),
        ("0 3 * * *", None),
        ("2026-03-29T01:00Z", None),
        ("0 * * * *", None),
        ("@every 1h", None),
    ],
)
def test_what_a_gap_does_to_each_kind(text: str, remark: str | None) -> None:
    [run] = runs(text, "Europe/Berlin", "2026-03-29T00:00:00Z", 1)
    assert (run.scheduled_for, run.remark) == (at("2026-03-29T01:00Z"), remark)


def test_a_day_that_the_clock_skips_is_named() -> None:
    [run] = runs("30 2 * * *", "Pacific/Apia", "2011-12-29T13:00Z", 1)
    assert run.local == "2011-12-31T00:00:00.000+14:00"
    assert run.remark == (
        "2011-12-30 02:30 does not exist on this day (the clock jumps from 2011-12-30 00:00 to "
        "2011-12-31 00:00); it runs at the first instant after the gap."
    )


def test_a_dense_schedule_over_a_skipped_day_takes_no_time() -> None:
    [run] = runs("0-59 0-59 0-23 * * *", "Pacific/Apia", "2011-12-30T09:59:59Z", 1)
    assert run.remark is not None
    assert run.remark.startswith("The times from 2011-12-30 00:00 to 2011-12-30 23:59:59 do not exist")


def test_a_time_that_comes_twice_is_told() -> None:
    twice = "The clock shows {} twice on this day; {}."
    assert told("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00Z", 2) == [
        ("2026-10-25T02:30:00.000+02:00", twice.format("02:30", "it runs the first time only")),
        ("2026-10-26T02:30:00.000+01:00", None),
    ]
    both = [
        ("2026-10-25T02:30:00.000+02:00", twice.format("02:30", "this is the first time")),
        ("2026-10-25T02:00:00.000+01:00", twice.format("02:00", "this is the second time")),
        ("2026-10-25T02:30:00.000+01:00", twice.format("02:30", "this is the second time")),
        ("2026-10-25T03:00:00.000+01:00", None),
    ]
    assert told("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 4) == both
    assert told("@every 30m", "Europe/Berlin", "2026-10-25T00:00:00Z", 4) == both
    [(_, remark)] = told("2026-10-25T02:30", "Europe/Berlin", "2026-10-01T00:00Z")
    assert remark == twice.format("02:30", "it runs the first time only")
    [(_, remark)] = told("2026-10-25T02:30+01:00", "Europe/Berlin", "2026-10-01T00:00Z")
    assert remark == twice.format("02:30", "this is the second time")


def test_what_is_past_says_that_the_misfire_policy_decides() -> None:
    [run] = runs("2026-01-01T00:00Z", "UTC", "2026-06-01T00:00Z")
    assert run.remark == "This time has passed: it is due at once, and the misfire policy decides."


def test_bounds_hold() -> None:
    now = "2026-01-01T00:00Z"
    start, end = at("2026-01-03T00:00Z"), at("2026-01-05T00:00Z")
    days = [run.scheduled_for.day for run in runs("@daily", "UTC", now, 9, start_at=start, end_at=end)]
    assert days == [3, 4, 5]
    assert len(runs("@daily", "UTC", now, 9, max_runs=2)) == 2
    assert len(runs("@daily", "UTC", now, 9, max_runs=5, runs=3)) == 2
    assert len(runs("@daily", "UTC", now, 9, is_recurring=False)) == 1
    assert len(runs("@in 10m", "UTC", now, 9)) == 1
    assert runs("@daily", "UTC", now, 9, max_runs=5, runs=5) == []


def test_a_jobs_runs_go_on_from_its_slot_and_carry_its_jitter() -> None:
    schedule = parse_schedule("@hourly", "UTC")
    slot, now = at("2026-01-01T05:00Z"), at("2026-01-01T04:30Z")
    found = list(
        islice(
            runs_from(
                schedule, slot, anchor=now, now=now, bounds=Bounds(), job_id=7, jitter_seconds=600
            ),
            20,
        )
    )  # fmt: skip
    assert found[0].scheduled_for == slot
    assert {b.scheduled_for - a.scheduled_for for a, b in pairwise(found)} == {timedelta(hours=1)}
    gap = schedule.shortest_gap()
    assert [run.due_at for run in found] == [effective_time(run.scheduled_for, 7, 600, gap) for run in found]
    assert len({run.due_at - run.scheduled_for for run in found}) > 10
    assert list(runs_from(schedule, None, anchor=now, now=now, bounds=Bounds())) == []


def test_local_times_have_a_form_of_rfc_3339_in_every_year() -> None:
    assert local_time(at("1930-01-01T00:00Z"), "Europe/Amsterdam") == "1930-01-01T00:20:00.000+00:20"
    assert local_time(at("9999-12-31T23:59:59Z"), "Asia/Tokyo") == "9999-12-31T23:59:59.000+00:00"
    assert local_time(at("0001-01-01T00:00+00:00"), "America/New_York") == "0001-01-01T00:00:00.000+00:00"


def test_the_ends_of_the_calendar_have_no_remark() -> None:
    [run] = runs("9999-12-31T23:59:59Z", "Asia/Tokyo", "2026-01-01T00:00Z")
    assert run.remark is None

"""What is computed by a short way is what the long way gives: the long way is the oracle here."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.domain import cron as crons
from jobsched.domain import schedule as schedules
from jobsched.domain.cron import END_WALL, FIRST_WALL, NEVER, Cron, parse_cron
from jobsched.domain.cron_fields import FIELDS, parse_field
from jobsched.domain.schedule import effective_time, parse_schedule
from jobsched.errors import InvalidSchedule

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia",
         "Asia/Kolkata", "Antarctica/Troll", "Africa/Cairo"]  # fmt: skip

numbers = st.integers(0, 59).map(str)
times = st.sampled_from(["*", "0", "30", "*/7", "*/50", "0,25,50", "15-45/10", "59"]) | numbers
hours = st.sampled_from(["*", "0", "2", "1-3", "*/5", "23", "0,1,2,3"])
dates = st.sampled_from(["* * *", "*/1 * *", "1-31 * *", "* * 0-7", "1 * *", "*/2 * *", "* 2 *", "29 2 *",
                         "* * MON-FRI", "13 * FRI", "31 1,3 *"])  # fmt: skip
expressions = st.builds("{} {} {}".format, times, hours, dates)
instants = st.datetimes(datetime(1999, 12, 1), datetime(2061, 2, 1), timezones=st.just(UTC))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(times, times, hours, st.integers(FIRST_WALL, END_WALL) | st.integers(END_WALL - 200_000, END_WALL + 9))
def test_what_matches_every_day_is_found_without_a_calendar(
    second: str, minute: str, hour: str, wall: int
) -> None:
    cron = parse_cron(f"{second} {minute} {hour} * * *")
    assert cron.daily
    assert cron.next_wall(wall) == cron._replace(daily=False).next_wall(wall)


@pytest.mark.parametrize(
    ("dates", "daily"),
    [("* * *", True), ("*/1 1-12 *", True), ("1-31 * 1", True), ("* * 0-7", True), ("*/1 * 1-7", True),
     ("1-30 * *", False), ("* 1-11 *", False), ("* * 1-6", False), ("*/2 * *", False)],
)  # fmt: skip
def test_every_day_is_known_in_all_its_spellings(dates: str, daily: bool) -> None:
    assert parse_cron(f"5 4 {dates}").daily is daily


def test_the_last_day_of_all_has_no_next_one() -> None:
    cron = parse_cron("0 12 * * *")
    assert cron.next_wall(END_WALL - 43_200) == END_WALL - 43_200
    assert cron.next_wall(END_WALL - 43_199) == NEVER


@settings(max_examples=300, deadline=None, derandomize=True)
@given(expressions)
def test_parts_that_are_kept_give_what_reading_all_anew_gives(expression: str) -> None:
    try:
        kept = parse_cron(expression)
    except InvalidSchedule:
        return
    for cache in (crons._times, crons._dates, parse_field):
        cache.cache_clear()
    assert parse_cron(expression) == kept
    fields = [parse_field.__wrapped__(*each) for each in zip(FIELDS, ["0", *expression.split()], strict=True)]
    assert [kept.seconds, kept.minutes, kept.hours, kept.months] == [*fields[:3], fields[4]]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(expressions, st.sampled_from(ZONES), instants, st.floats(0.002, 90_000), st.integers(1, 10**9))
def test_jitter_is_the_same_by_the_quick_bound_on_the_gap_as_by_the_exact_one(
    expression: str, zone: str, slot: datetime, jitter: float, job_id: int
) -> None:
    try:
        schedule = parse_schedule(expression, zone)
    except InvalidSchedule:
        return
    quick, exact = schedule.gap_for(jitter), schedule.shortest_gap()
    assert quick is not None
    assert exact is not None
    assert quick <= exact
    assert quick == exact or quick > timedelta(seconds=jitter)
    assert effective_time(slot, job_id, jitter, quick) == effective_time(slot, job_id, jitter, exact)


def test_a_jitter_well_below_the_gap_is_spread_without_a_search_of_decades() -> None:
    before = schedules._cron_gap.cache_info()
    for minute in range(60):
        assert parse_schedule(f"{minute} 3 * * *", "Europe/Berlin").gap_for(300) == timedelta(hours=23)
    assert schedules._cron_gap.cache_info() == before


def test_what_is_kept_of_many_expressions_is_bounded() -> None:
    chance = random.Random(7)
    for number in range(6000):
        minute, hour, day = number % 60, number // 60 % 24, 1 + chance.randrange(28)
        schedule = parse_schedule(f"{chance.randrange(60)} {minute} {hour} {day} * *", "Asia/Tokyo")
        assert schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
    for cache in (schedules._parse, schedules._cron_gap, crons._times, crons._dates, parse_field):
        assert cache.cache_info().currsize <= 4096
    assert isinstance(parse_cron("@daily"), Cron)

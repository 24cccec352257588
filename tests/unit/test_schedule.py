import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobsched.domain import zone_clock
from jobsched.domain.schedule import Due, effective_time, parse_schedule
from jobsched.errors import InvalidSchedule

ANCHOR = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(schedule: str, zone: str, start: str, count: int) -> list[str]:
    parsed, at, found = parse_schedule(schedule, zone), utc(start), []
    for _ in range(count):
        slot = parsed.next_after(at, ANCHOR)
        assert slot is not None
        assert slot.tzinfo is UTC
        found.append(f"{slot:%m-%d %H:%M}")
        at = slot
    return found


@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        ("Europe/Berlin", "2026-03-28 12:00", ["03-29 01:00", "03-30 00:30", "03-31 00:30"]),
        ("Europe/Berlin", "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30", "10-27 01:30"]),
        ("America/New_York", "2026-03-07 12:00", ["03-08 07:00", "03-09 06:30", "03-10 06:30"]),
        ("America/New_York", "2026-10-31 12:00", ["11-01 07:30", "11-02 07:30", "11-03 07:30"]),
        # Half an hour: the clock jumps from 2:00 to 2:30 in October and back from 2:00 to 1:30 in April.
        ("Australia/Lord_Howe", "2026-10-03 00:00", ["10-03 15:30", "10-04 15:30", "10-05 15:30"]),
        # Back from 3:00 to 2:00 when Ramadan begins, and forward again from 2:00 to 3:00 a month later.
        ("Africa/Casablanca", "2026-02-14 12:00", ["02-15 01:30", "02-16 02:30", "02-17 02:30"]),
        ("Africa/Casablanca", "2026-03-21 12:00", ["03-22 02:00", "03-23 01:30", "03-24 01:30"]),
    ],
)
def test_half_past_two_runs_once_in_the_nights_in_which_the_clock_changes(
    zone: str, start: str, expected: list[str]
) -> None:
    assert slots("30 2 * * *", zone, start, 3) == expected


@pytest.mark.parametrize(
    ("schedule", "zone", "start", "expected"),
    [
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-30 00:00", "03-30 00:30", "03-31 00:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 00:00", "10-25 00:30", "10-25 01:00"]),
        ("0 * * * *", "America/New_York", "2026-11-01 04:30", ["11-01 05:00", "11-01 06:00", "11-01 07:00"]),
        (
            "0 */2 * * *",
            "America/New_York",
            "2026-03-08 04:30",
            ["03-08 05:00", "03-08 08:00", "03-08 10:00"],
        ),
        (
            "45 * * * *",
            "Australia/Lord_Howe",
            "2026-04-04 13:50",
            ["04-04 14:45", "04-04 15:15", "04-04 16:15"],
        ),
        (
            "0 * * * *",
            "Australia/Lord_Howe",
            "2026-10-03 14:00",
            ["10-03 14:30", "10-03 16:00", "10-03 17:00"],
        ),
        (
            "30 * * * *",
            "Africa/Casablanca",
            "2026-02-15 01:00",
            ["02-15 01:30", "02-15 02:30", "02-15 03:30"],
        ),
    ],
)
def test_a_star_in_minute_or_hour_follows_elapsed_time(
    schedule: str, zone: str, start: str, expected: list[str]
) -> None:
    assert slots(schedule, zone, start, 3) == expected


def test_half_past_one_runs_once_in_the_nights_in_which_it_comes_twice() -> None:
    newyork = slots("30 1 * * *", "America/New_York", "2026-10-31 12:00", 2)
    lordhowe = slots("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", 2)
    assert (newyork, lordhowe) == (["11-01 05:30", "11-02 06:30"], ["04-04 14:45", "04-05 15:15"])


def test_all_matches_in_a_gap_are_one_slot_together_with_the_match_at_its_end() -> None:
    assert slots("0,15,30 2-3 * * *", "Europe/Berlin", "2026-03-28 12:00", 4) == [
        "03-29 01:00",
        "03-29 01:15",
        "03-29 01:30",
        "03-30 00:00",
    ]
    due = parse_schedule("* 0-59 2,3 * * *", "Europe/Berlin").due_slots(
        utc("2026-03-28 12:00"), utc("2026-03-29 12:00"), ANCHOR, 2
    )
    assert due.count == 3600


def test_a_match_at_the_second_occurrence_of_a_repeated_hour_is_not_run_again() -> None:
    berlin = parse_schedule("0,30 2 * * *", "Europe/Berlin")
    assert berlin.next_after(utc("2026-10-25 00:45"), ANCHOR) == utc("2026-10-26 01:00")
    assert berlin.due_slots(utc("2026-10-25 00:45"), utc("2026-10-26 00:59"), ANCHOR, 9) == Due((), 0)


def test_a_day_that_a_zone_leaves_out_runs_when_the_next_begins() -> None:
    assert slots("0 9 * * *", "Pacific/Apia", "2011-12-29 12:00", 3) == [
        "12-29 19:00",
        "12-30 10:00",
        "12-30 19:00",
    ]


def test_offsets_with_odd_seconds_are_followed() -> None:
    # Amsterdam was 19 minutes and 32 seconds ahead of UTC until 1937.
    slot = parse_schedule("0 9 * * *", "Europe/Amsterdam").next_after(utc("1925-01-05 00:00"), ANCHOR)
    assert slot == utc("1925-01-05 08:40:28")


def test_instants_without_offset_are_read_in_the_zone_by_the_rule_for_fixed_times() -> None:
    def instant(text: str) -> datetime | None:
        return parse_schedule(text, "Europe/Berlin").next_after(utc("2000-01-01 00:00"), ANCHOR)

    assert instant("2026-12-01T09:00:00") == utc("2026-12-01 08:00")
    assert instant("@at 2026-12-01T09:00:00+02:00") == utc("2026-12-01 07:00")
    assert instant("2026-03-29 02:30:00.5") == utc("2026-03-29 01:00")
    assert instant("2026-10-25t02:30:00.123456789") == utc("2026-10-25 00:30:00.123456")
    assert instant("2026-12-31T23:59:60z") == utc("2027-01-01 00:00")


def test_an_instant_is_due_once() -> None:
    once = parse_schedule("@at 2026-12-01T09:00:00Z")
    at = utc("2026-12-01 09:00")
    assert (once.kind, once.recurring, once.shortest_gap()) == ("instant", False, None)
    assert once.next_after(at, ANCHOR) is None
    assert once.due_slots(at - timedelta(seconds=1), at, ANCHOR, 5) == Due((at,), 1)
    assert once.due_slots(at, at + timedelta(days=1), ANCHOR, 5) == Due((), 0)


def test_a_delay_counts_once_from_the_anchor() -> None:
    delay = parse_schedule("@in 10m")
    at = ANCHOR + timedelta(minutes=10)
    assert (delay.kind, delay.recurring, delay.next_after(ANCHOR, ANCHOR)) == ("delay", False, at)
    assert delay.next_after(at, ANCHOR) is None
    assert delay.due_slots(ANCHOR, at, ANCHOR, 5) == Due((at,), 1)


def test_an_interval_never_leaves_the_grid_of_its_anchor() -> None:
    every = parse_schedule("@every 1m30s", "Europe/Berlin")
    assert (every.kind, every.recurring, every.shortest_gap()) == ("interval", True, timedelta(seconds=90))
    first = ANCHOR + timedelta(seconds=90)
    assert every.next_after(ANCHOR - timedelta(days=9), ANCHOR) == first
    assert every.next_after(first - timedelta(microseconds=1), ANCHOR) == first
    assert every.next_after(first, ANCHOR) == first + timedelta(seconds=90)
    berlin = timezone(timedelta(hours=1))
    assert every.next_after(first.astimezone(berlin), ANCHOR.astimezone(berlin)) == first + timedelta(
        seconds=90
    )
    due = every.due_slots(ANCHOR - timedelta(days=1), ANCHOR + timedelta(seconds=300), ANCHOR, 2)
    assert due == Due((first + timedelta(seconds=90), first + timedelta(seconds=180)), 3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5h", 5400),
        (".5h", 1800),
        ("1h1m1s", 3661),
        ("+90s", 90),
        ("1500ms", 1.5),
        ("1s1s", 2),
        ("2.h", 7200),
    ],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    gap = parse_schedule(f"@EVERY {text}").shortest_gap()
    assert gap == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "empty"),
        ("* " * 120, "200 characters"),
        ("* * * * \u0665", "ASCII"),
        ("0 0 * *\n*", "ASCII"),
        ("@every 1d", "write 24h"),
        ("@every 1w", "write 168h"),
        ("@every 90", "add a unit"),
        ("@every 1h 30m", "without spaces"),
        ("@every", "not a duration"),
        ("@every 5us", "units are"),
        ("@every 999ms", "shorter than 1 s"),
        ("@every -5s", "negative"),
        ("@every 99999999999999999999h", "100 years"),
        ("@in 0s", "shorter than 0.001 s"),
        ("@in 876001h", "100 years"),
        ("@at tomorrow", "RFC 3339"),
        ("2026-12-01", "RFC 3339"),
        ("2026-02-30T00:00:00Z", "does not exist"),
        ("2026-02-03T00:00:00+25:00", "does not exist"),
        ("2026-02-03T00:00:00+01:60", "does not exist"),
        ("0000-01-01T00:00:00Z", "does not exist"),
        ("9999-12-31T23:59:59-01:00", "does not exist"),
        ("9999-12-31T23:59:60Z", "does not exist"),
        ("@reboot", "not supported"),
        ("@dayly", "did you mean @daily?"),
        ("@daily 5", "stands alone"),
    ],
)
def test_what_is_refused_comes_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        parse_schedule(text)
    assert hint in caught.value.reason
    assert caught.value.faults[0].pointer == "/schedule"


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Tokyo", "did you mean Asia/Tokyo?"),
        ("utc", "did you mean UTC?"),
        ("+02:00", "IANA name"),
        ("../../etc/passwd", "IANA name"),
        ("/etc/localtime", "not a known"),
        ("localtime", "IANA name"),
        ("posixrules", "IANA name"),
        ("right/Europe/Berlin", "did you mean Europe/Berlin?"),
        ("Europe", "not a known"),
        ("\0", "IANA name"),
        ("x" * 5000, "IANA name"),
    ],
)
def test_unknown_zones_are_refused_with_a_suggestion(zone: str, hint: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        parse_schedule("@daily", zone)
    assert hint in caught.value.reason
    assert caught.value.faults[0].pointer == "/timezone"


ALMOST = st.text("0123456789*,-/@ TZLWHR?#:.+hmsdeviryna\t", max_size=40)


@settings(deadline=None, max_examples=120)
@given(st.one_of(st.text(), ALMOST, ALMOST.map("@every {}".format), ALMOST.map("2026-{}".format)))
@example("9999-12-31T23:59:59.999999Z")
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        schedule = parse_schedule(text, "America/New_York")
    except InvalidSchedule:
        return
    for after in (datetime.min.replace(tzinfo=UTC), ANCHOR, LAST):
        schedule.next_after(after, after)
        schedule.due_slots(after, min(after, LAST - timedelta(days=9)) + timedelta(days=9), after, 3)


@settings(deadline=None, max_examples=100)
@given(st.text())
def test_any_text_is_a_zone_or_refused(zone: str) -> None:
    with suppress(InvalidSchedule):
        assert parse_schedule("@daily", zone).timezone == zone


CRONS = st.tuples(
    st.sampled_from(["0", "30", "*/20", "5,50", "0-59/7", "*"]),
    st.sampled_from(["0", "2", "1-3", "*/2", "*", "0-23"]),
    st.sampled_from(["*", "1", "*/2", "25-31"]),
    st.sampled_from(["*", "3,4,10,11", "2"]),
    st.sampled_from(["*", "SUN", "1-5"]),
).map(" ".join)
SCHEDULES = st.one_of(
    CRONS, CRONS.map("*/40 {}".format), st.sampled_from(["@every 7s", "@every 25h", "@hourly"])
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"]
)
# Half of the starts lie just before a clock change, where the mistakes are.
STARTS = st.one_of(
    st.datetimes(datetime(1990, 1, 1), datetime(2070, 1, 1)),
    st.sampled_from([datetime(2026, 3, 29), datetime(2026, 10, 24, 22), datetime(2026, 4, 4, 13)]),
    st.sampled_from([datetime(2026, 11, 1, 4), datetime(2026, 2, 15), datetime(2011, 12, 30, 8)]),
).map(lambda moment: moment.replace(tzinfo=UTC))


@settings(deadline=None, max_examples=120)
@given(SCHEDULES, ZONES, STARTS, st.integers(0, 30))
def test_due_slots_are_those_of_a_walk_which_only_goes_forward(
    text: str, zone: str, start: datetime, newest: int
) -> None:
    schedule = parse_schedule(text, zone)
    found, at = [], start
    for _ in range(40):
        slot = schedule.next_after(at, ANCHOR)
        assert slot is not None
        assert slot > at
        found.append(slot)
        at = slot
    due = schedule.due_slots(start, found[-1], ANCHOR, newest)
    assert due == Due(tuple(found[len(found) - newest :]), 40)
    assert schedule.due_slots(start, found[-1] - timedelta(microseconds=1), ANCHOR, 3).count == 39
    gap = schedule.shortest_gap()
    assert gap is not None
    # Clock changes count up to 2060: Morocco's have been announced for the Ramadans of decades beyond.
    assert all(later - earlier >= gap for earlier, later in pairwise(found) if later.year <= 2060)


@pytest.mark.parametrize(
    "text", ["* * * * * *", "*/5 0-59 * * * *", "5 4 0-23 * * *", "@every 1s", "0 0 1 * *"]
)
def test_ten_years_of_absence_are_counted_at_once(text: str) -> None:
    schedule = parse_schedule(text, "Europe/Berlin")
    until = utc("2026-06-01 00:00")
    after = until - timedelta(days=3653)
    began = time.process_time()
    due = schedule.due_slots(after, until, utc("2010-01-01 00:00"), 1001)
    assert time.process_time() - began < 0.2  # measured: under 0.02
    middle = until - timedelta(days=1234)
    halves = [schedule.due_slots(after, middle, utc("2010-01-01 00:00"), 1)]
    halves.append(schedule.due_slots(middle, until, utc("2010-01-01 00:00"), 1))
    assert due.count == sum(half.count for half in halves)
    assert len(due.slots) == min(1001, due.count)
    if text in ("* * * * * *", "@every 1s"):
        assert due.count == 3653 * 86_400


def test_a_rare_schedule_is_followed_over_millennia_and_little_of_them_is_kept() -> None:
    rare = parse_schedule("0 0 29 2 */7", "Europe/Berlin")
    at, found = ANCHOR, []
    for _ in range(100):
        slot = rare.next_after(at, ANCHOR)
        assert slot is not None
        found.append(slot)
        at = slot
    assert [found[0], found[-1]] == [utc("2032-02-28T23:00"), utc("5080-02-28T23:00")]
    local = [slot.astimezone(ZoneInfo("Europe/Berlin")) for slot in found]
    assert {(day.month, day.day, day.hour, day.isoweekday()) for day in local} == {(2, 29, 0, 7)}
    yearly = parse_schedule("0 0 1 1 *", "Europe/Berlin")
    for year in range(1, 9999, 40):
        assert yearly.next_after(utc(f"{year:04d}-06-01"), ANCHOR) is not None
    assert len(zone_clock.zone_of("Europe/Berlin")._pages) <= 128


def test_nothing_is_due_after_the_year_9999() -> None:
    for text in ("* * * * * *", "0 0 * * *", "@every 100h", "@in 100h"):
        schedule = parse_schedule(text, "America/New_York")
        assert schedule.next_after(LAST, LAST) is None
        assert schedule.due_slots(LAST, LAST, LAST, 5) == Due((), 0)


def test_the_shortest_gap_knows_the_clock_changes_of_the_zone() -> None:
    def gap(text: str, zone: str) -> timedelta | None:
        return parse_schedule(text, zone).shortest_gap()

    assert gap("30 2 * * *", "UTC") == timedelta(hours=24)
    assert gap("30 2 * * *", "Europe/Berlin") == timedelta(hours=23, minutes=30)
    assert gap("15 2,3 * * *", "Europe/Berlin") == timedelta(minutes=15)
    assert gap("45 * * * *", "Australia/Lord_Howe") == timedelta(minutes=30)


def test_jitter_is_the_same_for_ever() -> None:
    slot = utc("2026-06-01 09:00")
    delays = [effective_time(slot, job_id, 600, timedelta(hours=1)) - slot for job_id in (1, 2, 3)]
    assert delays == [timedelta(milliseconds=ms) for ms in (115839, 14609, 486977)]


@given(
    st.integers(1, 10**12), st.floats(0, 86_400), st.none() | st.timedeltas(timedelta(0), timedelta(days=2))
)
def test_jitter_is_never_early_and_below_both_its_bound_and_the_gap(
    job_id: int, jitter: float, gap: timedelta | None
) -> None:
    delay = effective_time(ANCHOR, job_id, jitter, gap) - ANCHOR
    bounds = [timedelta(seconds=jitter)] + ([gap] if gap is not None else [])
    assert timedelta(0) <= delay
    assert all(delay < bound or bound < timedelta(milliseconds=2) for bound in bounds)


def test_jitter_spreads_jobs_evenly() -> None:
    delays = [
        (effective_time(ANCHOR, job_id, 10, None) - ANCHOR) // timedelta(seconds=1) for job_id in range(2000)
    ]
    assert all(140 < delays.count(second) < 260 for second in range(10))

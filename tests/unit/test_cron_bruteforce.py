"""Every slot of three years against a scan that knows nothing of spans, masks or counting.

The scan asks zoneinfo for the offset at each quarter of an hour (no zone here changes it in between) and looks
at every minute of the wall clock. Only the values of the fields come from croniter.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from jobsched.domain.schedule import Schedule, parse_schedule

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
QUARTER = timedelta(minutes=15)
EXPRESSIONS = [
    "17 */3 * * *",
    "*/20 2 * * *",
    "*/30 1-3 * * SUN",
    "30 2 * * *",
    "0 2 * * *",
    "59 1 * * *",
    "0,10,45 1-3 * 3,4,10,11 *",
    "15 0-23/6 * * MON-FRI",
    "0 0 1 * MON",
    "0 12 */2 * 1",
    "30 2 29 2 *",
    "59 23 31 * *",
]


@cache
def quarters(zone: str) -> list[tuple[datetime, datetime]]:
    """Each quarter of an hour: its instant, and what the clock on the wall shows then."""
    info = ZoneInfo(zone)
    count = (END - START) // QUARTER
    instants = (START + number * QUARTER for number in range(count))
    return [(instant, instant.astimezone(info).replace(tzinfo=None)) for instant in instants]


def scan(expression: str, zone: str) -> list[datetime]:
    every = [range(60), range(24), range(1, 32), range(1, 13), range(7)]
    fields = [
        set(full) if values == ["*"] else set(values)
        for full, values in zip(every, croniter.expand(expression)[0], strict=True)
    ]
    minutes, hours, month_days, months, weekdays = fields
    text = expression.split()
    both = text[2][0] == "*" or text[4][0] == "*"

    def day_matches(day: datetime) -> bool:
        by_day, by_weekday = day.day in month_days, day.isoweekday() % 7 in weekdays
        return day.month in months and (by_day and by_weekday if both else by_day or by_weekday)

    if text[0][0] == "*" or text[1][0] == "*":
        return [
            instant + timedelta(minutes=minute)
            for instant, wall in quarters(zone)
            if wall.hour in hours and day_matches(wall)
            for minute in range(15)
            if wall.minute + minute in minutes
        ]
    found = set()
    day = datetime(START.year, 1, 1) - timedelta(days=1)
    while day < datetime(END.year, 1, 2):
        if day_matches(day):
            for hour in hours:
                found |= {
                    first_instant(day.replace(hour=hour, minute=minute), ZoneInfo(zone)) for minute in minutes
                }
        day += timedelta(days=1)
    return sorted(slot for slot in found if START <= slot < END)


def first_instant(wall: datetime, info: ZoneInfo) -> datetime:
    """The first instant that shows ``wall``, or the end of the gap: minute by minute until a time exists."""
    while wall.replace(tzinfo=info).astimezone(UTC).astimezone(info).replace(tzinfo=None) != wall:
        wall = wall.replace(second=0) + timedelta(minutes=1)
    return wall.replace(tzinfo=info).astimezone(UTC)


def walk(schedule: Schedule) -> list[datetime]:
    found: list[datetime] = []
    slot = schedule.next_after(START - timedelta(microseconds=1), START)
    while slot is not None and slot < END:
        found.append(slot)
        slot = schedule.next_after(slot, START)
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_three_years_of_slots_are_those_of_a_scan_of_every_minute(expression: str, zone: str) -> None:
    expected = scan(expression, zone)
    schedule = parse_schedule(expression, zone)
    assert walk(schedule) == expected
    due = schedule.due_slots(START - timedelta(seconds=1), END - timedelta(seconds=1), START, 7)
    assert due.count == len(expected)
    assert due.slots == tuple(expected[-7:])


@pytest.mark.parametrize("zone", ZONES)
def test_every_minute_is_counted_through_every_clock_change(zone: str) -> None:
    due = parse_schedule("* * * * *", zone).due_slots(START, END, START, 2)
    assert due.count == (END - START) // timedelta(minutes=1)
    assert due.slots == (END - timedelta(minutes=1), END)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize("expression", ["*/17 */7 2 * * *", "5/25 0/10 2 * * *", "58-59 59 0-3 * * *"])
def test_seconds_around_a_clock_change_are_those_of_a_scan_of_every_second(
    expression: str, zone: str
) -> None:
    minute, hour, _, _, _, second = croniter.expand(expression, second_at_beginning=True)[0]

    def matches(wall: datetime) -> bool:
        return wall.hour in hour and wall.minute in minute and wall.second in second

    info = ZoneInfo(zone)
    for change in changes(zone)[:2]:
        start, end = change - timedelta(hours=2), change + timedelta(hours=2)
        instants = [start + timedelta(seconds=number) for number in range(4 * 3600)]
        if expression.split()[1][0] == "*":
            expected = [at for at in instants if matches(at.astimezone(info).replace(tzinfo=None))]
        else:
            walls = (at.replace(tzinfo=None) + offset for at in instants for offset in offsets(change, info))
            found = {first_instant(wall, info) for wall in set(walls) if matches(wall)}
            expected = sorted(slot for slot in found if start <= slot < end)
        second_before = timedelta(seconds=1)
        due = parse_schedule(expression, zone).due_slots(
            start - second_before, end - second_before, start, 9999
        )
        assert list(due.slots) == expected


def changes(zone: str) -> list[datetime]:
    """The instants at which the zone's offset changes."""
    return [now for (before, shown), (now, then) in pairwise(quarters(zone)) if then - shown != now - before]


def offsets(change: datetime, info: ZoneInfo) -> set[timedelta]:
    """What the clock adds to UTC before and after ``change``."""
    around = (change - QUARTER, change)
    return {at.astimezone(info).utcoffset() or timedelta() for at in around}

"""What a person with a wall clock would run: the rule of docs/schedules.md, without any of jobsched's code.

It looks at the clock minute by minute (second by second where an expression has seconds) and asks zoneinfo only
what the clock shows. It reads no more of cron's language than the scenarios use.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

ALIASES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0"}
_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))  # with seconds first


@dataclass(frozen=True)
class Change:
    """A change of a zone's clock: the first instant after it, and by how much the clock is put forward."""

    at: datetime
    jump: timedelta


def change(zone: str, year: int, *, forward: bool) -> Change:
    """The one in spring (``forward``) or autumn. ValueError if that year has none."""
    instants = [datetime(year, 1, 1, tzinfo=UTC) + n * HOUR / 2 for n in range(366 * 48)]
    info = ZoneInfo(zone)
    for first, last in pairwise(instants):
        jump = _shown(last, info) - _shown(first, info) - HOUR / 2
        if jump and (jump > timedelta()) == forward:
            return Change(last, jump)
    raise ValueError(f"the clock of {zone} is not put {'forward' if forward else 'back'} in {year}")


@cache
def slots(schedule: str, zone: str, first: datetime, last: datetime) -> list[datetime]:
    """What runs from ``first`` to ``last``, both included; intervals count from ``first``.

    ``first`` is at least as far before a change of the clock as the change is large.
    """
    if schedule.startswith("@every "):
        return list(_intervals(_duration(schedule.removeprefix("@every ")), first, last))
    if schedule.startswith("@at "):
        at = datetime.fromisoformat(schedule.removeprefix("@at "))
        return [moment for moment, wall in _watch(zone, first, last, MINUTE) if wall >= at][:1]
    text = ALIASES.get(schedule, schedule).split()
    step = SECOND if len(text) == 6 else MINUTE
    values = [_values(*each) for each in zip(text if step == SECOND else ["0", *text], _RANGES, strict=True)]
    follows_time = text[-5].startswith("*") or text[-4].startswith("*")
    clock = _by_hour(zone, first, last, step, not follows_time)
    found = {moment for hour in values[2] for moment, wall in clock.get(hour, ()) if _matches(values, wall)}
    return sorted(found)


@cache
def _watch(zone: str, first: datetime, last: datetime, step: timedelta) -> list[tuple[datetime, datetime]]:
    """Each full minute or second from ``first`` to ``last``, with what the clock shows then."""
    info = ZoneInfo(zone)
    moment = first.replace(microsecond=0) if step == SECOND else first.replace(second=0, microsecond=0)
    if moment < first:
        moment += step
    found = []
    while moment <= last:
        found.append((moment, _shown(moment, info)))
        moment += step
    return found


@cache
def _by_hour(
    zone: str, first: datetime, last: datetime, step: timedelta, once: bool
) -> dict[int, list[tuple[datetime, datetime]]]:
    """What the clock shows and when, by its hour.

    With ``once`` each time of the wall clock counts when it is reached or passed for the first time: those of a
    gap at its end, and in a fold nothing until the clock has gone beyond where it was.
    """
    hours = defaultdict(list)
    reached: datetime | None = None
    for moment, wall in _watch(zone, first, last, step):
        new = wall if reached is None or not once else reached + step
        while new <= wall:
            hours[new.hour].append((moment, new))
            new += step
        reached = wall if reached is None else max(reached, wall)
    return hours


def _shown(moment: datetime, info: ZoneInfo) -> datetime:
    return moment.astimezone(info).replace(tzinfo=None)


def _matches(fields: list[frozenset[int]], wall: datetime) -> bool:
    """Whether all fields match; not for expressions that restrict both the day of the month and the weekday."""
    shown = (wall.second, wall.minute, wall.hour, wall.day, wall.month, wall.isoweekday() % 7)
    return all(value in field for value, field in zip(shown, fields, strict=True))


@cache
def _values(text: str, limits: tuple[int, int]) -> frozenset[int]:
    found: set[int] = set()
    for item in text.split(","):
        values, _, step = item.partition("/")
        low, dash, high = values.partition("-")
        if values == "*":
            start, end = limits
        else:
            start = int(low)
            end = int(high) if dash else limits[1] if step else start
        found |= set(range(start, end + 1, int(step or 1)))
    return frozenset(found)


def _intervals(step: timedelta, first: datetime, last: datetime) -> Iterator[datetime]:
    moment = first + step
    while moment <= last:
        yield moment
        moment += step


def _duration(text: str) -> timedelta:
    units = {"h": HOUR, "m": MINUTE, "s": SECOND}
    return sum((int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", text)), timedelta())

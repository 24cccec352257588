"""Cron expressions: reading them, and finding matches on a wall clock without a zone.

Five fields (minute hour day month weekday), or six with seconds first. A wall time is an integer here: the
seconds since 1970-01-01 00:00 of a clock that knows no time zone. What a zone does to it is the business of
``schedule``.

The syntax is that of crontab(5), and no more: digits, names and ``* , - /``. croniter is the reference that
the tests compare with. It is not asked at run time: one ``get_next`` costs 70 to 140 µs against 2 µs here, it
cannot count matches without visiting each, it reads ``1-31`` as ``*`` (so that ``0 0 1-31 * 1`` loses its
"either day matches"), and it fires a fixed time twice in an autumn night.

Each field is a bit mask, so that "next value" is a shift and "how many" is a bit count. The two day fields
are kept as seven masks, one for each weekday that a month may start on: which of its days match depends on
nothing else, and a rare date (``0 0 29 2 *``) is found by looking at months instead of days.

Expressions are many, but what they are put together from is little: 50,000 of them may share 60 minutes and 24
hours. So the parts that were read are kept, and not the expressions: reading one anew costs 3 µs instead of 40.
"""

import re
from calendar import isleap
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from jobsched.domain.cron_fields import FIELDS, parse_field
from jobsched.errors import InvalidSchedule

DAY = 86_400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
FIRST_WALL = (1 - EPOCH_ORDINAL) * DAY
END_WALL = (date.max.toordinal() + 1 - EPOCH_ORDINAL) * DAY
NEVER = 1 << 60
"""A wall time after all others: no match before the year 10000."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTH_DAYS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LONGEST_GAP = 28 * DAY
_EVERY_MONTH, _EVERY_DAY = (1 << 13) - 2, (1 << 32) - 2


class Cron(NamedTuple):
    """A cron expression as bit masks: bit n is set when the value n matches."""

    seconds: int
    minutes: int
    hours: int
    elapsed: bool
    """The minute or the hour field starts with ``*``: the job follows elapsed time over a clock change."""
    first_time: int
    """The earliest match of a day, in seconds after midnight."""
    times: int
    """Matches on a matching day."""
    months: int
    days: tuple[int, ...]
    """Matching days of a 31-day month, by the weekday of its first day (Monday is 0, as in ``date``)."""
    daily: bool
    """Every day matches."""

    def next_wall(self, wall: int) -> int:
        """The first match at or after ``wall``, or NEVER."""
        if wall >= END_WALL:
            return NEVER
        wall = max(wall, FIRST_WALL)
        day_number, second = divmod(wall, DAY)
        if self.daily:  # the same as below, without a look at the calendar
            time = self._next_time(second)
            found = wall - second + (time if time >= 0 else DAY + self.first_time)
            return found if found < END_WALL else NEVER
        today = date.fromordinal(day_number + EPOCH_ORDINAL)
        year, month, day = today.year, today.month, today.day
        if self.months >> month & 1:
            mask = self.days[(today.weekday() - day + 1) % 7] >> day
            if mask & 1:
                time = self._next_time(second)
                if time >= 0:
                    return wall - second + time
            mask = (mask >> 1) & ((1 << (_month_days(year, month) - day)) - 1)
            if mask:
                return (day_number + 1 + _lowest(mask)) * DAY + self.first_time
        return self._next_month(year, month)

    def _next_month(self, year: int, month: int) -> int:
        while True:
            later = self.months >> (month + 1)
            if later:
                month += 1 + _lowest(later)
            else:
                year, month = year + 1, _lowest(self.months)
                if year > 9999:
                    return NEVER
            first = date(year, month, 1)
            mask = self.days[first.weekday()] & _up_to(_month_days(year, month))
            if mask:
                return (first.toordinal() - EPOCH_ORDINAL + _lowest(mask) - 1) * DAY + self.first_time

    def _next_time(self, second: int) -> int:
        """The first match of a day at or after ``second`` (0 to 86399), or -1."""
        hour, rest = divmod(second, 3600)
        if self.hours >> hour & 1:
            minute, part = divmod(rest, 60)
            if self.minutes >> minute & 1 and (mask := self.seconds >> part):
                return second + _lowest(mask)
            if mask := self.minutes >> (minute + 1):
                return hour * 3600 + (minute + 1 + _lowest(mask)) * 60 + self.first_time % 60
        if mask := self.hours >> (hour + 1):
            return (hour + 1 + _lowest(mask)) * 3600 + self.first_time % 3600
        return -1

    def count_walls(self, start: int, end: int) -> int:
        """How many matches lie in ``start <= wall < end``. Costs 4 µs for each year between."""
        start, end = max(start, FIRST_WALL), min(end, END_WALL)
        if end <= start:
            return 0
        return (
            self._count_before(end, end // DAY)
            - self._count_before(start, start // DAY)
            + (self._matching_days(start // DAY, end // DAY) * self.times)
        )

    def _count_before(self, wall: int, day_number: int) -> int:
        """Matches of one day before ``wall``."""
        if not self._matching_days(day_number, day_number + 1):
            return 0
        hour, rest = divmod(wall - day_number * DAY, 3600)
        minute, part = divmod(rest, 60)
        per_minute = self.seconds.bit_count()
        count = (self.hours & _below(hour)).bit_count() * self.minutes.bit_count() * per_minute
        if self.hours >> hour & 1:
            count += (self.minutes & _below(minute)).bit_count() * per_minute
            if self.minutes >> minute & 1:
                count += (self.seconds & _below(part)).bit_count()
        return count

    def _matching_days(self, start: int, end: int) -> int:
        """Matching days from day number ``start`` up to, not including, ``end``."""
        last = min(end - 1 + EPOCH_ORDINAL, date.max.toordinal())
        if last < start + EPOCH_ORDINAL:
            return 0
        first_day, last_day = date.fromordinal(start + EPOCH_ORDINAL), date.fromordinal(last)
        count = -(self._month_mask(first_day.year, first_day.month) & _below(first_day.day)).bit_count()
        year, month = first_day.year, first_day.month
        while (year, month) < (last_day.year, last_day.month):
            count += self._month_mask(year, month).bit_count()
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return count + (self._month_mask(year, month) & _up_to(last_day.day)).bit_count()

    def _month_mask(self, year: int, month: int) -> int:
        if not self.months >> month & 1:
            return 0
        return self.days[date(year, month, 1).weekday()] & _up_to(_month_days(year, month))

    def shortest_gap(self) -> int:
        """Seconds between the two closest consecutive matches; 28 days where it is more than that."""
        within_day, over_day = _time_gaps(self.seconds, self.minutes, self.hours)
        return min(within_day, DAY * _closest_days(self.months, self.days) + over_day, _LONGEST_GAP)


class Fields(NamedTuple):
    """The fields of a cron expression, each as a bit mask; Sunday is bit 0 of ``weekday``."""

    second: int
    minute: int
    hour: int
    day: int
    month: int
    weekday: int
    either: bool
    """Both day fields are restricted, and a day that matches one of them is enough."""
    parts: tuple[str, ...]
    """The fields as they were written, the second first."""


def parse_cron(text: str) -> Cron:
    """Read a cron expression or alias. Raises InvalidSchedule with a hint at what to write instead."""
    second, minute, hour, day, month, weekday = _split(text)
    # As Cron(*…, *…), in half the time.
    return tuple.__new__(Cron, _times(second, minute, hour) + _dates(day, month, weekday))


def parse_fields(text: str) -> Fields:
    """What the fields of a cron expression or alias match. Raises InvalidSchedule, but not for what never matches."""
    parts = _split(text)
    second, minute, hour, day, month, weekday = map(parse_field, FIELDS, parts)
    either = _either(parts[3], parts[5])
    return Fields(second, minute, hour, day, month, weekday, either, tuple(parts))


def _split(text: str) -> list[str]:
    """The six fields of an expression or alias, the second first."""
    if text[:1] == "@":
        text = ALIASES[text.lower()]
    parts = text.split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) == 6 and "=" not in text and not parts[5].startswith(("19", "20")):
        return parts
    if re.match(r"(CRON_)?TZ=", text, re.IGNORECASE):
        raise InvalidSchedule(
            "A zone inside the expression is not supported; put it into the field timezone."
        )
    if len(parts) == 7:
        raise InvalidSchedule(
            "7 fields: a year field is not supported. Set startAt and endAt to bound a schedule."
        )
    if len(parts) != 6:
        raise InvalidSchedule(
            f"A cron expression has 5 fields (minute hour day month weekday), or 6 with seconds first; "
            f"this one has {len(parts)}."
        )
    if re.fullmatch(r"(19|20)\d\d(-(19|20)\d\d)?", parts[5]):
        raise InvalidSchedule(
            "Six fields start with the second and end with the weekday; a year field is not supported."
        )
    return parts


def _either(day: str, weekday: str) -> bool:
    # crontab(5): either day field may match when both are restricted. As in Debian's cron "restricted" means
    # not starting with a star, so "*/2" restricts nothing by itself and both must match.
    return day[0] != "*" and weekday[0] != "*"


@lru_cache(maxsize=2048)
def _times(second_text: str, minute_text: str, hour_text: str) -> tuple[int, int, int, bool, int, int]:
    """The first fields of a Cron, up to ``times``."""
    second, minute, hour = map(parse_field, FIELDS, (second_text, minute_text, hour_text))
    return (
        second,
        minute,
        hour,
        minute_text[0] == "*" or hour_text[0] == "*",
        _lowest(hour) * 3600 + _lowest(minute) * 60 + _lowest(second),
        hour.bit_count() * minute.bit_count() * second.bit_count(),
    )


@lru_cache(maxsize=2048)
def _dates(day_text: str, month_text: str, weekday_text: str) -> tuple[int, tuple[int, ...], bool]:
    """The other fields of a Cron."""
    day, month, weekday = map(parse_field, FIELDS[3:], (day_text, month_text, weekday_text))
    either = _either(day_text, weekday_text)
    days = tuple(day | mask if either else day & mask for mask in _weekday_masks(weekday))
    _check_possible(day_text, month_text, month, days)
    return month, days, month == _EVERY_MONTH and all(mask == _EVERY_DAY for mask in days)


@lru_cache(maxsize=128)
def _weekday_masks(weekday: int) -> tuple[int, ...]:
    """The days of a 31-day month on the given weekdays, for each weekday (Monday is 0) of its first day."""
    return tuple(  # Sunday is bit 0 in a cron expression, and the last weekday in Python
        sum(1 << day for day in range(1, 32) if weekday >> ((first + day) % 7) & 1) for first in range(7)
    )


def _check_possible(day_text: str, month_text: str, months: int, days: tuple[int, ...]) -> None:
    """Every month starts on every weekday at some time, 29 February too: one matching pair is enough."""
    longest = max(29 if month == 2 else _MONTH_DAYS[month] for month in _values(months))
    if not any(mask & _up_to(longest) for mask in days):
        raise InvalidSchedule(f"This never matches: day {day_text} does not exist in month {month_text}.")


@lru_cache(maxsize=4096)
def _time_gaps(second: int, minute: int, hour: int) -> tuple[int, int]:
    """Seconds between the closest matches of a day; and from its last to its first one, which is not positive."""
    seconds, minutes, hours = _values(second), _values(minute), _values(hour)
    over_minute = seconds[0] - seconds[-1]
    over_hour = over_minute + 60 * (minutes[0] - minutes[-1])
    over_day = over_hour + 3600 * (hours[0] - hours[-1])
    gaps = [b - a for a, b in pairwise(seconds)]
    gaps += [60 * (b - a) + over_minute for a, b in pairwise(minutes)]
    gaps += [3600 * (b - a) + over_hour for a, b in pairwise(hours)]
    return min(gaps, default=_LONGEST_GAP), over_day


@lru_cache(maxsize=4096)
def _closest_days(months: int, days: tuple[int, ...]) -> int:
    """Days between the two closest matching days, found in 28 years, after which weekdays repeat."""
    closest, previous = 31, None
    for year in range(2000, 2029):
        for month in range(1, 13):
            first = date(year, month, 1)
            mask = days[first.weekday()] & _up_to(_month_days(year, month)) if months >> month & 1 else 0
            for day in _values(mask):
                if previous is not None:
                    closest = min(closest, first.toordinal() + day - previous)
                previous = first.toordinal() + day
                if closest == 1:
                    return 1
    return closest


def _month_days(year: int, month: int) -> int:
    return 29 if month == 2 and isleap(year) else _MONTH_DAYS[month]


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _below(value: int) -> int:
    return (1 << value) - 1


def _up_to(value: int) -> int:
    return (2 << value) - 1


def _values(mask: int) -> list[int]:
    return [value for value in range(mask.bit_length()) if mask >> value & 1]

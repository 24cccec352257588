"""A schedule in plain English: "At 09:00 on Monday to Friday", "Every 90 seconds".

A cron expression is described by what its fields match, not by how they are written: ``*/30``, ``0,30`` and
``0-59/30`` read the same. A step that the hour or the day cuts off is said with its bounds, since ``*/7`` is not
"every 7 minutes": 3 minutes after :56 comes :00.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from jobsched.domain.cron import Fields, parse_fields
from jobsched.domain.durations import parse_instant
from jobsched.domain.schedule import Schedule

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_WEEK: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNITS: Final = (("hour", 3600), ("minute", 60), ("second", 1))
_SOME_ANCHOR: Final = datetime(2000, 1, 1, tzinfo=UTC)
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)

_EVERY_DAY: Final = (1 << 32) - 2

#: So many times of a day are told one by one.
_FEW_TIMES: Final = 4


def describe(schedule: Schedule, *, recurring: bool = True) -> str:
    """``schedule`` in words. ``recurring`` false: the job was told to run at its next match only."""
    if schedule.kind == "instant":
        return _instant(schedule)
    if schedule.kind == "delay":
        slot = schedule.next_after(_BEGINNING, _SOME_ANCHOR)
        return f"Once, after {_duration((slot or _SOME_ANCHOR) - _SOME_ANCHOR)}"
    if schedule.kind == "interval":
        text = f"Every {_duration(schedule.shortest_gap() or timedelta(), alone=True)}"
    else:
        text = _cron(parse_fields(schedule.text))
    return text if recurring else f"{text}; only the next time"


def _instant(schedule: Schedule) -> str:
    slot = schedule.next_after(_BEGINNING, _SOME_ANCHOR) or _BEGINNING
    written = (
        schedule.text.removeprefix(schedule.text.split()[0]) if schedule.text[0] == "@" else schedule.text
    )
    try:
        given = parse_instant(written.strip())
        # What a gap swallows is told as it was written; the remark on the run tells the rest.
        local = slot.astimezone(ZoneInfo(schedule.timezone)) if given.tzinfo else given
    except OverflowError:
        return f"Once, on {slot.date().isoformat()} at {_clock_of(slot)} (UTC)"
    return f"Once, on {local.date().isoformat()} at {_clock_of(local)} ({schedule.timezone})"


def _clock_of(local: datetime) -> str:
    text = f"{local:%H:%M:%S}.{local.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{local:%H:%M}" if local.second == local.microsecond == 0 else text


def _duration(length: timedelta, *, alone: bool = False) -> str:
    """``90 seconds``, ``1 hour 5 minutes``; a single unit stands without its 1 where it stands ``alone``."""
    seconds = length // timedelta(seconds=1)
    fraction = f".{length.microseconds:06d}".rstrip("0").rstrip(".")
    for unit, size in _UNITS:
        count, rest = divmod(seconds, size)
        if count and not rest and not fraction and (count < 120 or size == 3600):
            return unit if alone and count == 1 else _counted(str(count), unit)
    parts = []
    for unit, size in _UNITS[:2]:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(_counted(str(count), unit))
    if seconds or fraction:
        parts.append(_counted(f"{seconds}{fraction}", "second"))
    return " ".join(parts)


def _counted(count: str, unit: str) -> str:
    return f"{count} {unit}{'' if count == '1' else 's'}"


# ---------------------------------------------------------------------------------------------------------------
# Cron expressions


class _Shape(NamedTuple):
    """The form of a field's values: ``step`` is their distance where it is the same between all."""

    kind: Literal["all", "one", "range", "step", "list"]
    values: tuple[int, ...]
    step: int = 0
    whole: bool = False
    """The step divides the field evenly, so that it goes on over its end."""

    @property
    def first(self) -> int:
        return self.values[0]

    @property
    def last(self) -> int:
        return self.values[-1]


def _shape(mask: int, low: int, high: int) -> _Shape:
    values = tuple(value for value in range(low, high + 1) if mask >> value & 1)
    size = high - low + 1
    if len(values) == size:
        return _Shape("all", values)
    if len(values) == 1:
        return _Shape("one", values)
    distances = {b - a for a, b in pairwise(values)}
    step = distances.pop()
    if not distances and step == 1:
        return _Shape("range" if len(values) > 2 else "list", values)
    whole = step * len(values) == size
    if not distances and (len(values) > 2 or whole):
        return _Shape("step", values, step, whole)
    return _Shape("list", values)


def _cron(fields: Fields) -> str:
    second = _shape(fields.second, 0, 59)
    minute = _shape(fields.minute, 0, 59)
    hour = _shape(fields.hour, 0, 23)
    date = _date(fields)
    if times := _few_times(second, minute, hour):
        return f"At {times} {date or 'every day'}"
    head = _seconds(second, minute, hour) if fields.second != 1 else _minutes(minute, hour)
    if not date:
        return head
    only_weekdays = fields.day == _EVERY_DAY and fields.weekday.bit_count() > 1
    return f"{head}, {date.removeprefix('on ') if only_weekdays else date}"


def _few_times(second: _Shape, minute: _Shape, hour: _Shape) -> str:
    """The times of the day one by one, where they are few and no step says it better."""
    count = len(second.values) * len(minute.values) * len(hour.values)
    single = second.kind == minute.kind == "one" and hour.kind in ("one", "list")
    stepped = any(shape.kind == "step" and len(shape.values) > 2 for shape in (second, minute, hour))
    if not single and (count > _FEW_TIMES or stepped):
        return ""
    return _listed(_clock(h, m, s) for h in hour.values for m in minute.values for s in second.values)


def _clock(hour: int, minute: int, second: int = 0) -> str:
    return f"{hour:02d}:{minute:02d}:{second:02d}" if second else f"{hour:02d}:{minute:02d}"


def _minutes(minute: _Shape, hour: _Shape) -> str:
    """The time of day of an expression without seconds."""
    if minute.kind == "one":
        return _hourly(hour, minute.first, 0)
    if minute.kind == "all":
        return f"Every minute{_within(hour)}"
    if minute.kind == "step" and hour.kind == "one":
        return f"Every {minute.step} minutes {_span(hour.first, minute.first, hour.first, minute.last)}"
    if minute.kind == "range" and hour.kind == "one":
        return f"Every minute {_span(hour.first, minute.first, hour.first, minute.last)}"
    if minute.kind == "step" and minute.whole:
        if minute.first and hour.kind == "all":
            return f"Every {minute.step} minutes from minute {minute.first} of the hour"
        if minute.first and _runs(hour.values, 3) is None:
            return f"Every {minute.step} minutes from minute {minute.first}{_of_hours(hour)}"
        return f"Every {minute.step} minutes{_within(hour, minute.first)}"
    if minute.kind in ("step", "range"):
        every = f"{minute.step} minutes" if minute.kind == "step" else "minute"
        return f"Every {every} from minute {minute.first} to {minute.last}{_of_hours(hour)}"
    return f"At minutes {_numbers(minute.values)}{_of_hours(hour)}"


def _hourly(hour: _Shape, minute: int, second: int) -> str:
    """One time of each of several hours."""
    at = f":{minute:02d}" + (f":{second:02d}" if second else "")
    whole = hour.kind == "all" or (hour.whole and hour.first == 0)
    if whole and minute == second == 0:
        return f"Every {_nth_unit(hour.step, 'hour')}"
    if hour.kind == "all":
        return f"Every hour at {at}" if second else f"Every hour at minute {minute}"
    every = f"Every {_nth_unit(hour.step, 'hour')}"
    return f"{every} from {_clock(hour.first, minute, second)} to {_clock(hour.last, minute, second)}"


def _seconds(second: _Shape, minute: _Shape, hour: _Shape) -> str:
    """The time of day of an expression with seconds."""
    if second.kind == "one" and minute.kind == "one" and hour.kind != "list":
        return _hourly(hour, minute.first, second.first)
    if second.kind == "all":
        head, exact = "Every second", True
    elif second.kind == "step" and second.whole and second.first == 0:
        head, exact = f"Every {second.step} seconds", True
    elif second.kind in ("step", "range"):
        every = _nth_unit(second.step, "second")
        head, exact = f"Every {every} from second {second.first} to {second.last}", False
    else:
        head, exact = f"At second{_plural(second)} {_numbers(second.values)}", False
    if minute.kind == "all":
        if exact:
            return head + _within(hour)
        return f"{head} of every minute{_within(hour)}"
    return f"{head} of {_of_minutes(minute)}{_of_hours(hour)}"


def _of_minutes(minute: _Shape) -> str:
    if minute.kind == "step":
        bounds = "" if minute.whole and not minute.first else f" from {minute.first} to {minute.last}"
        return f"every {_ordinal(minute.step)} minute{bounds}"
    if minute.kind == "range":
        return f"minutes {minute.first} to {minute.last}"
    return f"minute{_plural(minute)} {_numbers(minute.values)}"


def _within(hour: _Shape, minute: int = 0) -> str:
    """The part of the day, from ``minute`` of its first hour to the end of its last."""
    if hour.kind == "all":
        return ""
    runs = _runs(hour.values, 3)
    if runs is None:
        return _of_hours(hour)
    return " " + " and ".join(_span(first, minute, last, 59) for first, last in runs)


def _of_hours(hour: _Shape) -> str:
    """Of which hours something is said that repeats in each."""
    if hour.kind == "all":
        return " of every hour"
    if hour.kind == "step":
        bounds = "" if hour.whole and not hour.first else f" from {hour.first:02d} to {hour.last:02d}"
        return f" of every {_ordinal(hour.step)} hour{bounds}"
    if hour.kind == "range":
        return f" of the hours {hour.first:02d} to {hour.last:02d}"
    return f" of the hour{_plural(hour)} {_listed(f'{value:02d}' for value in hour.values)}"


def _span(hour: int, minute: int, last_hour: int, last_minute: int) -> str:
    return f"from {_clock(hour, minute)} to {_clock(last_hour, last_minute)}"


# ---------------------------------------------------------------------------------------------------------------
# Days


def _date(fields: Fields) -> str:
    """The days, such as ``on Monday to Friday in July``; empty when it is every day of the year."""
    day = _shape(fields.day, 1, 31)
    month = _shape(fields.month, 1, 12)
    months = "" if month.kind == "all" else _month_names(month)
    during = f" in {months}" if months else ""
    every_day, every_weekday = day.kind == "all", fields.weekday == 0b1111111
    if (every_day and every_weekday) or (fields.either and (every_day or every_weekday)):
        return f"every day{during}" if during else ""
    days = _days(day, months)
    if every_weekday:
        return f"on {days}"
    if fields.either:
        return f"on {days} and on every {_listed(_week(fields.weekday))}{during}"
    weekdays = f"on {_weekdays(fields.weekday)}"
    return f"{weekdays}{during}" if every_day else f"{weekdays}, but only on {days}"


def _days(day: _Shape, months: str) -> str:
    """Days of the month."""
    of = f" of {months or 'the month'}"
    if day.kind == "step":
        return f"every {_ordinal(day.step)} day from {day.first} to {day.last}{of}"
    if day.kind in ("range", "all"):
        return f"days {day.first} to {day.last}{of}"
    return f"day{_plural(day)} {_numbers(day.values)}{of}"


def _month_names(month: _Shape) -> str:
    names = [_MONTHS[value - 1] for value in month.values]
    return f"{names[0]} to {names[-1]}" if month.kind == "range" else _listed(names)


def _week(mask: int) -> list[str]:
    """The names of the weekdays in ``mask``, Monday first."""
    return [name for index, name in enumerate(_WEEK) if mask >> (index + 1) % 7 & 1]


def _weekdays(mask: int) -> str:
    """The weekdays, three and more in a row as a range, over the end of the week too."""
    inside = [bool(mask >> (index + 1) % 7 & 1) for index in range(7)]
    starts = [index for index in range(7) if inside[index] and not inside[index - 1]]
    parts = []
    for start in starts:
        length = next(count for count in range(1, 8) if not inside[(start + count) % 7])
        run = [_WEEK[(start + offset) % 7] for offset in range(length)]
        parts += [f"{run[0]} to {run[-1]}"] if length > 2 else run
    return _listed(parts)


# ---------------------------------------------------------------------------------------------------------------
# Words


def _runs(values: Sequence[int], most: int) -> list[tuple[int, int]] | None:
    """``values`` as first and last of what is contiguous; None where that is more than ``most``."""
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return runs if len(runs) <= most else None


def _numbers(values: Sequence[int]) -> str:
    """Numbers as a list, three and more in a row as a range."""
    parts: list[str] = []
    for first, last in _runs(values, len(values)) or ():
        parts += [f"{first} to {last}"] if last - first > 1 else [str(first), *[str(last)] * (last > first)]
    return _listed(parts)


def _listed(words: Iterable[str], last: str = "and") -> str:
    *front, end = words
    return f"{', '.join(front)} {last} {end}" if front else end


def _plural(shape: _Shape) -> str:
    return "" if len(shape.values) == 1 else "s"


def _nth_unit(step: int, unit: str) -> str:
    return f"{step} {unit}s" if step > 1 else unit


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number in (11, 12, 13) else ending}"

"""Which slots a schedule has: arithmetic of the bench's own, which shares no line with what it judges.

All instants are whole milliseconds since 1970, all schedules in UTC. Intervals are counted from their anchor, cron
expressions are compared with every single second.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SECOND = timedelta(seconds=1)


def slots(
    schedule: str,
    anchor: int,
    since: int,
    until: int,
    *,
    start_at: int | None = None,
    end_at: int | None = None,
) -> Iterator[int]:
    """The slots from ``since`` to ``until``, both included, oldest first.

    ``anchor``: from where intervals and delays count. ``start_at`` and ``end_at`` bound them, both included.
    """
    first = since if start_at is None else max(since, start_at)
    last = until if end_at is None else min(until, end_at)
    text = schedule.strip()
    if text.startswith("@every "):
        yield from _intervals(milliseconds(text[7:]), anchor, first, last)
    elif text.startswith("@in "):
        yield from _within(anchor + milliseconds(text[4:]), first, last)
    elif text.startswith("@at ") or text[4:5] == "-":
        yield from _within(instant(text.removeprefix("@at ")), first, last)
    else:
        yield from _matches(text, first, last)


def is_recurring(schedule: str) -> bool:
    """Whether a schedule has more than one slot."""
    return not (schedule.startswith(("@in ", "@at ")) or schedule[4:5] == "-")


def milliseconds(duration: str) -> int:
    """A duration such as ``1h30m`` or ``1.5s``."""
    parts = re.findall(r"([0-9.]+)(ms|[hms])", duration)
    assert "".join(f"{number}{unit}" for number, unit in parts) == duration.strip(), duration
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def instant(text: str) -> int:
    """An instant as the API writes it; what is finer than a millisecond is cut off."""
    return int((datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def _within(slot: int, first: int, last: int) -> Iterator[int]:
    if first <= slot <= last:
        yield slot


def _intervals(step: int, anchor: int, first: int, last: int) -> Iterator[int]:
    number = max(1, -((anchor - first) // step))  # the first run is one interval after the anchor
    while (slot := anchor + number * step) <= last:
        yield slot
        number += 1


def _matches(expression: str, first: int, last: int) -> Iterator[int]:
    fields = _fields(expression)
    second = datetime.fromtimestamp(-(-first // 1000), UTC)
    end = datetime.fromtimestamp(last // 1000, UTC)
    while second <= end:
        if _match(fields, second):
            yield int(second.timestamp()) * 1000
        second += _SECOND


Fields = tuple[frozenset[int], ...]


def _match(fields: Fields, moment: datetime) -> bool:
    seconds, minutes, hours, days, months, weekdays = fields
    return (
        moment.second in seconds
        and moment.minute in minutes
        and moment.hour in hours
        and moment.day in days
        and moment.month in months
        and moment.isoweekday() % 7 in weekdays
    )


@lru_cache
def _fields(expression: str) -> Fields:
    """The values of each field. Day of month and weekday must not both be restricted: the bench has no such job."""
    texts = expression.split()
    texts = texts if len(texts) == 6 else ["0", *texts]
    ranges = (range(60), range(60), range(24), range(1, 32), range(1, 13), range(7))
    assert len(texts) == 6, expression
    assert "*" in (texts[3], texts[5]), expression
    return tuple(_values(text, whole) for text, whole in zip(texts, ranges, strict=True))


def _values(text: str, whole: range) -> frozenset[int]:
    found: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            values = list(whole)
        elif high or step:
            values = list(range(int(low), int(high) + 1 if high else whole.stop))
        else:
            values = [int(low)]
        found.update(values[:: int(step or 1)])
    return frozenset(found)

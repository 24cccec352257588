"""The fields of a cron expression, each by itself: what may stand in it, and what to write instead."""

import difflib
import re
from functools import lru_cache
from typing import NamedTuple

from jobsched.errors import InvalidSchedule


class Field(NamedTuple):
    """One field: what it is called, and the values that it takes."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_MONTH = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAY = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
#: In the order of an expression that starts with the second.
FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, _MONTH),
    Field("weekday", 0, 7, _WEEKDAY),
)
# What other schedulers know and we do not: the pattern (of one list item), and what to do instead.
_FOREIGN = (
    (r".*\?.*", "? is not supported; write * instead."),
    (
        r".*#.*",
        "# (the nth weekday of a month) is not supported; for the second Monday run daily and check there.",
    ),
    (
        r"L|L-\d+|LW|.*\dL|[A-Z]{3}L",
        "L (last) is not supported; run on 28-31 and check for the last day there.",
    ),
    (r"\d*W|W\d*", "W (nearest weekday) is not supported; use MON-FRI in the weekday field."),
    (
        r"H(\(.*\))?(/\d+)?",
        "H (a hashed value) is not supported; write a number, and jitterSeconds to spread load.",
    ),
    (
        r"R(\(.*\))?(/\d+)?",
        "R (a random value) is not supported; write a number, and jitterSeconds to spread load.",
    ),
)

_FOREIGN_LETTERS = frozenset("?#LWHR")


@lru_cache(maxsize=4096)
def parse_field(field: Field, text: str) -> int:
    """The values that ``text`` stands for, as a bit mask. Raises InvalidSchedule with a hint at what to write."""
    mask = 0
    for item in text.split(","):
        mask |= _parse_item(field, item)
    return mask


def _parse_item(field: Field, item: str) -> int:
    """One item of a list: ``*``, a value or a range, with or without a step."""
    if not _FOREIGN_LETTERS.isdisjoint(item.upper()):
        for pattern, hint in _FOREIGN:
            if re.fullmatch(pattern, item, re.IGNORECASE):
                raise InvalidSchedule(f"{field.name}: {hint}")
    match = re.fullmatch(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?", item, re.ASCII)
    if match is None:
        what = f"{item!r} is not a value, a range or a step" if item else "an item of the list is empty"
        raise InvalidSchedule(f"{field.name}: {what}. Allowed are numbers, names and * , - /")
    star, start, end, step = match.groups()
    top = (
        6 if field.names is _WEEKDAY else field.high
    )  # "*" and "2/3" end on Saturday; 7 is only a name of Sunday
    if star:
        low, high = field.low, top
    else:
        low = _parse_value(field, start)
        high = _parse_value(field, end) if end else max(low, top) if step else low
    if high < low:
        raise InvalidSchedule(
            f"{field.name}: {item!r} goes down; ranges only go up. {_up_hint(field, low, high)}"
        )
    width = high - low + 1
    stride = int(step or 1)
    if not 1 <= stride <= width:
        raise InvalidSchedule(
            f"{field.name}: step {step} in {item!r} is outside 1 to {width}, the values in its range."
        )
    mask = 0
    for value in range(low, high + 1, stride):
        mask |= 1 << (value % 7 if field.names is _WEEKDAY else value)
    return mask


def _parse_value(field: Field, text: str) -> int:
    if text.isdigit():
        value = int(text)
        if not field.low <= value <= field.high:
            raise InvalidSchedule(f"{field.name}: {value} is outside {field.low} to {field.high}.")
        return value
    name = text.upper()
    if name in field.names:
        return field.names.index(name) + field.low
    if field.names:
        close = difflib.get_close_matches(name[:3], field.names, 1)
        hint = f"did you mean {close[0]}?" if close else f"names are {' '.join(field.names)}."
        raise InvalidSchedule(f"{field.name}: {text!r} is not a number or a name; {hint}")
    raise InvalidSchedule(f"{field.name}: {text!r} is not a number.")


def _up_hint(field: Field, low: int, high: int) -> str:
    top = 6 if field.names is _WEEKDAY else field.high
    first = f"{low}-{top}" if low < top else str(low)
    second = f"{field.low}-{high}" if high > field.low else str(high)
    return f"Write {first},{second}."

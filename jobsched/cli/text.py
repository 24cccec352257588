"""Words and times for people. Nothing here prints."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

# C0 (without tab and line feed), DEL, C1, and the marks that reverse the direction of writing: a target's
# answer must not be able to move the cursor, set the terminal's title or show text in another order.
# Lone surrogates cannot be written at all.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile(r"[\t\n\u2028\u2029]+")


def clean(text: str) -> str:
    """Text of unknown origin, made safe for a terminal: control characters are gone, lines remain."""
    return _UNSAFE.sub("", text)


def one_line(value: Any) -> str:
    """Any value of an answer as one safe line; what is missing is a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _BREAKS.sub(" ", clean(str(value)))


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "job"), count(12_000, "job")
    ('1 job', '12,000 jobs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(milliseconds: float | None) -> str:
    """A length of time: ``870 ms``, ``2.4 s``, ``3 min 5 s``, ``2 h 10 min``.

    >>> duration(12.34), duration(2400), duration(185_000), duration(7_800_000), duration(None)
    ('12 ms', '2.4 s', '3 min 5 s', '2 h 10 min', '-')
    """
    if milliseconds is None:
        return "-"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    for size, unit, rest, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            part = seconds % size // rest
            return f"{seconds // size} {unit}" + (f" {part} {small}" if part else "")
    return f"{seconds} s"


def instant(text: Any) -> datetime | None:
    """A time of an answer, or None where there is none or it is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def relative(moment: datetime, now: datetime) -> str:
    """How far a moment is from now, in one unit: ``in 3 min``, ``2 h ago``, ``now``.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> relative(noon + timedelta(minutes=3), noon), relative(noon - timedelta(days=2), noon)
    ('in 3 min', '2 d ago')
    """
    seconds = (moment - now) / timedelta(seconds=1)
    size = abs(seconds)
    if size < 1:
        return "now"
    for limit, divisor, unit in (
        (90, 1, "s"),
        (5400, 60, "min"),
        (129_600, 3600, "h"),
        (5_184_000, 86400, "d"),
    ):
        if size < limit:
            return _toward(seconds, f"{size / divisor:.0f} {unit}")
    return f"{moment:%Y-%m-%d}"


def _toward(seconds: float, text: str) -> str:
    return f"in {text}" if seconds > 0 else f"{text} ago"

"""Durations and instants as users write them: Go's ``1h30m`` and RFC 3339's ``2026-12-01T09:00:00Z``."""

import re
from datetime import UTC, datetime, timedelta, timezone

from jobsched.errors import InvalidSchedule

LONGEST = timedelta(days=36_500)
"""No schedule needs more than a century, and Go's own durations end at 292 years."""

_MICROSECONDS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000}
_NUMBER_AND_UNIT = re.compile(r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?([A-Za-zµμ]+)")
_LONG_UNITS = {"d": "24h", "w": "168h", "y": "8760h"}

_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:([Zz])|([+-])(\d\d):(\d\d))?", re.ASCII
)
_BEGINNING = re.compile(r"\d{4}-\d", re.ASCII)
# The usual form, which Python's own reader takes whole; that one alone would let in weeks ("2030-W01-1T…").
_IN_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def parse_duration(text: str, shortest: timedelta) -> timedelta:
    """Read a duration of hours, minutes, seconds and milliseconds as Go's time.ParseDuration does: ``1.5h``.

    Fractions of a microsecond are dropped. Raises InvalidSchedule for anything else, for less than
    ``shortest``, and for more than a century.
    """
    rest = text.removeprefix("+")
    if rest.startswith("-"):
        raise InvalidSchedule(f"The duration {text!r} is negative.")
    total = 0
    while match := _NUMBER_AND_UNIT.match(rest):
        whole, fraction, unit = match.groups()
        if unit not in _MICROSECONDS:
            raise InvalidSchedule(_unit_hint(text, unit))
        digits = fraction or ""
        total += int(whole + digits) * _MICROSECONDS[unit] // 10 ** len(digits)
        rest = rest[match.end() :]
    if rest or not text:
        hint = "add a unit" if rest.isdigit() else "write for example 90s, 10m or 1h30m"
        raise InvalidSchedule(
            f"{text!r} is not a duration; {hint}. Units are h, m, s and ms, without spaces."
        )
    if total > LONGEST // timedelta(microseconds=1):
        raise InvalidSchedule(f"The duration {text!r} is longer than 100 years.")
    duration = timedelta(microseconds=total)
    if duration < shortest:
        raise InvalidSchedule(f"The duration {text!r} is shorter than {shortest.total_seconds():g} s.")
    return duration


def _unit_hint(text: str, unit: str) -> str:
    if longer := _LONG_UNITS.get(unit[0].lower()):
        hint = f"write {longer} instead of 1{unit[0].lower()}, or a cron expression"
        return f"{text!r}: the longest unit of a duration is the hour; {hint}."
    return f"{text!r}: {unit!r} is not a unit; units are h, m, s and ms."


def looks_like_instant(text: str) -> bool:
    """Whether a user can only have meant a date or an instant by ``text``."""
    return text[4:5] == "-" and _BEGINNING.match(text) is not None


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 instant. Aware and in UTC where the text has an offset, else naive.

    Seconds may be left out and a blank may stand for the ``T``; digits beyond microseconds are dropped; a
    leap second is the next full second. Raises InvalidSchedule, also outside the years 1 to 9999.
    """
    if _IN_UTC.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:  # a leap second, or a day that does not exist
            pass
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise InvalidSchedule(
            f"{text!r} is not an RFC 3339 instant; write for example 2026-12-01T09:00:00+01:00, "
            "or leave the offset out to use the job's timezone."
        )
    day, time, second, fraction, zulu, sign, hours, minutes = match.groups()
    leap = second == "60"
    try:
        instant = datetime.fromisoformat(f"{day}T{time}:{'59' if leap else second or '00'}")
        instant += timedelta(seconds=int(leap), microseconds=int((fraction or "").ljust(6, "0")[:6]))
        if zulu:
            return instant.replace(tzinfo=UTC)
        if sign is None:
            return instant
        if int(minutes) > 59:
            raise ValueError("minutes of the offset")
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return instant.replace(tzinfo=timezone(-offset if sign == "-" else offset)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidSchedule(f"The instant {text!r} does not exist.") from error

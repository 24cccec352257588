"""Instants in requests, other than schedules."""

from datetime import UTC, datetime, timedelta

from jobsched.domain.durations import parse_instant
from jobsched.domain.schedule import is_zone, parse_schedule
from jobsched.errors import InvalidSchedule

#: Before every instant that a job may name.
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


def read_instant(text: str, timezone: str = "UTC") -> datetime:
    """The RFC 3339 instant ``text`` in UTC, cut to milliseconds, which is what answers show.

    Without an offset it is read in ``timezone``, over clock changes as a schedule would. Raises ValueError with
    a sentence for the user, InvalidSchedule if the zone is not known.
    """
    try:
        instant = parse_instant(text)
    except InvalidSchedule as error:
        raise ValueError(error.reason) from None
    if instant.tzinfo is None:
        if not is_zone(timezone):
            raise InvalidSchedule("The time zone is not known.", "/timezone")
        slot = parse_schedule(f"@at {text}", timezone).next_after(BEGINNING, BEGINNING)
        if slot is None:
            raise ValueError(f"The instant {text!r} does not exist.")
        instant = slot
    return to_milliseconds(instant)


def to_milliseconds(instant: datetime) -> datetime:
    """``instant`` without what is finer than a millisecond."""
    return instant - timedelta(microseconds=instant.microsecond % 1000)

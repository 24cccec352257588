"""Time sources, so that everything that decides can be given a time instead of asking for one.

Due times are compared by the database's clock inside SQL. What remains for a process's own clock are
durations and liveness (monotonic) and the wording of time stamps.
"""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present instant, aware, in UTC, by this machine's wall clock. Never compared with due times."""
    return datetime.now(UTC)


#: Seconds on a clock that never jumps. Only differences mean something.
monotonic = time.monotonic


def rfc3339(instant: datetime) -> str:
    """An aware instant as the API writes it: UTC, milliseconds, ``Z``.

    >>> rfc3339(datetime(2026, 12, 1, 9, 0, tzinfo=UTC))
    '2026-12-01T09:00:00.000Z'
    """
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return f"{instant.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"

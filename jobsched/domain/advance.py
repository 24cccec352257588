"""The next slot of a job: its schedule within startAt, endAt and maxRuns."""

from datetime import datetime, timedelta

from jobsched.domain.instants import BEGINNING, to_milliseconds
from jobsched.domain.schedule import Schedule

_TICK = timedelta(microseconds=1)


def next_slot(
    schedule: Schedule,
    *,
    after: datetime,
    anchor: datetime,
    start_at: datetime | None,
    end_at: datetime | None,
    max_runs: int | None,
    runs: int,
    is_recurring: bool,
    fired: bool = True,
) -> datetime | None:
    """The first slot strictly after ``after`` that the job may run; None when there is none any more.

    ``startAt`` and ``endAt`` are inclusive; ``runs`` counts the slots that were run. A job that does not recur
    has one slot: none follows once a slot of its present schedule has ``fired``, run or not.
    """
    if max_runs is not None and runs >= max_runs:
        return None
    if fired and not is_recurring:
        return None
    if start_at is not None:
        after = max(after, before(start_at))
    slot = schedule.next_after(after, anchor)
    if slot is None or (end_at is not None and slot > end_at):
        return None
    return slot


def anchor_for(schedule: Schedule, now: datetime, start_at: datetime | None) -> datetime:
    """From where intervals and delays count for a schedule that was written ``now``: startAt, else now.

    A delay never counts from the past: ``@in 10m`` is ten minutes from now, or from a startAt to come.
    """
    now = to_milliseconds(now)
    if start_at is None or (schedule.kind == "delay" and start_at < now):
        return now
    return start_at


def counts_from(schedule: Schedule, now: datetime, start_at: datetime | None) -> datetime:
    """After which instant the first slot of a new schedule lies.

    That is now, except for what the user has placed in the past: an instant, or a startAt from which slots
    are due at once and then follow the misfire policy.
    """
    if not schedule.recurring:
        return BEGINNING
    return now if start_at is None else before(start_at)


def before(instant: datetime) -> datetime:
    """The last instant before ``instant``, as Postgres and Python count."""
    return instant - _TICK if instant > BEGINNING else instant

"""When a job is next due after it was created or edited: pure, for jobsched/db/jobs.py."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jobsched.domain.advance import anchor_for, counts_from, next_slot
from jobsched.domain.instants import BEGINNING, to_milliseconds
from jobsched.domain.schedule import Schedule, effective_time, parse_schedule
from jobsched.domain.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Times:
    """What an edit may change in ``job_schedule``; meanings as in JobRecord."""

    next_slot: datetime | None
    next_execution_time: datetime | None
    anchor: datetime


class Timed(Protocol):
    """What the times of a job follow from; meanings as in JobSpec."""

    @property
    def schedule(self) -> str: ...
    @property
    def timezone(self) -> str: ...
    @property
    def is_recurring(self) -> bool: ...
    @property
    def is_active(self) -> bool: ...
    @property
    def start_at(self) -> datetime | None: ...
    @property
    def end_at(self) -> datetime | None: ...
    @property
    def max_runs(self) -> int | None: ...
    @property
    def jitter_seconds(self) -> float: ...


def first_times(spec: Timed, *, job_id: int, now: datetime) -> Times:
    """The times of a job created ``now``, the database's clock.

    An instant or a startAt in the past gives slots in the past: they are due at once, and the misfire policy
    decides about them.
    """
    schedule = parse_schedule(spec.schedule, spec.timezone)
    anchor = anchor_for(schedule, now, spec.start_at)
    slot = _slot(spec, schedule, counts_from(schedule, now, spec.start_at), anchor, runs=0, fired=False)
    return _times(spec, schedule, slot, job_id, anchor)


class FirstSlots:
    """``first_times`` of many jobs that are created ``now`` and have nothing that bends them: slots alone."""

    def __init__(self, now: datetime) -> None:
        self.anchor = to_milliseconds(now)
        self._now = now

    @staticmethod
    def serve(spec: Timed) -> bool:
        """Whether the next execution of a job like ``spec`` is its first slot, whatever its id."""
        return (
            spec.is_active
            and spec.start_at is None
            and spec.end_at is None
            and spec.max_runs is None
            and not spec.jitter_seconds
        )

    def of(self, schedule: Schedule) -> datetime | None:
        """The first slot of a job that has this schedule."""
        return schedule.next_after(self._now if schedule.recurring else BEGINNING, self.anchor)


def times_after_edit(
    old: JobSpec,
    new: JobSpec,
    times: Times,
    *,
    job_id: int,
    now: datetime,
    last_slot: datetime | None,
    runs: int,
) -> Times | None:
    """The times after an edit of ``old`` to ``new``; None where the schedule row stays as it is.

    A changed schedule, time zone or startAt counts from now; so does a resumed job, on its old anchor.
    Otherwise the next slot stays, unless endAt, maxRuns or isRecurring now rule it out or allow one again.
    A slot at or before ``last_slot`` is never given.
    """
    schedule = parse_schedule(new.schedule, new.timezone)
    floor = last_slot or BEGINNING
    if old.start_at != new.start_at:
        anchor = anchor_for(schedule, now, new.start_at)
        after = max(floor, counts_from(schedule, now, new.start_at))
        return _times(new, schedule, _slot(new, schedule, after, anchor, runs, fired=False), job_id, anchor)
    if (old.schedule, old.timezone) != (new.schedule, new.timezone):
        anchor = anchor_for(schedule, now, new.start_at)
        after = max(floor, now if schedule.recurring else BEGINNING)
        return _times(new, schedule, _slot(new, schedule, after, anchor, runs, fired=False), job_id, anchor)
    if new.is_active and not old.is_active:
        over = times.next_slot is None
        slot = _slot(new, schedule, max(floor, now), times.anchor, runs, fired=over)
        return _times(new, schedule, slot, job_id, times.anchor)
    if _bounds(old) != _bounds(new):
        if times.next_slot is None:
            fired = last_slot is not None and last_slot >= times.anchor
            slot = _slot(new, schedule, max(floor, now), times.anchor, runs, fired)
        else:
            slot = times.next_slot if _allows(new, times.next_slot, runs) else None
        return _times(new, schedule, slot, job_id, times.anchor)
    if (old.is_active, old.jitter_seconds) != (new.is_active, new.jitter_seconds):
        return _times(new, schedule, times.next_slot, job_id, times.anchor)
    return None


def _bounds(spec: JobSpec) -> tuple[datetime | None, int | None, bool]:
    return spec.end_at, spec.max_runs, spec.is_recurring


def _allows(spec: JobSpec, slot: datetime, runs: int) -> bool:
    return (spec.end_at is None or slot <= spec.end_at) and (spec.max_runs is None or runs < spec.max_runs)


def _slot(
    spec: Timed, schedule: Schedule, after: datetime, anchor: datetime, runs: int, fired: bool
) -> datetime | None:
    return next_slot(
        schedule,
        after=after,
        anchor=anchor,
        start_at=spec.start_at,
        end_at=spec.end_at,
        max_runs=spec.max_runs,
        runs=runs,
        is_recurring=spec.is_recurring,
        fired=fired,
    )


def _times(spec: Timed, schedule: Schedule, slot: datetime | None, job_id: int, anchor: datetime) -> Times:
    due = None
    if slot is not None and spec.is_active:
        # A millisecond for each cron expression that is new.
        gap = schedule.shortest_gap() if spec.jitter_seconds else None
        due = effective_time(slot, job_id, spec.jitter_seconds, gap)
    return Times(slot, due, anchor)

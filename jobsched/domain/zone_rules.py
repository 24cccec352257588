"""When a job is next due once the rules of its time zone are others than those it was computed by. Pure.

The stored slot was right by the old rules, which nobody has any more. What is known: by them the job had no slot
between the last one that was decided (run or skipped) and the stored one. So the first slot by the new rules after
the last decided one takes its place, with two exceptions for slots that have moved across that boundary. By unchanged
rules the answer is always the stored slot.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobsched.domain.advance import before, next_slot
from jobsched.domain.instants import BEGINNING
from jobsched.domain.schedule import Schedule, effective_time, parse_schedule

#: Offsets lie within a day of UTC, so no change of one moves a wall time farther.
_FARTHEST = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class ZonedJob:
    """An active job whose next slot is still to come, with what decides when that is."""

    job_id: int
    next_slot: datetime
    last_slot: datetime | None
    runs: int
    anchor: datetime
    schedule: str
    timezone: str
    start_at: datetime | None
    end_at: datetime | None
    jitter_seconds: float
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ZonedGroup:
    """Such jobs whose stored slots one look can find right: they share all fields but the last two.

    ``counted``: the earliest of the latest instants (last slot, edit, anchor) from which each of ``jobs`` counts, all
    of them before ``next_slot``.
    """

    schedule: str
    timezone: str
    next_slot: datetime
    start_at: datetime | None
    end_at: datetime | None
    counted: datetime
    jobs: list[int]


@dataclass(frozen=True, slots=True)
class NextTimes:
    """The next slot and when it comes due, jitter included; None where endAt leaves no slot."""

    next_slot: datetime | None
    next_execution_time: datetime | None


def is_older(rules: str | None, applied: str | None) -> bool:
    """Whether ``rules`` must leave alone what ``applied`` has computed: a version of tzdata such as ``2026a``.

    Nothing is older than an unknown ``applied``; unknown ``rules`` are older than any known ones.
    """
    known = _order(applied)
    return known is not None and (_order(rules) or (0, 0, "")) < known


def times_by_present_rules(job: ZonedJob) -> NextTimes | None:
    """The times of ``job`` by the rules that this process has; None where the stored slot is right.

    The slot may lie in the past: one that has just been passed over by the change is late. It is always after the
    last slot. Raises InvalidSchedule where the stored schedule cannot be read.
    """
    schedule = parse_schedule(job.schedule, job.timezone)
    if schedule.kind not in ("cron", "instant"):
        return None
    slot = _slot(job, schedule)
    if slot == job.next_slot:
        return None
    gap = schedule.shortest_gap() if job.jitter_seconds else None
    return NextTimes(slot, slot and effective_time(slot, job.job_id, job.jitter_seconds, gap))


def all_right(group: ZonedGroup) -> bool:
    """Whether the stored slot of every job of ``group`` is right by the rules that this process has.

    False: some may be wrong, and each is to be judged by itself. Who counts from later than the first one finds the
    same slot, since there is none in between. Raises InvalidSchedule as ``times_by_present_rules``.
    """
    first = ZonedJob(
        job_id=group.jobs[0],
        next_slot=group.next_slot,
        last_slot=None,
        runs=0,
        anchor=group.counted,
        schedule=group.schedule,
        timezone=group.timezone,
        start_at=group.start_at,
        end_at=group.end_at,
        jitter_seconds=0.0,
        updated_at=group.counted,
    )
    return times_by_present_rules(first) is None


def _slot(job: ZonedJob, schedule: Schedule) -> datetime | None:
    decided = job.last_slot or BEGINNING
    if schedule.kind == "instant":
        return _first(job, schedule, decided)
    decided = max(decided, job.next_slot - _FARTHEST)
    if job.start_at is None:
        decided = max(decided, job.anchor)  # when the schedule was written
    # A resumed job counts from then, which no column tells; but it is no later than the last edit.
    after = max(decided, job.updated_at)
    slot = _first(job, schedule, after)
    if slot == job.next_slot:
        return slot
    if (earlier := _newest(job, schedule, decided, after)) is not None and (
        slot is None or job.next_slot - earlier < abs(slot - job.next_slot)
    ):
        return earlier  # the stored slot has moved to before an edit that had nothing to do with it
    if slot is not None and _is_the_last_again(job, schedule, slot):
        return _first(job, schedule, slot)
    return slot


def _is_the_last_again(job: ZonedJob, schedule: Schedule, slot: datetime) -> bool:
    """Whether ``slot`` is the last one that was decided, whose time of the wall clock has moved to later.

    By the new rules the last slot is none then, and ``slot`` is nearer to it than to the one expected.
    """
    last = job.last_slot
    if last is None or not (last > job.updated_at or (job.start_at is None and last >= job.anchor)):
        return False  # it may be a slot of another schedule that the job had
    if schedule.next_after(before(last), job.anchor) == last:
        return False
    return slot - last < abs(job.next_slot - slot)


def _first(job: ZonedJob, schedule: Schedule, after: datetime) -> datetime | None:
    """That a next slot is stored says that maxRuns and isRecurring allow one."""
    return next_slot(
        schedule,
        after=after,
        anchor=job.anchor,
        start_at=job.start_at,
        end_at=job.end_at,
        max_runs=None,
        runs=0,
        is_recurring=True,
        fired=False,
    )


def _newest(job: ZonedJob, schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """The newest slot in (after, until] that startAt and endAt allow."""
    if job.start_at is not None:
        after = max(after, before(job.start_at))
    if job.end_at is not None:
        until = min(until, job.end_at)
    slots = schedule.due_slots(after, until, job.anchor, 1).slots if after < until else ()
    return slots[-1] if slots else None


def _order(rules: str | None) -> tuple[int, int, str] | None:
    """2025z comes before 2025za, and that before 2026a."""
    match = re.fullmatch(r"(\d{4})([a-z]+)", rules or "")
    return (int(match[1]), len(match[2]), match[2]) if match else None

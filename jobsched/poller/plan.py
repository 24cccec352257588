"""What becomes of one due schedule: which slots run, which are skipped, when it is due next. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from jobsched.db.firing import Advance, DueSchedule, NewExecution, SkippedSlots
from jobsched.domain.advance import next_slot
from jobsched.domain.misfire import DUE_LIMIT, decide
from jobsched.domain.overlap import Fate, Occupancy, admit_slots, reason
from jobsched.domain.queues import queue_name
from jobsched.domain.schedule import Due, Schedule, effective_time, parse_schedule

#: A job with so many waiting executions gets its further slots as skipped (backlog).
BACKLOG_LIMIT = 1000

_JUST_BEFORE = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The slots of one job to insert, oldest first; what is not run; what comes next."""

    executions: tuple[NewExecution, ...]
    skipped: tuple[SkippedSlots, ...]
    advance: Advance

    @property
    def queued(self) -> int:
        """How many of the executions take room in their queue."""
        return sum(one.state == "queued" for one in self.executions)

    @property
    def blocks(self) -> bool:
        """Whether one of the executions waits for another one of the job to end."""
        return any(one.state == "blocked" for one in self.executions)


def make_plan(due: DueSchedule, now: datetime, *, waiting: int, room: int, occupancy: Occupancy) -> Plan:
    """Judge a schedule that is due at ``now``.

    ``waiting`` is how many executions of its job wait already, ``room`` how many more its queue takes,
    ``occupancy`` what the job has (looked at by overlap policies only).
    Raises InvalidSchedule where the stored schedule cannot be read, which only a hand in the tables can do.
    """
    schedule = parse_schedule(due.schedule, due.timezone)
    gap = schedule.shortest_gap() if due.jitter_seconds else None
    slots, following = _due_slots(due, schedule, gap, now)
    decision = decide(due.misfire_policy, slots, now, due.misfire_grace_seconds + due.jitter_seconds)
    run = decision.run if due.is_recurring else decision.run[:1]
    fates = admit_slots(due.overlap_policy, occupancy, len(run), room)
    left = len(run) if due.max_runs is None else due.max_runs - due.runs
    admitted: list[tuple[datetime, Fate]] = []
    overlapping: list[datetime] = []
    for slot, fate in zip(run, fates, strict=True):
        if len(admitted) >= left:
            break  # the runs are used up: what comes after the last one is no slot of the job any more
        if fate == "skipped":
            overlapping.append(slot)
        else:
            admitted.append((slot, fate))
    skipped = []
    if decision.skipped and decision.skipped_newest is not None:
        message = (
            f"{decision.skipped} slot(s) fell due while no poller came; "
            f"the job's misfire policy is {due.misfire_policy}."
        )
        skipped.append(_skipped(due, decision.skipped_newest, decision.skipped, "misfire", message))
    if overlapping:
        message = reason(due.overlap_policy)
        skipped.append(_skipped(due, overlapping[-1], len(overlapping), "overlap", message))
    if waiting + len(admitted) > BACKLOG_LIMIT:
        keep = max(0, BACKLOG_LIMIT - waiting)
        message = f"{waiting} executions of this job were waiting already."
        skipped.append(_skipped(due, admitted[-1][0], len(admitted) - keep, "backlog", message))
        admitted = admitted[:keep]
    newest = slots.slots[-1]
    runs = due.runs + len(admitted)
    if slots.count > 1 or runs != due.runs + 1:
        following = _following(due, schedule, newest, runs)
    queue = queue_name(due.pool, due.priority)
    return Plan(
        executions=tuple(
            NewExecution(
                due.project_id,
                due.job_id,
                slot,
                effective_time(slot, due.job_id, due.jitter_seconds, gap),
                fate,
                due.priority,
                due.pool,
                queue,
            )
            for slot, fate in admitted
        ),
        skipped=tuple(skipped),
        advance=_advance(due, following, newest, runs, gap),
    )


def next_without_skipped(due: DueSchedule) -> Advance:
    """The schedule of a job after slots that were counted as runs were taken back from ``due.runs``.

    One that had used up its runs goes on after its last slot.
    """
    following: datetime | None = due.next_slot
    schedule = parse_schedule(due.schedule, due.timezone)
    if following is None and due.last_slot is not None:
        following = _following(due, schedule, due.last_slot, due.runs)
    gap = schedule.shortest_gap() if due.jitter_seconds else None
    return _advance(due, following, due.last_slot, due.runs, gap)


def _due_slots(
    due: DueSchedule, schedule: Schedule, gap: timedelta | None, now: datetime
) -> tuple[Due, datetime | None]:
    """The slots that are due at ``now``, nearly always the one that the schedule row names, and the slot
    that follows that one if it is run."""
    only = Due((due.next_slot,), 1)
    following = _following(due, schedule, due.next_slot, due.runs + 1)
    if following is None or effective_time(following, due.job_id, due.jitter_seconds, gap) > now:
        return only, following
    until = now if due.end_at is None else min(now, due.end_at)
    found = schedule.due_slots(due.next_slot - _JUST_BEFORE, until, due.anchor, DUE_LIMIT)
    if found.count and effective_time(found.slots[-1], due.job_id, due.jitter_seconds, gap) > now:
        # Its jitter is not over yet; being shorter than the gap, it can only be the newest.
        found = Due(found.slots[:-1], found.count - 1)
    return (found if found.count else only), following


def _following(due: DueSchedule, schedule: Schedule, after: datetime, runs: int) -> datetime | None:
    return next_slot(
        schedule,
        after=after,
        anchor=due.anchor,
        start_at=due.start_at,
        end_at=due.end_at,
        max_runs=due.max_runs,
        runs=runs,
        is_recurring=due.is_recurring,
    )


def _skipped(due: DueSchedule, newest: datetime, count: int, code: str, message: str) -> SkippedSlots:
    return SkippedSlots(
        due.project_id, due.job_id, newest, count, code, message, due.max_retry_count, due.version
    )


def _advance(
    due: DueSchedule, following: datetime | None, last_slot: datetime | None, runs: int, gap: timedelta | None
) -> Advance:
    effective = following and effective_time(following, due.job_id, due.jitter_seconds, gap)
    return Advance(due.job_id, following, effective, last_slot, runs)

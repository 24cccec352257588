"""What becomes of one due schedule: which slots run, which are skipped, when it is due next. Pure."""

from datetime import datetime, timedelta
from typing import NamedTuple

from jobsched.db.firing import BACKLOG_LIMIT, Advance, DueSchedule, NewExecution, SkippedSlots
from jobsched.domain.advance import next_slot
from jobsched.domain.misfire import DUE_LIMIT, decide
from jobsched.domain.overlap import FREE, Fate, Occupancy, admit_slots, reason
from jobsched.domain.queues import queue_name
from jobsched.domain.schedule import Due, Schedule, effective_time, parse_schedule

_JUST_BEFORE = timedelta(microseconds=1)


class Plan(NamedTuple):
    """The slots of one job to insert, oldest first; what is not run; what comes next.

    ``queued``: how many of the executions take room in their queue; ``blocks``: whether one of them waits for another
    one of the job to end.
    """

    executions: tuple[NewExecution, ...]
    skipped: tuple[SkippedSlots, ...]
    advance: Advance
    queued: int
    blocks: bool


def make_plan(due: DueSchedule, now: datetime, *, room: int, occupancy: Occupancy) -> Plan:
    """Judge a schedule that is due at ``now``.

    ``room`` is how many more executions the queue of the job takes, ``occupancy`` what the job has (looked at by
    overlap policies only).
    Raises InvalidSchedule where the stored schedule cannot be read, which only a hand in the tables can do.
    """
    schedule = parse_schedule(due.schedule, due.timezone)
    gap = schedule.gap_for(due.jitter_seconds)
    following = _following(due, schedule, due.next_slot, due.runs + 1)
    effective = following and _effective(due, following, gap)
    if effective is None or effective > now:
        # Nearly always only the slot is due that the row names. Nearly always, again, nothing keeps it from running.
        slots = Due((due.next_slot,), 1)
        if _is_plain(due, now, room, occupancy):
            return _plain(due, following, effective, gap, "queued" if room > 0 else "pending")
    else:
        slots = _due_slots(due, schedule, gap, now)
    return _by_policies(due, now, schedule, gap, slots, following, room, occupancy)


def next_without_skipped(due: DueSchedule) -> Advance:
    """The schedule of a job after slots that were counted as runs were taken back from ``due.runs``.

    One that had used up its runs goes on after its last slot.
    """
    following: datetime | None = due.next_slot
    schedule = parse_schedule(due.schedule, due.timezone)
    if following is None and due.last_slot is not None:
        following = _following(due, schedule, due.last_slot, due.runs)
    gap = schedule.gap_for(due.jitter_seconds)
    return _advance(due, following, due.last_slot, due.runs, gap)


def _by_policies(
    due: DueSchedule,
    now: datetime,
    schedule: Schedule,
    gap: timedelta | None,
    slots: Due,
    following: datetime | None,
    room: int,
    occupancy: Occupancy,
) -> Plan:
    """What the policies make of ``slots``. ``following`` is what comes next if the slot of the row is run."""
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
    if due.waiting + len(admitted) > BACKLOG_LIMIT:
        keep = max(0, BACKLOG_LIMIT - due.waiting)
        message = f"{due.waiting} executions of this job were waiting already."
        skipped.append(_skipped(due, admitted[-1][0], len(admitted) - keep, "backlog", message))
        admitted = admitted[:keep]
    newest = slots.slots[-1]
    runs = due.runs + len(admitted)
    if newest != due.next_slot or runs != due.runs + 1:
        following = _following(due, schedule, newest, runs)
    return Plan(
        executions=tuple(_execution(due, slot, fate, gap) for slot, fate in admitted),
        skipped=tuple(skipped),
        advance=_advance(due, following, newest, runs, gap),
        queued=sum(fate == "queued" for _slot, fate in admitted),
        blocks=any(fate == "blocked" for _slot, fate in admitted),
    )


def _is_plain(due: DueSchedule, now: datetime, room: int, occupancy: Occupancy) -> bool:
    """Whether none of the policies has anything to say against the one slot that is due."""
    return (
        (due.overlap_policy == "allow" or (room > 0 and occupancy == FREE))
        and due.waiting < BACKLOG_LIMIT
        and (due.max_runs is None or due.runs < due.max_runs)
        and (
            due.misfire_policy != "skip" or (now - due.next_slot).total_seconds() <= due.misfire_grace_seconds
        )
    )


def _plain(
    due: DueSchedule,
    following: datetime | None,
    effective: datetime | None,
    gap: timedelta | None,
    fate: Fate,
) -> Plan:
    """What all the policies together come to where none objects; a shortcut past them."""
    return Plan(
        (_execution(due, due.next_slot, fate, gap),),
        (),
        Advance(due.job_id, following, effective, due.next_slot, due.runs + 1),
        1 if fate == "queued" else 0,
        False,
    )


def _due_slots(due: DueSchedule, schedule: Schedule, gap: timedelta | None, now: datetime) -> Due:
    """The slots that are due at ``now``, of a schedule that has more than the one that its row names."""
    until = now if due.end_at is None else min(now, due.end_at)
    found = schedule.due_slots(due.next_slot - _JUST_BEFORE, until, due.anchor, DUE_LIMIT)
    if found.count and _effective(due, found.slots[-1], gap) > now:
        # Its jitter is not over yet; being shorter than the gap, it can only be the newest.
        found = Due(found.slots[:-1], found.count - 1)
    return found if found.count else Due((due.next_slot,), 1)


def _execution(due: DueSchedule, slot: datetime, fate: Fate, gap: timedelta | None) -> NewExecution:
    return NewExecution(
        due.project_id,
        due.job_id,
        slot,
        _effective(due, slot, gap),
        fate,
        due.priority,
        due.pool,
        queue_name(due.pool, due.priority),
    )


def _effective(due: DueSchedule, slot: datetime, gap: timedelta | None) -> datetime:
    return effective_time(slot, due.job_id, due.jitter_seconds, gap) if due.jitter_seconds else slot


def _following(due: DueSchedule, schedule: Schedule, after: datetime, runs: int) -> datetime | None:
    if due.is_recurring and due.start_at is None and due.end_at is None and due.max_runs is None:
        return schedule.next_after(after, due.anchor)  # as next_slot would, without bounds to look at
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
    effective = following and _effective(due, following, gap)
    return Advance(due.job_id, following, effective, last_slot, runs)

"""What becomes of one due schedule: which slots run, which are skipped, when it is due next. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from jobsched.db.firing import Advance, DueSchedule, NewExecution, SkippedSlots
from jobsched.domain.advance import next_slot
from jobsched.domain.misfire import DUE_LIMIT, decide
from jobsched.domain.queues import queue_name
from jobsched.domain.schedule import Due, Schedule, effective_time, parse_schedule

#: A job with so many waiting executions gets its further slots as skipped (backlog).
BACKLOG_LIMIT = 1000

_JUST_BEFORE = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The slots of one job to run, oldest first, with their due times; what is not run; what comes next."""

    queue: str
    run: tuple[tuple[datetime, datetime], ...]
    skipped: tuple[SkippedSlots, ...]
    advance: Advance

    def executions(self, due: DueSchedule, room: int) -> list[NewExecution]:
        """The executions to insert: queued as long as their queue has ``room``, then pending."""
        return [
            NewExecution(
                due.project_id,
                due.job_id,
                slot,
                due_at,
                "queued" if number < room else "pending",
                due.priority,
                due.pool,
                self.queue,
            )
            for number, (slot, due_at) in enumerate(self.run)
        ]


def make_plan(due: DueSchedule, now: datetime, waiting: int) -> Plan:
    """Judge a schedule that is due at ``now``; ``waiting`` is how many executions of its job wait already.

    Raises InvalidSchedule where the stored schedule cannot be read, which only a hand in the tables can do.
    """
    schedule = parse_schedule(due.schedule, due.timezone)
    gap = schedule.shortest_gap() if due.jitter_seconds else None
    slots, following = _due_slots(due, schedule, gap, now)
    decision = decide(due.misfire_policy, slots, now, due.misfire_grace_seconds + due.jitter_seconds)
    run = decision.run
    if due.max_runs is not None:
        run = run[: max(0, due.max_runs - due.runs)]
    if not due.is_recurring:
        run = run[:1]
    skipped = []
    if decision.skipped and decision.skipped_newest is not None:
        message = (
            f"{decision.skipped} slot(s) fell due while no poller came; "
            f"the job's misfire policy is {due.misfire_policy}."
        )
        skipped.append(_skipped(due, decision.skipped_newest, decision.skipped, "misfire", message))
    if waiting + len(run) > BACKLOG_LIMIT:
        keep = max(0, BACKLOG_LIMIT - waiting)
        message = f"{waiting} executions of this job were waiting already."
        skipped.append(_skipped(due, run[-1], len(run) - keep, "backlog", message))
        run = run[:keep]
    newest = slots.slots[-1]
    runs = due.runs + len(run)
    if slots.count > 1 or runs != due.runs + 1:
        following = _following(due, schedule, newest, runs)
    return Plan(
        queue=queue_name(due.pool, due.priority),
        run=tuple((slot, effective_time(slot, due.job_id, due.jitter_seconds, gap)) for slot in run),
        skipped=tuple(skipped),
        advance=Advance(
            due.job_id,
            following,
            following and effective_time(following, due.job_id, due.jitter_seconds, gap),
            newest,
            runs,
        ),
    )


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

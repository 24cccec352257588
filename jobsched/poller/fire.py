"""Fire: turn due schedules into executions and hand them to RQ."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobsched import failpoint, metrics
from jobsched.db import firing, recovery
from jobsched.db.connection import Cursor, Link
from jobsched.db.firing import DueSchedule, NewExecution
from jobsched.domain.overlap import FREE
from jobsched.domain.queues import queue_name
from jobsched.errors import DatabaseRefused
from jobsched.log import get_logger
from jobsched.poller.journal import log_ids
from jobsched.poller.plan import Plan, make_plan
from jobsched.poller.pusher import Pusher
from jobsched.poller.rooms import Rooms
from jobsched.queue.broker import Broker

#: Executions a batch inserts at most; what is left keeps its slot for the next. Each 1,000 of them hold 4 MB.
BATCH = 1250

#: Seconds by which a schedule that raises is pushed aside.
ASIDE = 3600.0

_Insert = Callable[[Cursor, Sequence[NewExecution]], list[tuple[str, int]]]

log = get_logger()


@dataclass(frozen=True, slots=True)
class Fired:
    """What one batch did.

    ``lag``: seconds that the latest slot was late; ``more``: due rows may be left; ``blocking``: jobs of which a
    slot was blocked; ``late``: seconds that each execution comes late; ``reasons``: why how many were skipped;
    ``aside``: jobs that were set aside, and why.
    """

    executions: int = 0
    skipped: int = 0
    lag: float = 0.0
    more: bool = False
    blocking: tuple[int, ...] = ()
    late: tuple[float, ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()
    aside: tuple[tuple[int, str], ...] = ()

    def __add__(self, other: "Fired") -> "Fired":
        """Both, as if they had been one batch."""
        return Fired(
            self.executions + other.executions,
            self.skipped + other.skipped,
            max(self.lag, other.lag),
            self.more or other.more,
            self.blocking + other.blocking,
            self.late + other.late,
            self.reasons + other.reasons,
            self.aside + other.aside,
        )


class Fire:
    """Fires due schedules, one bounded transaction at a time, together with any number of other pollers."""

    def __init__(
        self,
        link: Link,
        broker: Broker,
        high_water: int,
        pusher: Pusher | None = None,
        rooms: Rooms | None = None,
    ) -> None:
        self._link = link
        self._rooms = rooms or Rooms(high_water)
        self._pusher = pusher or Pusher(broker)
        self._promised: Counter[str] = Counter()

    def run_once(self, batch: int = BATCH) -> Fired:
        """One batch: lock, decide, insert and advance, commit; then push.

        A batch that Postgres refuses for its data is tried again in halves, down to the schedule at fault.
        """
        try:
            fired, queued = self._batch(batch)
        except DatabaseRefused as error:
            if batch == 1:
                raise
            log.warning("batch_refused", size=batch, error=str(error))
            return self.run_once(batch // 2)
        _tell(fired)
        if queued:
            log_ids("fired", queued)
            failpoint.passing("fire.committed")
            self._pusher.push(queued)
        if fired.blocking:
            recovery.unblock_of(self._link, fired.blocking)
        return fired

    def _batch(self, batch: int) -> tuple[Fired, list[tuple[str, int]]]:
        run = self._alone if batch == 1 else self._together
        try:
            return run(batch, firing.insert)
        except firing.SlotExists:
            self._settle()
            return run(batch, firing.insert_missing)
        finally:
            self._settle()

    def _settle(self) -> None:
        promised, self._promised = self._promised, Counter()
        self._rooms.settle(promised)

    def _together(self, batch: int, insert: _Insert) -> tuple[Fired, list[tuple[str, int]]]:
        with self._link.transaction() as cursor:
            return self._decide(cursor, batch, insert)

    def _alone(self, batch: int, insert: _Insert) -> tuple[Fired, list[tuple[str, int]]]:
        """The one that is longest due, set aside if it is refused even alone.

        Both under one lock: between two, another poller could take it, and a healthy one would be set aside.
        """
        with self._link.transaction() as outer:
            job_id = firing.lock_longest_due(outer)
            if job_id is None:
                return Fired(), []
            try:
                with self._link.transaction() as cursor:
                    return self._decide(cursor, batch, insert, job_id)
            except DatabaseRefused as error:
                fault = str(error)
                firing.push_aside(outer, job_id, fault, ASIDE)
                return Fired(more=True, aside=((job_id, fault),)), []

    def _decide(
        self, cursor: Cursor, batch: int, insert: _Insert, job_id: int | None = None
    ) -> tuple[Fired, list[tuple[str, int]]]:
        due, orphans = firing.lock_due(cursor, batch, job_id)
        if orphans:
            firing.retire(cursor, orphans)
        if not due:
            return Fired(more=bool(orphans)), []
        now = due[0].now
        plans, aside = self._plan(cursor, due, now, batch)
        queued = _write(cursor, plans, insert)
        late = tuple([(now - one.due_at).total_seconds() for plan in plans for one in plan.executions])
        reasons = tuple([(slots.error_code, slots.count) for plan in plans for slots in plan.skipped])
        skipped = sum(count for _reason, count in reasons)
        looked_at = len(plans) + len(aside)
        faulty = {job for job, _fault in aside}
        times = [one.next_execution_time for one in due[:looked_at] if one.job_id not in faulty]
        lag = (now - min(times)).total_seconds() if times else 0.0
        more = len(due) + len(orphans) >= batch or looked_at < len(due)
        blocking = tuple([plan.advance.job_id for plan in plans if plan.blocks])
        return Fired(len(late), skipped, lag, more, blocking, late, reasons, aside), queued

    def _plan(
        self, cursor: Cursor, due: list[DueSchedule], now: datetime, batch: int
    ) -> tuple[list[Plan], tuple[tuple[int, str], ...]]:
        """The plans of ``due``, as far as their executions go into one batch; and whom it sets aside, and why."""
        queues = [queue_name(one.pool, one.priority) for one in due]
        with self._rooms.look(cursor, queues, self._promised) as rooms:
            return self._plan_within(cursor, due, now, batch, queues, rooms)

    def _plan_within(
        self,
        cursor: Cursor,
        due: list[DueSchedule],
        now: datetime,
        batch: int,
        queues: list[str],
        rooms: dict[str, int],
    ) -> tuple[list[Plan], tuple[tuple[int, str], ...]]:
        exclusive = [
            one.job_id
            for one, queue in zip(due, queues, strict=True)
            if one.overlap_policy != "allow" and rooms[queue] > 0
        ]
        occupancies = firing.occupancies(cursor, exclusive) if exclusive else {}
        plans: list[Plan] = []
        aside: list[tuple[int, str]] = []
        left = batch
        for one, queue in zip(due, queues, strict=True):
            try:
                plan = make_plan(one, now, room=rooms[queue], occupancy=occupancies.get(one.job_id, FREE))
            except Exception as error:
                # Pure code on one row: whatever it raises is that row's, and must not stop all the others.
                aside.append((one.job_id, str(error) or type(error).__name__))
                firing.push_aside(cursor, *aside[-1], ASIDE)
                continue
            if plans and len(plan.executions) > left:
                break
            left -= len(plan.executions)
            rooms[queue] -= plan.queued
            plans.append(plan)
        return plans, tuple(aside)


def _write(cursor: Cursor, plans: list[Plan], insert: _Insert) -> list[tuple[str, int]]:
    executions = [one for plan in plans for one in plan.executions]
    queued = insert(cursor, executions) if executions else []
    skipped = [slots for plan in plans for slots in plan.skipped]
    if skipped:
        firing.skip(cursor, skipped)
    if plans:
        firing.advance(cursor, [plan.advance for plan in plans])
        failpoint.passing("fire.writing")
    return queued


def _tell(fired: Fired) -> None:
    """Once it is committed: a batch that is refused as a whole is tried again, and says so by itself."""
    metrics.slots_fired.inc(fired.executions)
    metrics.lateness.observe_all(fired.late)
    metrics.blocked.inc(len(fired.blocking))
    for reason, count in fired.reasons:
        metrics.slots_skipped.labels(reason).inc(count)
    for job_id, fault in fired.aside:
        log.error("schedule_set_aside", job_id=job_id, error=fault, seconds=ASIDE)
        metrics.set_aside.labels("schedule").inc()

"""Release: hand to RQ what waits and is due, as far as its queue has room and its job's overlap policy allows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobsched.db import firing, releasing
from jobsched.db.connection import Cursor, Link
from jobsched.db.releasing import Waiting
from jobsched.domain.overlap import admit, reason
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.poller.plan import next_without_skipped
from jobsched.queue.broker import Broker

#: Executions that one transaction decides about at most.
BATCH = 2000

#: A full queue is looked at again after this many seconds, twice as long each time nothing has moved.
_FULL_FIRST = 0.1

#: A job whose lock somebody else holds is looked at again after this many seconds.
_LOCKED_NAP = 0.02

log = get_logger()


@dataclass(frozen=True, slots=True)
class Released:
    """What one round did. ``again_in``: seconds until another look is worth it, None if nothing asks for one."""

    executions: int = 0
    skipped: int = 0
    blocked: int = 0
    again_in: float | None = None


@dataclass(slots=True)
class _Round:
    """What happens in one look at all queues. ``held``: jobs that somebody else decides about at the moment."""

    queued: int = 0
    skipped: int = 0
    blocked: int = 0
    held: set[int] = field(default_factory=set)
    more: bool = False


@dataclass(slots=True)
class _Fates:
    """What becomes of one batch: ids to queue, ids to block, and what is skipped, with the reason."""

    queue: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    skip: list[tuple[int, str]] = field(default_factory=list)
    #: Jobs that count their runs, with how many of their slots are skipped here after being counted.
    uncounted: Counter[int] = field(default_factory=Counter)


class Release:
    """Releases pending and retrying executions, queue by queue, so that no queue holds up another."""

    def __init__(self, link: Link, broker: Broker, high_water: int, poll_interval: float) -> None:
        self._link = link
        self._broker = broker
        self._high_water = high_water
        self._poll_interval = poll_interval
        self._full_nap = _FULL_FIRST

    def run_once(self) -> Released:
        """One look at every queue in which something waits."""
        queues = releasing.waiting_queues(self._link)
        if not queues:
            return Released()
        with self._link.transaction() as cursor:
            rooms = firing.rooms(cursor, queues, self._high_water)
        done = _Round()
        for queue in queues:
            self._release(queue, rooms[queue], done)
        full = any(room <= 0 for room in rooms.values())
        return Released(done.queued, done.skipped, done.blocked, self._again_in(done, full))

    def _again_in(self, done: _Round, full: bool) -> float | None:
        if not full or done.queued:
            self._full_nap = _FULL_FIRST
        naps = []
        if full:
            naps.append(self._full_nap)
            self._full_nap = min(self._full_nap * 2, self._poll_interval)
        if done.held:
            naps.append(_LOCKED_NAP)
        if done.more:
            naps.append(0.0)
        return min(naps, default=None)

    def _release(self, queue: str, room: int, done: _Round) -> None:
        handled = 0
        while room > handled:
            with self._link.transaction() as cursor:
                waiting = releasing.lock_due(cursor, queue, min(BATCH, room - handled), sorted(done.held))
                fates = self._decide(cursor, waiting, done)
                _write(cursor, fates)
            if not waiting:
                return
            handled += len(waiting)
            done.queued += len(fates.queue)
            done.skipped += len(fates.skip)
            done.blocked += len(fates.block)
            done.more = done.more or bool(fates.uncounted)  # whose next slot may be due already
            if not self._push(queue, fates.queue):
                return
        # The room was not used up by what was skipped: somebody may wait for it.
        done.more = done.more or room > 0

    def _decide(self, cursor: Cursor, waiting: Sequence[Waiting], done: _Round) -> _Fates:
        undecided = {one.job_id for one in waiting if not one.decided}
        careful = set(releasing.disallowing(cursor, sorted(undecided))) if undecided else set()
        jobs = {one.job_id: one for one in releasing.lock_jobs(cursor, sorted(careful))} if careful else {}
        done.held |= careful - jobs.keys()
        occupancies = {job: contested.occupancy for job, contested in jobs.items()}
        fates = _Fates()
        for one in waiting:
            job = jobs.get(one.job_id)
            if one.decided or one.job_id not in careful:
                fates.queue.append(one.id)
                if job is not None:
                    occupancies[job.job_id] = occupancies[job.job_id].after("queued")
                continue
            if job is None:
                continue
            fate = admit(job.policy, occupancies[job.job_id])
            occupancies[job.job_id] = occupancies[job.job_id].after(fate)
            if fate == "queued":
                fates.queue.append(one.id)
            elif fate == "blocked":
                fates.block.append(one.id)
            else:
                fates.skip.append((one.id, reason(job.policy)))
                if job.limited and one.trigger == "schedule":
                    fates.uncounted[job.job_id] += 1
        return fates

    def _push(self, queue: str, ids: list[int]) -> bool:
        if not ids:
            return True
        try:
            self._broker.push([(queue, i) for i in ids])
        except QueueUnavailable as error:
            # The rows say queued; reconcile pushes them when Redis is back.
            log.warning("push_failed", executions=len(ids), error=str(error))
            return False
        return True


def _write(cursor: Cursor, fates: _Fates) -> None:
    if fates.queue:
        releasing.queue(cursor, fates.queue)
    if fates.block:
        releasing.block(cursor, fates.block)
    if fates.skip:
        releasing.skip(cursor, fates.skip)
    for job_id, count in fates.uncounted.items():
        firing.uncount(cursor, job_id, count)
        _now, due, _gone = firing.lock_due(cursor, 1, job_id)
        if due:  # not of a paused job, which gets its next time when it is resumed
            firing.advance(cursor, [next_without_skipped(one) for one in due])

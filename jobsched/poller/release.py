"""Release: hand to RQ what waits and is due, as far as its queue has room and its job's overlap policy allows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobsched import clock, failpoint, metrics
from jobsched.db import firing, recovery, releasing
from jobsched.db.connection import Cursor, Link
from jobsched.db.releasing import Waiting
from jobsched.domain.overlap import admit, reason
from jobsched.errors import DatabaseRefused
from jobsched.log import get_logger
from jobsched.poller.journal import log_ids
from jobsched.poller.plan import next_without_skipped
from jobsched.poller.pusher import Pusher
from jobsched.queue.broker import Broker

#: Executions that one transaction decides about at most.
BATCH = 2000

#: A full queue is looked at again after this many seconds, twice as long each time nothing has moved.
_FULL_FIRST = 0.1

#: A job whose lock somebody else holds is looked at again after this many seconds, twice as long each time.
_LOCKED_FIRST = 0.02

#: The queues behind one that Redis did not take are looked at again after this many seconds: it may be back.
_UNPUSHED_NAP = 1.0

#: Seconds by which an execution that Postgres refuses to move is pushed aside.
ASIDE = 3600.0

#: One look spends about so many seconds on a queue: what else is due must not wait for a flood.
_QUEUE_SECONDS = 0.25

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
    """What happens in one look at all queues.

    ``held``: jobs that somebody else decides about at the moment; ``unpushed``: Redis does not take ids.
    """

    queued: int = 0
    skipped: int = 0
    blocked: int = 0
    held: set[int] = field(default_factory=set)
    more: bool = False
    unpushed: bool = False


@dataclass(slots=True)
class _Fates:
    """What becomes of one batch: ids to queue, ids to block, and what is skipped, with the reason."""

    queue: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    skip: list[tuple[int, str]] = field(default_factory=list)
    #: Jobs with how many of their slots are skipped here after being counted as runs.
    uncounted: Counter[int] = field(default_factory=Counter)
    #: Those of them that have a maxRuns.
    limited: set[int] = field(default_factory=set)
    #: Jobs of which one is blocked.
    blocking: list[int] = field(default_factory=list)

    @property
    def decided(self) -> int:
        """How many have met their fate."""
        return len(self.queue) + len(self.block) + len(self.skip)


class Release:
    """Releases pending and retrying executions, queue by queue, so that no queue holds up another."""

    def __init__(
        self, link: Link, broker: Broker, high_water: int, poll_interval: float, pusher: Pusher | None = None
    ) -> None:
        self._link = link
        self._high_water = high_water
        self._poll_interval = poll_interval
        self._full_nap = _FULL_FIRST
        self._locked_nap = _LOCKED_FIRST
        self._pusher = pusher or Pusher(broker)

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
            if done.unpushed:
                # Each push would wait for a server that stands still, and what is due to be fired for them all.
                break
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
            naps.append(self._locked_nap)
            self._locked_nap = min(self._locked_nap * 2, self._poll_interval)
        else:
            self._locked_nap = _LOCKED_FIRST
        if done.unpushed:
            naps.append(_UNPUSHED_NAP)
        if done.more:
            naps.append(0.0)
        return min(naps, default=None)

    def _release(self, queue: str, room: int, done: _Round) -> None:
        handled, size = 0, BATCH
        until = clock.monotonic() + _QUEUE_SECONDS
        while room > handled:
            if clock.monotonic() > until:
                break
            limit = min(size, room - handled)
            try:
                fates = self._together(queue, limit, done) if limit > 1 else self._alone(queue, done)
            except DatabaseRefused as error:
                if limit == 1:
                    raise
                log.warning("batch_refused", queue=queue, size=limit, error=str(error))
                size = limit // 2
                continue
            if fates is None:
                return
            size = min(size * 2, BATCH)
            handled += fates.decided  # not those of jobs that others hold: they must not use up the room
            _count(fates, done)
            done.more = done.more or bool(fates.limited)  # whose next slot may be due already
            if fates.blocking and recovery.unblock_of(self._link, fates.blocking):
                done.more = True
            if not self._push(queue, fates.queue):
                done.unpushed = True
                return
        # The time is over, or what was skipped has not used up the room: somebody may wait for it.
        done.more = done.more or room > 0

    def _together(self, queue: str, limit: int, done: _Round) -> _Fates | None:
        """Decide about a batch, in one transaction. None if nothing waits."""
        with self._link.transaction() as cursor:
            waiting = releasing.lock_due(cursor, queue, limit, sorted(done.held))
            return self._settle(cursor, waiting, done) if waiting else None

    def _alone(self, queue: str, done: _Round) -> _Fates | None:
        """The same for the first one alone, which is set aside if it is refused; under one lock, as in Fire."""
        with self._link.transaction() as outer:
            waiting = releasing.lock_due(outer, queue, 1, sorted(done.held))
            if not waiting:
                return None
            try:
                with self._link.transaction() as cursor:
                    return self._settle(cursor, waiting, done)
            except DatabaseRefused as error:
                [one] = waiting
                log.error("execution_set_aside", execution_id=one.id, error=str(error), seconds=ASIDE)
                metrics.set_aside.labels("execution").inc()
                releasing.push_aside(outer, one.id, ASIDE)
                return _Fates()

    def _settle(self, cursor: Cursor, waiting: Sequence[Waiting], done: _Round) -> _Fates:
        fates = self._decide(cursor, waiting, done)
        _write(cursor, fates)
        return fates

    def _decide(self, cursor: Cursor, waiting: Sequence[Waiting], done: _Round) -> _Fates:
        undecided = {one.job_id for one in waiting if not one.decided}
        careful = set(releasing.disallowing(cursor, sorted(undecided))) if undecided else set()
        jobs = {one.job_id: one for one in releasing.lock_jobs(cursor, sorted(careful))} if careful else {}
        done.held |= careful - jobs.keys()
        occupancies = {job: contested.occupancy for job, contested in jobs.items()}
        # Blocked by what has ended a moment ago: who waited goes before who came later, in the next batch.
        forgotten = [job for job, seen in occupancies.items() if seen.blocked and not seen.occupied]
        let_go = releasing.let_go(cursor, forgotten) if forgotten else set()
        fates = _Fates()
        for one in waiting:
            job = jobs.get(one.job_id)
            if one.decided or one.job_id not in careful:
                fates.queue.append(one.id)
                if job is not None:
                    occupancies[job.job_id] = occupancies[job.job_id].after("queued")
                continue
            if job is None or job.job_id in let_go:
                continue
            fate = admit(job.policy, occupancies[job.job_id])
            occupancies[job.job_id] = occupancies[job.job_id].after(fate)
            if fate == "queued":
                fates.queue.append(one.id)
            elif fate == "blocked":
                fates.block.append(one.id)
                fates.blocking.append(job.job_id)
            else:
                fates.skip.append((one.id, reason(job.policy)))
                if one.trigger == "schedule":
                    fates.uncounted[job.job_id] += 1
                    if job.limited:
                        fates.limited.add(job.job_id)
        return fates

    def _push(self, queue: str, ids: list[int]) -> bool:
        if not ids:
            return True
        log_ids("released", [(queue, i) for i in ids])
        failpoint.passing("release.committed")
        return self._pusher.push([(queue, i) for i in ids])


def _count(fates: _Fates, done: _Round) -> None:
    """Of a batch that is committed: at once, for a later one may end the round with an error."""
    done.queued += len(fates.queue)
    done.skipped += len(fates.skip)
    done.blocked += len(fates.block)
    metrics.released.inc(len(fates.queue))
    metrics.blocked.inc(len(fates.block))
    metrics.slots_skipped.labels("overlap").inc(len(fates.skip))


def _write(cursor: Cursor, fates: _Fates) -> None:
    if fates.queue:
        releasing.queue(cursor, fates.queue)
    if fates.block:
        releasing.block(cursor, fates.block)
    if fates.skip:
        releasing.skip(cursor, fates.skip)
    if fates.uncounted:
        firing.uncount(cursor, fates.uncounted)
    for job_id in sorted(fates.limited):
        due, _gone = firing.lock_due(cursor, 1, job_id)
        for one in due:  # not of a paused job, which gets its next time when it is resumed
            try:
                advance = next_without_skipped(one)
            except Exception as error:
                # Pure code on one row, as in Fire: whatever it raises is that row's.
                log.error("schedule_unreadable", job_id=job_id, error=str(error) or type(error).__name__)
                continue
            firing.advance(cursor, [advance])

"""Reconcile: put right what a crash, a wiped Redis or a lost message left behind."""

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobsched import clock, metrics
from jobsched.db import instance, recovery, workers
from jobsched.db.connection import Link
from jobsched.db.recovery import Recovered
from jobsched.errors import DatabaseError, QueueUnavailable
from jobsched.log import get_logger
from jobsched.poller.pusher import Pusher
from jobsched.poller.watch import Overdue, Watch
from jobsched.queue.broker import Broker
from jobsched.runtime.outage import Outage

#: Rows that one statement touches at most.
BATCH = 500

#: Ids that one line of the log names at most.
MOST_IDS = 20

#: Rows pushed at once when Redis was wiped.
_REFILL = 1000

#: Advisory lock: one poller at a time refills a wiped Redis.
_REFILL_LOCK = 0x6A6F6273_0003

#: Seconds without a refused row after which recovery is well again: pages with one and without take turns.
_REFUSED_SETTLE = 30.0

#: Rows of dead processes are kept this many seconds, for the eyes of whoever looks for them.
_BURY_AFTER = 3600.0

log = get_logger()


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one round put right.

    ``recovered``: taken from lost workers; ``unblocked``: let go since their job is free; ``pushed``: messages
    sent again.
    """

    recovered: int = 0
    unblocked: int = 0
    pushed: int = 0


class DeathWatch:
    """Declares dead who has stopped beating. Asks Postgres only, on a link of its own.

    A round of reconciling waits for Redis, which may be slow without being away; a watch that waits with it would
    see gaps in its own reads, and take nobody for dead.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._watch = Watch()

    def run_once(self) -> int:
        """One look at all processes; how many it has declared dead."""
        try:
            pulses = workers.pulses(self._link)
        except DatabaseError:
            self._watch.interrupted()
            raise
        count = 0
        for pulse in self._watch.look(pulses, clock.monotonic()):
            if workers.declare_dead(self._link, pulse.id, pulse.beat):
                log.warning("process_dead", kind=pulse.kind, name=pulse.name, id=str(pulse.id))
                metrics.declared_dead.labels(pulse.kind).inc()
                count += 1
        return count


class Reconcile:
    """One round every 2 s; every statement is bounded and repeats its condition.

    ``wake`` is called when a round has made something due.
    """

    def __init__(
        self,
        link: Link,
        broker: Broker,
        wake: Callable[[], None] = lambda: None,
        pusher: Pusher | None = None,
    ) -> None:
        self._link = link
        self._broker = broker
        self._pusher = pusher or Pusher(broker)
        self._wake = wake
        self._overdue = Overdue()
        self._refused = Outage("recovery_refused", level="error", settle=_REFUSED_SETTLE)
        #: Up to which id lost executions were looked at; 0: from the first again.
        self._recovered_up_to = 0
        #: Up to which job blocked executions were looked at; there may be more than one round is to look at.
        self._unblocked_up_to = 0

    def run_once(self) -> Reconciled:
        """Take back what dead processes have, send lost messages again."""
        recovered = self._recover()
        unblocked, self._unblocked_up_to = recovery.unblock(self._link, self._unblocked_up_to)
        metrics.unblocked.inc(unblocked)
        if recovered or unblocked:
            self._wake()
        try:
            refilled = self._refill_if_wiped()
            pushed = refilled if refilled else self._pusher.make_up() + self._push_lost()
        except QueueUnavailable as error:
            log.debug("redis_away", error=str(error))
            pushed = 0
        workers.bury(self._link, _BURY_AFTER)
        done = Reconciled(recovered, unblocked, pushed)
        if recovered or pushed:
            log.info("reconciled", recovered=recovered, unblocked=unblocked, pushed=pushed)
        return done

    def _recover(self) -> int:
        overdue = self._overdue.look(recovery.past_deadline(self._link), clock.monotonic())
        total = 0
        while True:
            page = recovery.recover_lost(self._link, overdue, BATCH, self._recovered_up_to)
            self._recovered_up_to = page.up_to
            total += len(page.recovered)
            _tell(page.recovered)
            if page.refused:
                ids = [execution for execution, _error in page.refused]
                self._refused.failed(execution_ids=ids[:MOST_IDS], count=len(ids), error=page.refused[0][1])
                return total  # each has cost statements of its own; the next round goes on behind them
            self._refused.over()
            if not page.up_to:
                return total

    def _push_lost(self) -> int:
        """Rows that are queued much longer than the head of their list are no longer in it."""
        heads = self._broker.heads(recovery.queued_queues(self._link))
        for queue, stale in recovery.stale_heads(self._link, heads).items():
            self._broker.drop_head(queue, stale)
            del heads[queue]  # what stands behind it is looked at in the next round
        total = 0
        for queue, head in heads.items():
            ids = recovery.requeue_lost(self._link, queue, head)
            metrics.pushed_again.inc(len(ids))
            self._broker.push([(queue, i) for i in ids])
            total += len(ids)
        return total

    def _refill_if_wiped(self) -> int:
        """Push every queued row, oldest first, if Redis is not the one that we filled."""
        if self._redis_is_ours():
            return 0
        if not self._link.execute("SELECT pg_try_advisory_lock(%s)", (_REFILL_LOCK,))[0][0]:
            return 0
        try:
            if self._redis_is_ours():
                return 0  # another poller has refilled it between our look and our lock
            pushed = self._refill()
            epoch = secrets.token_hex(8)
            self._broker.set_epoch(epoch)
            with self._link.transaction() as cursor:
                instance.write_epoch(cursor, epoch)
        finally:
            self._link.execute("SELECT pg_advisory_unlock(%s)", (_REFILL_LOCK,))
        # A Redis that was empty when nothing waited is no cause for alarm, and the first start looks the same.
        self._pusher.forget()
        metrics.refills.inc(pushed > 0)
        metrics.refilled.inc(pushed)
        tell = log.warning if pushed else log.info
        tell("redis_refilled", executions=pushed, reason="its epoch was missing or not ours")
        return pushed

    def _redis_is_ours(self) -> bool:
        with self._link.transaction() as cursor:
            expected = instance.read_epoch(cursor)
        return expected is not None and self._broker.epoch() == expected

    def _refill(self) -> int:
        total = 0
        for queue in recovery.queued_queues(self._link):
            last: tuple[str, int] | None = None
            while page := recovery.queued_after(self._link, queue, last, _REFILL):
                self._broker.push([(queue, i) for _at, i in page])
                total += len(page)
                last = page[-1]
        return total


def _tell(recovered: Sequence[Recovered]) -> None:
    """One line for each worker that had some, with ids to look at."""
    by_worker: dict[tuple[str | None, bool], list[Recovered]] = defaultdict(list)
    for one in recovered:
        by_worker[one.worker, one.overdue].append(one)
    for (worker, overdue), theirs in by_worker.items():
        states = Counter(one.state for one in theirs)
        reason = "overdue" if overdue else "worker_lost"
        for state, count in states.items():
            metrics.recovered.labels(reason, state).inc(count)
        log.warning(
            "executions_recovered",
            worker=worker,
            reason=reason,
            retrying=states["retrying"],
            failed=states["failed"],
            cancelled=states["cancelled"],
            execution_ids=[one.id for one in theirs][:MOST_IDS],
        )

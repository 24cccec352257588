"""Liveness: prove to the pollers that this worker lives, and notice when it can no longer prove it.

The beat is raised only if the delivering loop has turned since the last one: a process whose loop hangs is
dead, whatever its other threads do. With each beat the rows that carry this worker's id are compared with its
seats: the answer of a claim that was lost on its way leaves rows running that nobody knows of.

A worker that cannot reach the database starts nothing new, but lets its calls go on: while the database is
away nobody else can have them, and aborting them would send each a second time. Whether others have them is
asked of the row, with the first beat that comes through.
"""

import os
import socket
from collections.abc import Callable, Sequence

from jobsched import clock, metrics
from jobsched.db import claims, workers
from jobsched.db.connection import Link
from jobsched.errors import DatabaseError, QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker
from jobsched.runtime.outage import Outage
from jobsched.worker.deliver import Deliver
from jobsched.worker.identity import Identity
from jobsched.worker.intake import Intake
from jobsched.worker.seats import Seats

BEAT_EVERY = 3.0
LOOK_EVERY = 1.0

log = get_logger()


class Liveness:
    """One look a second; a beat every third."""

    def __init__(
        self,
        link: Link,
        broker: Broker,
        seats: Seats,
        identity: Identity,
        deliver: Callable[[], Deliver],
        intake: Callable[[], Intake],
        *,
        name: str,
        pools: Sequence[str],
    ) -> None:
        self._link = link
        self._broker = broker
        self._seats = seats
        self._identity = identity
        self._deliver = deliver
        self._intake = intake
        self._name = name
        self._pools = pools
        self._beaten_at = float("-inf")
        self._turns = -1
        self._unbeaten = Outage("beat_failed")

    def run_once(self) -> float:
        """Abort what was cancelled; beat if it is time. Returns the seconds until the next look."""
        try:
            if self._identity.present is None:
                self._be_born()
            elif clock.monotonic() - self._beaten_at >= BEAT_EVERY:
                self._beat()
            self._abort_cancelled()
            self._unbeaten.over()
        except DatabaseError as error:
            self._unbeaten.failed(error=str(error))
            metrics.beats.labels("failed").inc()
        return LOOK_EVERY

    def leave(self) -> None:
        """Remove this worker's row. Only when it owns nothing any more.

        What the lost answer of a last claim has left running goes back first: without the row it would count as lost,
        although nothing of it was sent.
        """
        self._return_unknown_rows()
        if (id := self._identity.present) is not None:
            workers.leave(self._link, id)

    def _be_born(self) -> None:
        at = clock.monotonic()
        id = self._identity.reborn()
        try:
            workers.register(
                self._link,
                id=id,
                kind="worker",
                name=self._name,
                host=socket.gethostname(),
                pid=os.getpid(),
                pools=self._pools,
                concurrency=self._seats.concurrency,
            )
        except BaseException:
            self._identity.give_up()
            raise
        self._identity.prove(id, at)
        self._beaten_at = at
        log.info("worker_registered", id=str(id), name=self._name)

    def _beat(self) -> None:
        turns = self._deliver().turns
        if turns == self._turns:
            log.warning("deliver_loop_still", since_beats=1)
            metrics.beats.labels("loop_still").inc()
            return
        id = self._identity.present
        assert id is not None
        at = clock.monotonic()
        if not workers.beat(self._link, id, in_flight=len(self._seats)):
            metrics.beats.labels("refused").inc()
            self._give_up("its row says that it is dead")
            return
        metrics.beats.labels("committed").inc()
        self._turns = turns
        self._beaten_at = at
        self._identity.prove(id, at)
        self._return_unknown_rows()

    def _give_up(self, reason: str) -> None:
        """Others may have our executions now: abort what may be repeated, and start over with a new id."""
        log.warning("identity_given_up", reason=reason, in_flight=len(self._seats))
        metrics.given_up.inc()
        self._identity.give_up()
        ids = [seat.claimed.id for seat in self._seats.all() if not seat.claimed.at_most_once]
        self._deliver().abort(ids, "interrupted", "The worker was taken for dead during this call.")

    def _return_unknown_rows(self) -> None:
        id = self._identity.present
        if id is None:
            return
        seating = self._intake().seating
        if not seating.acquire(timeout=LOOK_EVERY):
            return  # a claim hangs; the beat must not hang with it
        try:
            unknown = [i for i in claims.running(self._link, id) if self._seats.get(i) is None]
            returned = claims.hand_back(self._link, id, unknown) if unknown else []
        finally:
            seating.release()
        if returned:
            log.warning("unknown_rows_returned", execution_ids=[i for _queue, i in returned][:20])
            metrics.unknown_rows.inc(len(returned))
            try:
                self._broker.push(returned)
            except QueueUnavailable as error:
                log.warning("push_failed", executions=len(returned), error=str(error))
                metrics.push_failures.inc()

    def _abort_cancelled(self) -> None:
        id = self._identity.present
        if id is None or not len(self._seats):
            return
        ids = [i for i in claims.flagged(self._link, id) if self._seats.get(i) is not None]
        if ids:
            self._deliver().abort(ids, "cancelled", "Cancelled while it ran; the call was aborted.")

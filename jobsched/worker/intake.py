"""Intake: take ids as far as seats are free, claim them, hand their calls to libcurl.

A strand of the delivering thread, with a connection of its own. Popped ids whose claim fails are claimed again until
the database answers; if the worker dies meanwhile, their rows are still queued and recovery pushes them again.
"""

import threading
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from jobsched import clock, failpoint, metrics
from jobsched.db import claims
from jobsched.db.claims import Claimed
from jobsched.db.connection import Cursor, Link
from jobsched.db.instance import current_incarnation
from jobsched.db.vault import Vault
from jobsched.errors import DatabaseError, DatabaseRefused, QueueUnavailable, SecretsUnreadable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker
from jobsched.runtime.outage import Outage
from jobsched.worker.attempt import call_for
from jobsched.worker.deliver import Deliver
from jobsched.worker.identity import Identity
from jobsched.worker.record import Recorder
from jobsched.worker.seats import Seat, Seats
from jobsched.worker.show import Show
from jobsched.worker.signers import Signers
from jobsched.worker.strands import Bell, Strands

#: Ids taken and claimed at once at most.
BATCH = 256

#: Every so many takes look at the low queues first, so that they are never starved.
_LOW_EVERY = 8

#: Calls that are built before those in flight have their turn.
_PORTION = 64

_IDLE = 1.0
_PAUSE = 0.5

#: Seconds between two looks whether rows are being compared with seats.
_LOOK_AGAIN = 0.002

log = get_logger()


class Sleeper(Protocol):
    """What an idle intake sleeps on: jobsched.queue.waker.Waker."""

    def wait(self, timeout: float) -> bool: ...
    def wake(self) -> None: ...


class Suspension(Protocol):
    """Whether ``rq suspend`` holds all workers: jobsched.worker.rq_worker.RqPresence."""

    def suspended(self) -> bool: ...


class Intake:
    """Fills free seats until it is told to stop."""

    def __init__(
        self,
        url: str,
        broker: Broker,
        waker: Sleeper,
        pools: Sequence[str],
        seats: Seats,
        identity: Identity,
        deliver: Deliver,
        recorder: Recorder,
        show: Show,
        suspension: Suspension,
        vault: Vault,
        strands: Strands,
    ) -> None:
        self._strands = strands
        self._link = Link(url, "worker-claim", on_connect=self._on_connect, waits=strands)
        self._signers = Signers(self._link, vault)
        self._broker = broker
        self._waker = waker
        self._pools = tuple(pools)
        self._seats = seats
        self._identity = identity
        self._deliver = deliver
        self._recorder = recorder
        self._show = show
        self._suspension = suspension
        self._suspension_read = 0.0
        self._suspended = False
        self._rests_until = float("-inf")
        self._incarnation = ""
        self._takes = 0
        self._asleep = False
        self._queue_away, self._unclaimed = Outage("queue_away"), Outage("claim_postponed")
        self._failed = Outage("intake_failed", level="error")
        seats.on_release = self._on_release
        self._released = Bell(strands)
        self._stopping = False
        self._stop = Bell(strands)
        self._strand = strands.add("intake", self._run)
        self.seating = threading.Lock()
        """Held from a claim until its rows sit: who compares rows with seats takes it first."""

    def begin(self) -> None:
        """Start the strand."""
        self._strand.begin()

    @property
    def alive(self) -> bool:
        """Whether the strand runs."""
        return self._strand.alive

    def end(self, timeout: float) -> None:
        """Take nothing more. Returns when the last claim has found its seats, or after ``timeout`` seconds."""
        self._stopping = True
        self._stop.ring()
        self._released.ring()
        self._waker.wake()
        self._strand.join(timeout)

    def rest(self, seconds: float) -> None:
        """Take nothing for a while: this process cannot call anybody at the moment. Thread-safe."""
        self._rests_until = clock.monotonic() + seconds

    def _on_connect(self, cursor: Cursor) -> None:
        self._incarnation = current_incarnation(cursor)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._fill()
                self._failed.over()
            except QueueUnavailable as error:
                self._queue_away.failed(error=str(error))
                metrics.takes_failed.inc()
                self._rest(_PAUSE)
            except Exception as error:
                self._failed.failed(exc_info=error)
                self._rest(_PAUSE)
        self._link.close()

    def _rest(self, seconds: float) -> bool:
        """Pause, until a stop at most; whether there was one."""
        return self._stopping or (self._stop.wait(seconds) and self._stopping)

    def _fill(self) -> None:
        """One round: wait for a seat, take, claim, seat, send."""
        free, high_only = self._seats.free()
        if free <= 0:
            self._released.wait(_IDLE)
            free, high_only = self._seats.free()
        owner = self._identity.for_new_calls()
        if free <= 0:
            return
        if owner is None or self._held() or clock.monotonic() < self._rests_until:
            self._rest(_PAUSE)
            return
        self._takes += 1
        low_first = self._takes % _LOW_EVERY == 0
        ids = self._strands.elsewhere(
            lambda: self._broker.take(self._pools, min(free, BATCH), high_only=high_only, low_first=low_first)
        )
        self._queue_away.over()
        if not ids:
            self._sleep(high_only)
            return
        failpoint.passing("worker.taken")
        seated = self._claim_until_done(ids)
        self._send(seated)

    def _sleep(self, high_only: bool) -> None:
        """Sleep until something is pushed. With only reserved seats free, another seat is a reason too."""
        self._asleep = high_only
        if not (high_only and not self._seats.free()[1]):
            self._strands.elsewhere(lambda: self._waker.wait(_IDLE))
        self._asleep = False

    def _on_release(self) -> None:
        self._released.ring()
        if self._asleep:
            self._waker.wake()

    def _held(self) -> bool:
        now = clock.monotonic()
        if now - self._suspension_read > 1.0:
            self._suspended = self._strands.elsewhere(self._suspension.suspended)
            self._suspension_read = now
        return self._suspended

    def _claim_until_done(self, ids: list[int]) -> list[Seat]:
        # Once at least, also if a stop came meanwhile: their messages are gone, and to find that out takes 15 s.
        while True:
            owner = self._identity.for_new_calls()
            if owner is not None:
                while not self.seating.acquire(blocking=False):
                    self._strands.pause(_LOOK_AGAIN)
                try:
                    seated = self._seat(owner, self._claim(owner, ids))
                    self._unclaimed.over()
                    return seated
                except DatabaseError as error:
                    self._unclaimed.failed(executions=len(ids), error=str(error))
                    metrics.claims_postponed.inc()
                finally:
                    self.seating.release()
            if self._rest(_PAUSE):
                return []

    def _claim(self, owner: UUID, ids: list[int]) -> list[Claimed]:
        claimed: list[Claimed] = []

        def refuse(execution: int, error: DatabaseRefused) -> None:
            # It stays queued and will come again; a job like this can only be made by a hand in the tables.
            log.error("claim_refused", execution_id=execution, error=str(error))

        claims.in_halves(lambda part: claimed.extend(claims.claim(self._link, owner, part)), ids, refuse)
        metrics.claimed.inc(len(claimed))
        metrics.start_delay.observe_all(one.waited for one in claimed if one.waited is not None)
        if len(claimed) < len(ids):
            metrics.dropped.inc(len(ids) - len(claimed))
            found = {one.id for one in claimed}
            log.debug("messages_dropped", execution_ids=[i for i in ids if i not in found][:20])
        return claimed

    def _seat(self, owner: UUID, claimed: list[Claimed]) -> list[Seat]:
        seated: list[Seat] = []
        standing: list[Seat] = []
        for one in claimed:
            seat = Seat(one, owner)
            (seated if self._seats.take(seat) else standing).append(seat)
        if standing:
            # An older attempt of theirs, given up under another id, has not ended here yet.
            try:
                claims.hand_back(self._link, owner, [seat.claimed.id for seat in standing])
                metrics.handed_back.inc(len(standing))
            except DatabaseError as error:
                # A beat does it once that attempt has ended; the others sit already and must be sent.
                log.debug("hand_back_postponed", executions=len(standing), error=str(error))
        self._recorder.journal.claimed([seat.claimed for seat in seated])
        return seated

    def _send(self, seated: list[Seat]) -> None:
        unsigned = False
        self._signers.refresh({seat.claimed.project_id for seat in seated})
        failpoint.passing("worker.claimed")
        self._show.started(seated)
        for first in range(0, len(seated), _PORTION):
            unsigned |= self._send_portion(seated[first : first + _PORTION])
            self._strands.pause(0.0)
        if unsigned:
            self._rest(_PAUSE)  # they come back at once

    def _send_portion(self, seated: list[Seat]) -> bool:
        """Build and start the calls of these; whether any could not be signed."""
        calls = []
        unsigned = False
        for seat in seated:
            try:
                calls.append(
                    call_for(seat.claimed, self._incarnation, self._signers.of(seat.claimed.project_id))
                )
            except SecretsUnreadable:
                unsigned = True
                self._recorder.unsent(seat)
            except ValueError as error:
                self._recorder.uncallable(seat, str(error))
            except Exception as error:
                log.exception("request_not_built", execution_id=seat.claimed.id)
                self._recorder.uncallable(seat, f"The request could not be built: {type(error).__name__}.")
        self._deliver.start(calls)
        return unsigned

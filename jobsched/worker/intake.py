"""Intake: claim what was taken, seat it, and hand its calls to the delivering thread.

Two strands of that thread: one waits for Postgres, on a connection of its own, while the other builds what
was claimed before. Taken ids whose claim fails are claimed again until the database answers; if the worker dies
meanwhile, their rows are still queued and recovery pushes them again.
"""

import threading
from uuid import UUID

from jobsched import clock, failpoint, metrics
from jobsched.db import claims
from jobsched.db.claims import Claimed
from jobsched.db.connection import Cursor, Link
from jobsched.db.instance import current_incarnation
from jobsched.db.vault import Vault
from jobsched.errors import DatabaseError, DatabaseRefused, SecretsUnreadable
from jobsched.log import get_logger
from jobsched.runtime.outage import Outage
from jobsched.worker.attempt import call_for
from jobsched.worker.deliver import Deliver
from jobsched.worker.identity import Identity
from jobsched.worker.record import Recorder
from jobsched.worker.seats import Seat, Seats
from jobsched.worker.show import Show
from jobsched.worker.signers import Signers
from jobsched.worker.strands import Handover, Strands
from jobsched.worker.taking import PAUSE, Taking

#: Calls that are built before those in flight have their turn.
_PORTION = 64

#: Seconds between two looks whether rows are still being compared with seats.
_LOOK_AGAIN = 0.002

log = get_logger()


class Intake:
    """Claims and sends what ``taking`` takes, until that is told to stop."""

    def __init__(
        self,
        url: str,
        taking: Taking,
        seats: Seats,
        identity: Identity,
        deliver: Deliver,
        recorder: Recorder,
        show: Show,
        vault: Vault,
        strands: Strands,
    ) -> None:
        self._link = Link(url, "worker-claim", on_connect=self._on_connect, waits=strands, by_index=True)
        self._signers = Signers(self._link, vault)
        self._taking = taking
        self._seats = seats
        self._identity = identity
        self._deliver = deliver
        self._recorder = recorder
        self._show = show
        self._strands = strands
        self._incarnation = ""
        self._unclaimed = Outage("claim_postponed")
        self._failed = Outage("claiming_failed", level="error")
        self._seated: Handover[list[Seat]] = Handover(strands)
        self._claims = strands.add("claim", self._claim_all)
        self._sends = strands.add("send", self._send_all)
        self.seating = threading.Lock()
        """Held from a claim until its rows sit: who compares rows with seats takes it first."""

    def begin(self) -> None:
        """Start the strands."""
        self._claims.begin()
        self._sends.begin()

    @property
    def alive(self) -> bool:
        """Whether both strands run."""
        return self._claims.alive and self._sends.alive

    def end(self, timeout: float) -> bool:
        """Wait, once taking has ended, until the last claim has found its seats and is sent; whether it has.

        ``timeout`` in seconds.
        """
        end = clock.monotonic() + timeout
        return all(strand.join(max(0.0, end - clock.monotonic())) for strand in (self._claims, self._sends))

    def _on_connect(self, cursor: Cursor) -> None:
        self._incarnation = current_incarnation(cursor)

    def _claim_all(self) -> None:
        while (ids := self._taking.ids.get()) is not None:
            failpoint.passing("worker.taken")
            try:
                seated = self._claim_until_done(ids)
                self._failed.over()
            except Exception as error:
                self._failed.failed(exc_info=error)
                self._taking.rest(PAUSE)
                continue
            finally:
                self._taking.seated(len(ids))
            if seated:
                self._signers.refresh({seat.claimed.project_id for seat in seated})
                failpoint.passing("worker.claimed")
                self._seated.put(seated)
        self._seated.close()
        self._link.close()

    def _send_all(self) -> None:
        while (seated := self._seated.get()) is not None:
            self._show.started(seated)
            for first in range(0, len(seated), _PORTION):
                if self._send(seated[first : first + _PORTION]):
                    self._taking.rest(PAUSE)  # what is not signed comes back at once
                self._strands.pause(0.0)

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
            if self._taking.stopped_within(PAUSE):
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

    def _send(self, seated: list[Seat]) -> bool:
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

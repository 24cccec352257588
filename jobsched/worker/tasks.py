"""What a stock ``rq worker`` calls: one execution, delivered and recorded by the same code, one at a time.

Run it with ``rq worker -S json default`` and the environment of a jobsched worker. It is slower than ours by
the fork and the connections of each call, and right in the same way: the claim, the fence and the beat are the
same, so both kinds may serve one queue.
"""

import os
import socket
import threading
from uuid import UUID, uuid4

from jobsched import clock
from jobsched.callback.model import Result
from jobsched.callback.request import Sign
from jobsched.config import Settings, load_settings
from jobsched.db import claims, workers
from jobsched.db.claims import Claimed, Recorded
from jobsched.db.connection import Link
from jobsched.db.instance import current_incarnation
from jobsched.db.notify import CHANNEL
from jobsched.db.vault import Vault
from jobsched.domain.outcome import Ending
from jobsched.errors import DatabaseError, DatabaseRefused, SecretsUnreadable
from jobsched.log import get_logger
from jobsched.runtime.outage import Outage
from jobsched.worker.attempt import call_for, ended_by, ending_of, verdict_of, without_capture
from jobsched.worker.liveness import BEAT_EVERY, LOOK_EVERY
from jobsched.worker.process import make_transport
from jobsched.worker.signers import Signers

#: Seconds for which recording is tried again while the database is away; then recovery takes over.
_RECORD_FOR = 60.0

log = get_logger()


def deliver(execution_id: int) -> str | None:
    """Claim, call and record one execution. Returns the state it went to; None if it was not queued any more."""
    settings = load_settings()
    worker = _Single(settings)
    try:
        return worker.deliver(execution_id)
    finally:
        worker.close()


class _Single:
    """A worker with one seat, for the length of one execution."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._id: UUID = uuid4()
        self._name = f"rq-{socket.gethostname()}-{os.getpid()}"
        self._link = Link(settings.need_database_url(), "rq-worker")
        self._done = threading.Event()
        self._cancelled = threading.Event()
        self._unrecorded = Outage("recording_postponed")

    def deliver(self, execution_id: int) -> str | None:
        workers.register(
            self._link,
            id=self._id,
            kind="worker",
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            pools=self._settings.pools,
            concurrency=1,
        )
        claimed = claims.claim(self._link, self._id, [execution_id])
        if not claimed:
            return None
        beating = threading.Thread(target=self._beat, name="beat", daemon=True)
        beating.start()
        try:
            return self._call_and_record(claimed[0])
        finally:
            self._done.set()
            beating.join(10)

    def close(self) -> None:
        try:
            workers.leave(self._link, self._id)
        except DatabaseError as error:
            log.warning("row_left_behind", error=str(error))
        self._link.close()

    def _call_and_record(self, claimed: Claimed) -> str | None:
        with self._link.transaction() as cursor:
            incarnation = current_incarnation(cursor)
        signatures = self._signatures(claimed)
        result: Result | None = None
        try:
            call = call_for(claimed, incarnation, signatures)
        except ValueError as error:
            ending = Ending(error_code="invalid_job", error_message=str(error), sent=False)
        else:
            transport = make_transport(self._settings, 1)
            try:
                transport.start(call)
                while not (results := transport.turn(LOOK_EVERY)):
                    if self._cancelled.is_set():
                        transport.abort(
                            claimed.id, "cancelled", "Cancelled while it ran; the call was aborted."
                        )
                result = results[0]
            finally:
                transport.close()
            ending = ending_of(result)
        return self._record(claimed, ending, result, clock.monotonic())

    def _signatures(self, claimed: Claimed) -> Sign:
        """What signs the call. Raises SecretsUnreadable; the execution is queued again then."""
        signers = Signers(self._link, Vault(self._settings.secret_key))
        signers.refresh([claimed.project_id])
        try:
            return signers.of(claimed.project_id)
        except SecretsUnreadable:
            claims.hand_back(self._link, self._id, [claimed.id])
            raise

    def _record(self, claimed: Claimed, ending: Ending, result: Result | None, ended_at: float) -> str | None:
        verdict = verdict_of(claimed, ending, clock.utc_now())
        if verdict.state == "queued":
            claims.hand_back(self._link, self._id, [claimed.id])
            return verdict.state
        ended = ended_by(claimed, verdict, result, 0.0)
        again = False
        while True:
            ended = ended._replace(age=clock.monotonic() - ended_at)
            try:
                recorded = claims.finish(self._link, self._id, self._name, [ended], again=again)
            except DatabaseRefused as error:
                if ended.error_code == "unrecordable":
                    raise  # recovery takes over
                log.error("outcome_unrecordable", execution_id=ended.id, error=str(error))
                ended = without_capture(ended)
            except DatabaseError as error:
                if ended.age > _RECORD_FOR:
                    raise
                self._unrecorded.failed(outcomes=1, error=str(error))
                again = True
                self._done.wait(0.5)
            else:
                break
        self._wake_pollers(recorded)
        return recorded[0].state if recorded else None

    def _wake_pollers(self, recorded: list[Recorded]) -> None:
        """Tell of a retry that is due before they look again, or of an execution whose job is free now."""
        if any(one.due_in is not None and one.due_in < self._settings.poll_interval for one in recorded):
            try:
                self._link.execute(f"NOTIFY {CHANNEL}")
            except DatabaseError as error:
                log.debug("notify_failed", error=str(error))  # it is found at the next look

    def _beat(self) -> None:
        link = Link(self._settings.need_database_url(), "rq-beat")
        unbeaten = Outage("beat_failed")
        beaten_at = clock.monotonic()
        while not self._done.wait(LOOK_EVERY):
            try:
                if clock.monotonic() - beaten_at >= BEAT_EVERY:
                    workers.beat(link, self._id, in_flight=1)
                    beaten_at = clock.monotonic()
                if claims.flagged(link, self._id):
                    self._cancelled.set()
            except DatabaseError as error:
                unbeaten.failed(error=str(error))
            else:
                unbeaten.over()
        link.close()

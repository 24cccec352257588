"""The log of single executions: what this worker claimed, and how each attempt ended.

With the ids that the API's and the poller's lines carry too, one execution can be followed from the request to its
end. Costs a comparison a batch where its level is off. A target that fails a thousand times a second does not flood
the log: beyond an allowance lines are left out, and the next one says how many (``left_out``).
"""

from collections.abc import Callable, Sequence

from jobsched import clock
from jobsched.db.claims import Claimed, Recorded
from jobsched.db.ended import Ended
from jobsched.log import enabled, get_logger
from jobsched.worker.seats import Seats

#: Lines a second that failures may have, and so many at once after a quiet time. ``debug`` has no limit.
LINES_A_SECOND = 10.0
BURST = 100.0

log = get_logger()


class Journal:
    """Writes the lines of one worker. ``now`` gives monotonic seconds.

    ``claimed`` keeps no count, so intake may call it while record calls ``ended``; that is one thread's at a time.
    """

    def __init__(self, worker: str, now: Callable[[], float] = clock.monotonic) -> None:
        self._worker = worker
        self._now = now
        self._allowance = BURST
        self._counted_at = now()
        self._left_out = 0

    def claimed(self, claimed: Sequence[Claimed]) -> None:
        """Attempts begin."""
        if not enabled("debug"):
            return
        for one in claimed:
            log.debug(
                "claimed", execution_id=one.id, job_id=one.job_id, attempt=one.attempt, worker=self._worker
            )

    def ended(self, ended: Sequence[Ended], recorded: Sequence[Recorded], seats: Seats) -> None:
        """Attempts have ended, and that is committed; those that were fenced are not among ``recorded``."""
        everything = enabled("debug")
        if not everything and all(one.state in ("succeeded", "cancelled") for one in recorded):
            return
        attempts = {one.id: one for one in ended}
        for one in recorded:
            if everything or one.state in ("failed", "retrying"):
                self._end(attempts[one.id], one, seats, everything)

    def _end(self, attempt: Ended, recorded: Recorded, seats: Seats, everything: bool) -> None:
        seat = seats.get(attempt.id)
        fields: dict[str, object] = {
            "execution_id": attempt.id,
            "job_id": None if seat is None else seat.claimed.job_id,
            "attempt": attempt.attempt,
            "worker": self._worker,
            "status": attempt.status,
            "milliseconds": attempt.duration_ms,
        }
        if recorded.state in ("succeeded", "cancelled"):
            log.debug(f"attempt_{recorded.state}", **fields)
            return
        if not (self._may_tell() or everything):
            self._left_out += 1
            return
        fields["error_code"] = attempt.error_code
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        if recorded.state == "retrying":
            log.info("attempt_failed", **fields, retry_in_seconds=round(recorded.due_in or 0.0, 3))
        else:
            log.warning("dead_letter", **fields)

    def _may_tell(self) -> bool:
        now = self._now()
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * LINES_A_SECOND)
        self._counted_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

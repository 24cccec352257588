"""Record: commit how attempts ended, in batches, until it succeeds or is fenced.

Seats stay taken until then, so a database that is away stops the worker from taking more, and nothing that
was received is forgotten.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple
from uuid import UUID

from jobsched import clock, failpoint, metrics
from jobsched.callback.model import Result
from jobsched.db import claims
from jobsched.db.claims import Recorded
from jobsched.db.connection import Link
from jobsched.db.ended import Ended
from jobsched.domain.outcome import Ending
from jobsched.errors import DatabaseError, DatabaseRefused, QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker
from jobsched.runtime.outage import Outage
from jobsched.worker.attempt import ended_by, ending_of, verdict_of, without_capture
from jobsched.worker.journal import Journal
from jobsched.worker.seats import Seat, Seats
from jobsched.worker.show import Show
from jobsched.worker.strands import Bell, Strands

#: Outcomes that one statement records at most.
BATCH = 256

#: A smaller batch than this waits for company, since a commit costs the same for one outcome as for thirty: with more
#: than so many seats taken so many seconds.
_COMPANY = 32
_BUSY = 64
_GATHER = 0.005

#: With fewer taken, while most are free, until so many seconds after the recording before began: what comes alone is
#: recorded at once, and nobody lacks a seat meanwhile. At 500 calls a second this saves two commits in five.
_PACE = 0.015

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

#: Seconds until an outcome that Postgres refuses in every form is tried again. Its seat stays taken: were it given
#: up, the call would be sent again.
ASIDE = 10.0

log = get_logger()

#: The series of a state and an error code; to find it anew costs more than to count in it.
_attempts = cache(metrics.attempts.labels)


class _Outcome(NamedTuple):
    seat: Seat
    ending: Ending
    result: Result | None
    ended_at: float


class Recorder:
    """Commits outcomes, in a strand of the delivering thread and on a connection of its own."""

    def __init__(
        self,
        link: Link,
        broker: Broker,
        seats: Seats,
        show: Show,
        worker_name: str,
        on_retry: Callable[[float], None],
        strands: Strands,
    ) -> None:
        self._strands = strands
        self._link = link
        self._broker = broker
        self._seats = seats
        self._show = show
        self._worker_name = worker_name
        self._on_retry = on_retry
        self.journal = Journal(worker_name)
        self._outcomes: deque[_Outcome] = deque()
        self._aside: list[_Outcome] = []
        self._aside_until = 0.0
        self._something, self._stop = Bell(strands), Bell(strands)
        self._stopping = False
        self._last_began = float("-inf")
        self._unrecorded = Outage("recording_postponed")
        self._failed = Outage("recording_failed", level="error")
        self._strand = strands.add("record", self._run)
        self.succeeded = 0
        self.failed = 0

    def begin(self) -> None:
        """Start the strand."""
        self._strand.begin()

    @property
    def alive(self) -> bool:
        """Whether the strand runs."""
        return self._strand.alive

    def results(self, results: Sequence[Result], ended_at: float) -> None:
        """Calls ended, ``ended_at`` on the monotonic clock."""
        for result in results:
            seat = self._seats.get(result.call.execution_id)
            if seat is not None:
                self._outcomes.append(_Outcome(seat, ending_of(result), result, ended_at))
        self._something.ring()

    def uncallable(self, seat: Seat, reason: str) -> None:
        """The job of this seat cannot be called as it stands; no call was made."""
        ending = Ending(error_code="invalid_job", error_message=reason, sent=False)
        self._outcomes.append(_Outcome(seat, ending, None, clock.monotonic()))
        self._something.ring()

    def unsent(self, seat: Seat) -> None:
        """No call could be made for a reason that is not the job's; it goes back to its queue."""
        self._outcomes.append(
            _Outcome(seat, Ending(error_code="interrupted", sent=False), None, clock.monotonic())
        )
        self._something.ring()

    def end(self, timeout: float) -> None:
        """Stop. What is not recorded by then is left to recovery."""
        self._stopping = True
        self._stop.ring()
        self._something.ring()
        self._strand.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            self._something.wait(1.0)
            if self._aside and clock.monotonic() >= self._aside_until:
                self._outcomes.extend(self._aside)
                self._aside.clear()
            while self._outcomes and not self._stopping:
                pause = self._until_company()
                if pause > 0:
                    self._stop.wait(pause)
                self._last_began = clock.monotonic()
                batch = [self._outcomes.popleft() for _ in range(min(BATCH, len(self._outcomes)))]
                for owner in {outcome.seat.owner for outcome in batch}:
                    self._record_until_done(owner, [one for one in batch if one.seat.owner == owner])

    def _until_company(self) -> float:
        """Seconds that the next batch waits for others to share its commit."""
        taken = len(self._seats)
        if len(self._outcomes) >= _COMPANY:
            return 0.0
        if taken > _BUSY:
            return _GATHER
        if 2 * taken < self._seats.concurrency:
            return self._last_began + _PACE - clock.monotonic()
        return 0.0

    def _record_until_done(self, owner: UUID, batch: list[_Outcome]) -> None:
        pause = _FIRST_PAUSE
        again = False
        while not self._stopping:
            try:
                self._record(owner, batch, again)
                self._unrecorded.over()
                self._failed.over()
                return
            except DatabaseError as error:
                self._unrecorded.failed(outcomes=len(batch), error=str(error))
                metrics.recordings_postponed.inc()
            except Exception as error:
                self._failed.failed(outcomes=len(batch), exc_info=error)
            again = True
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _record(self, owner: UUID, batch: list[_Outcome], again: bool) -> None:
        now, wall = clock.monotonic(), clock.utc_now()
        ended, back = [], []
        for one in batch:
            verdict = verdict_of(one.seat.claimed, one.ending, wall)
            if verdict.state == "queued":
                back.append(one.seat.claimed.id)
            else:
                ended.append(ended_by(one.seat.claimed, verdict, one.result, max(0.0, now - one.ended_at)))
        if back:
            self._hand_back(owner, back)
        failpoint.passing("worker.answered")
        refused = self._finish(owner, ended, again) if ended else set()
        failpoint.passing("worker.recorded")
        if refused:
            self._aside += [one for one in batch if one.seat.claimed.id in refused]
            self._aside_until = clock.monotonic() + ASIDE
        self._seats.release([i for one in batch if (i := one.seat.claimed.id) not in refused])

    def _finish(self, owner: UUID, ended: list[Ended], again: bool) -> set[int]:
        """Record what has ended; the ids of what Postgres refuses even without the target's answer."""
        recorded: list[Recorded] = []
        refused: set[int] = set()

        def act(part: Sequence[Ended]) -> None:
            recorded.extend(claims.finish(self._link, owner, self._worker_name, part, again=again))

        def refuse(one: Ended, error: DatabaseRefused) -> None:
            log.error("outcome_unrecordable", execution_id=one.id, error=str(error))
            bare = without_capture(one)
            try:
                recorded.extend(claims.finish(self._link, owner, self._worker_name, [bare], again=again))
                ended[ended.index(one)] = bare
            except DatabaseRefused:
                refused.add(one.id)

        claims.in_halves(act, ended, refuse)
        self._after([one for one in ended if one.id not in refused] if refused else ended, recorded)
        return refused

    def _after(self, ended: list[Ended], recorded: list[Recorded]) -> None:
        """What follows a commit and may be lost without harm: counters, RQ's picture, waking a poller."""
        if len(recorded) < len(ended):
            found = {one.id for one in recorded}
            fenced = [one.id for one in ended if one.id not in found]
            log.warning("outcomes_fenced", execution_ids=fenced[:20], count=len(fenced))
            metrics.fenced.inc(len(fenced))
        states = Counter([one.state for one in recorded])
        _count(states, ended, recorded)
        self.journal.ended(ended, recorded, self._seats)
        self.succeeded += states["succeeded"]
        self.failed += states["failed"]
        queues = {}
        for one in ended:
            seat = self._seats.get(one.id)
            if seat is not None:
                queues[one.id] = seat.claimed.queue
        self._show.ended(queues, recorded)
        retries = [one.due_in for one in recorded if one.due_in is not None]
        if retries:
            self._on_retry(min(retries))

    def _hand_back(self, owner: UUID, ids: list[int]) -> None:
        returned = claims.hand_back(self._link, owner, ids)
        metrics.handed_back.inc(len(returned))
        try:
            self._strands.elsewhere(lambda: self._broker.push(returned))
        except QueueUnavailable as error:
            log.warning("push_failed", executions=len(returned), error=str(error))
            metrics.push_failures.inc()


def _count(states: Counter[str], ended: list[Ended], recorded: list[Recorded]) -> None:
    """Attempts that are recorded, by outcome, and how long the calls among them took."""
    if states.keys() == {"succeeded"}:
        _attempts("succeeded", "none").inc(len(recorded))
    else:
        codes = {one.id: one.error_code or "none" for one in ended}
        for outcome, count in Counter([(one.state, codes[one.id]) for one in recorded]).items():
            _attempts(*outcome).inc(count)
    metrics.attempt_duration.observe_all(
        [one.duration_ms / 1000 for one in ended if one.duration_ms is not None]
    )

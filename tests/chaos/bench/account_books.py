"""The three records, sorted so that each rule finds what it compares."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.chaos.bench.account_lives import Life, read_lives
from tests.chaos.bench.account_rows import DeadLetter, JobRow
from tests.chaos.bench.records import Arrival, Call, Stored, Strike
from tests.chaos.bench.slots import instant

#: Codes of attempts of which nobody knows whether the target has acted.
UNKNOWN_END = frozenset({"worker_lost", "poison", "interrupted", "worker_stopped"})

#: Codes of attempts that certainly never reached a target.
NEVER_SENT = frozenset({"connect_failed", "dns_failed", "tls_failed", "target_refused", "invalid_job"})

FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped"})

#: Seconds after a fault within which everything is to be as before: a killed worker's calls, everything else.
WORKER_RECOVERY, RECOVERY = 30.0, 15.0

#: Seconds after its due time within which an execution is to start while nothing is broken.
ON_TIME = 5.0


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt as Postgres has it. ``ended`` None: it has not ended."""

    number: int
    began: float
    ended: float | None
    status: int | None
    code: str | None
    worker: str | None


class Books:
    """Everything that is known, by what it belongs to. Jobs in ``poisoned`` are left out: nothing is promised."""

    def __init__(
        self,
        calls: Sequence[Call],
        stored: Iterable[Stored],
        arrivals: Iterable[Arrival],
        strikes: Iterable[Strike],
        dead_letters: Iterable[DeadLetter],
        jobs: Iterable[JobRow],
        poisoned: frozenset[int],
        ended: float,
    ) -> None:
        self.ended = ended
        self.calls = [call for call in calls if call.job not in poisoned]
        #: Those that had an effect. One that names a worker has hit it, whether or not that did any harm.
        self.strikes = sorted(
            (one for one in strikes if one.took_effect or one.worker is not None), key=lambda one: one.began
        )
        self.job_rows = [row for row in jobs if row.id not in poisoned]
        self.jobs = {row.id: row for row in self.job_rows}
        self.dead = {letter.id: letter for letter in dead_letters if letter.job_id not in poisoned}
        self.rows = [one for one in stored if one.job_id not in poisoned]
        self.stored = {one.id: one for one in self.rows}
        self.by_job: dict[int, list[Stored]] = defaultdict(list)
        for one in self.rows:
            self.by_job[one.job_id].append(one)
        self.arrivals = sorted((a for a in arrivals if a.job not in poisoned), key=lambda arrival: arrival.at)
        self.arrived: dict[int, list[Arrival]] = defaultdict(list)
        for arrival in self.arrivals:
            self.arrived[arrival.execution].append(arrival)
        self.tries = {one.id: tries_of(one) for one in self.rows}
        self.lives, self.unread = read_lives(self.calls, self.jobs)
        self._workers: dict[str, list[Strike]] = defaultdict(list)
        for strike in self.strikes:
            if strike.worker is not None:
                self._workers[strike.worker].append(strike)

    def life(self, execution: Stored) -> Life | None:
        """The life of an execution's job; None for a job that nobody asked for."""
        return self.lives.get(execution.job_id)

    def loss(self, attempt: Try) -> Strike | None:
        """The strike that explains why nobody knows how an attempt ended."""
        ended = attempt.ended if attempt.ended is not None else float("inf")
        for strike in self._workers.get(attempt.worker or "", ()):
            if strike.began <= ended + 0.5 and strike.ended >= attempt.began - 0.5:
                return strike
        return None

    def about(self, attempt: Try) -> Strike | None:
        """A strike that may have broken one call: on its worker, or on no worker in particular, at that time."""
        for strike in self.strikes:
            meets = (
                strike.began <= (attempt.ended or self.ended) + 0.5 and strike.ended >= attempt.began - 0.5
            )
            if meets and strike.worker in (None, attempt.worker):
                return strike
        return None

    def may_be_recorded_at(self, ended: float, moment: float) -> bool:
        """Whether what ended at ``ended`` may have been recorded as late as ``moment``: a strike held it up."""
        return moment <= ended or any(
            strike.began - 0.5 <= ended + 1.0 and ended <= strike.ended and moment <= strike.ended + 3.0
            for strike in self.strikes
        )

    def explained_delay(self, since: float, until: float) -> float:
        """How many seconds the strikes may have held something up that was due at ``since``."""
        lasted, recovery = 0.0, 0.0
        for strike in self.strikes:
            if strike.began > until:
                break
            after = RECOVERY if strike.worker is None else WORKER_RECOVERY
            if strike.ended + after >= since:
                lasted += max(0.0, min(strike.ended, until) - max(strike.began, since))
                recovery = max(recovery, after)
        return lasted + recovery

    def fired_up_to(self, moment: float, jitter: float) -> float:
        """Up to when slots must have been fired by ``moment``: before the delay that strikes may explain."""
        up_to = moment - ON_TIME - jitter
        for strike in reversed(self.strikes):
            after = RECOVERY if strike.worker is None else WORKER_RECOVERY
            if strike.began < moment and strike.ended + after >= up_to:
                up_to = min(up_to, strike.began - 1.0)
        return up_to


def tries_of(one: Stored) -> list[Try]:
    """The attempts of an execution, in the order in which Postgres has them."""
    return [
        Try(
            attempt["attempt"],
            _seconds(attempt.get("startedAt")) or 0.0,
            _seconds(attempt.get("finishedAt")),
            attempt.get("responseStatus"),
            attempt.get("errorCode"),
            attempt.get("worker"),
        )
        for attempt in one.attempts
    ]


def ended_in_attempt(one: Stored) -> bool:
    """Whether an attempt ended it; else it was over while it waited, or never began."""
    return one.state in FINAL and one.started_at is not None


def slot_of(one: Stored) -> int:
    """The slot of an execution in milliseconds."""
    return round(one.scheduled_for * 1000)


def cut_off_at(attempt: Try, strike: Strike) -> float:
    """When an attempt that a strike explains was over for its worker, as early as that may have been."""
    if attempt.code in ("interrupted", "worker_stopped") and attempt.ended is not None:
        return attempt.ended
    return max(strike.began, attempt.began)


def clock(moment: float) -> str:
    """A moment as findings show it: the time of day, UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S.%f")[:-3]


def _seconds(text: Any) -> float | None:
    return None if text is None else instant(text) / 1000

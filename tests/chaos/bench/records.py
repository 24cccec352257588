"""What the parts of the bench tell each other: plain values, written to a result file as JSON.

All times are seconds of this machine's wall clock (``time.time()``): the client, the target and Postgres' clock
agree, since the bench runs on one machine and never sets the clock of Postgres.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault as it happened.

    ``worker``: the name of the worker process that it hit (as attempts carry it), None where it hit none.
    ``took_effect``: something was there to be hurt, and was; ``effect`` says what, in a few words. ``in_flight``:
    (execution, attempt) of what that worker ran when it was hit, as far as Postgres could tell.
    """

    kind: str
    began: float
    ended: float
    took_effect: bool
    effect: str
    worker: str | None = None
    in_flight: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client to the API, with its repetitions.

    ``began`` is before the first try, ``ended`` after the last. ``status`` is None where no answer came: then
    the call may have been carried out, or not. ``answer`` is the JSON that came with a 2xx.
    """

    action: str
    began: float
    ended: float
    status: int | None
    job: int | None = None
    execution: int | None = None
    sent: dict[str, Any] = field(default_factory=dict)
    answer: Any = None

    @property
    def acknowledged(self) -> bool:
        """Whether the API said that it was done."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Arrival:
    """One callback as the target received it."""

    at: float
    execution: int
    attempt: int
    job: int
    webhook_id: str
    scheduled_for: str
    trigger: str
    path: str


@dataclass(frozen=True, slots=True)
class Stored:
    """One execution as Postgres has it, live or in the history; field names are the columns'.

    Instants are unix seconds. ``attempts`` as the API shows them, the last one included for what is over.
    """

    id: int
    job_id: int
    trigger: str
    state: str
    scheduled_for: float
    due_at: float | None
    started_at: float | None
    finished_at: float | None
    attempt: int
    retry_count: int
    worker: str | None
    error_code: str | None
    attempts: tuple[dict[str, Any], ...]
    skipped_count: int | None
    redrive_of: int | None


@dataclass(frozen=True, slots=True)
class Leaks:
    """What was left when all was over: counts, each with how many there may be."""

    found: dict[str, int]
    allowed: dict[str, int]


@dataclass(slots=True)
class Verdict:
    """What the accountant found. Each list holds readable sentences, empty where all is well."""

    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    wrong_state: list[str] = field(default_factory=list)
    out_of_time: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    #: Counts and durations for the report: executions, arrivals, explained duplicates, start delays …
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (
            self.lost or self.duplicates or self.wrong_state or self.out_of_time or self.stuck or self.leaked
        )

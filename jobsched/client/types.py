"""The shapes of requests and answers, for editors and type checkers. At run time all are plain dicts.

Every field of an answer is always there; what is not known is None. A test holds these shapes and the models
of the server's answers together.
"""

from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar

State = Literal[
    "pending", "queued", "running", "retrying", "blocked", "succeeded", "failed", "cancelled", "skipped"
]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Trigger = Literal["schedule", "manual", "redrive"]
ErrorCode = Literal[
    "http_status",
    "timeout",
    "connect_failed",
    "dns_failed",
    "tls_failed",
    "protocol_error",
    "response_too_large",
    "target_refused",
    "worker_lost",
    "worker_stopped",
    "interrupted",
    "cancelled",
    "misfire",
    "overlap",
    "backlog",
    "poison",
    "unrecordable",
    "invalid_job",
]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "skipped"})

Item = TypeVar("Item")


class UnkeyedJobFields(TypedDict, total=False):
    """The fields of a job that a caller may give beside its key, by their Python names."""

    name: str | None
    description: str | None
    schedule: str
    timezone: str | None
    is_recurring: bool | None
    is_active: bool | None
    api: str
    method: Method | None
    headers: dict[str, str] | None
    secret_headers: list[str] | None
    payload: Any
    type: Literal["AT_LEAST_ONCE", "AT_MOST_ONCE"] | None
    max_retry_count: int | None
    min_backoff_seconds: float | None
    max_backoff_seconds: float | None
    backoff_factor: float | None
    backoff_jitter: float | None
    timeout_seconds: float | None
    success_status: list[str] | None
    no_retry_status: list[str] | None
    follow_redirects: bool | None
    misfire_policy: Literal["fire_once", "fire_all", "skip"] | None
    misfire_grace_seconds: float | None
    overlap_policy: Literal["allow", "skip", "queue"] | None
    priority: int | None
    pool: str | None
    tags: list[str] | None
    start_at: str | datetime | None
    end_at: str | datetime | None
    max_runs: int | None
    jitter_seconds: float | None


class JobFields(UnkeyedJobFields, total=False):
    """The fields of a job that a caller may give, by their Python names. docs/api.md explains each."""

    key: str | None


class Page(TypedDict, Generic[Item]):
    """One page of a list, newest first; ``nextCursor`` is None on the last."""

    items: list[Item]
    nextCursor: str | None


class Job(TypedDict):
    """A job as the API answers it. Values of secret headers are ``"***"``."""

    id: int
    key: str | None
    name: str | None
    description: str | None
    schedule: str
    timezone: str
    isRecurring: bool
    isActive: bool
    api: str
    method: Method
    headers: dict[str, str]
    secretHeaders: list[str]
    payload: Any
    type: Literal["AT_LEAST_ONCE", "AT_MOST_ONCE"]
    maxRetryCount: int
    minBackoffSeconds: float
    maxBackoffSeconds: float
    backoffFactor: float
    backoffJitter: float
    timeoutSeconds: float
    successStatus: list[str]
    noRetryStatus: list[str]
    followRedirects: bool
    misfirePolicy: Literal["fire_once", "fire_all", "skip"]
    misfireGraceSeconds: float
    overlapPolicy: Literal["allow", "skip", "queue"]
    priority: int
    pool: str
    tags: list[str]
    startAt: str | None
    endAt: str | None
    maxRuns: int | None
    jitterSeconds: float
    nextExecutionTime: str | None
    lastExecutionTime: str | None
    lastState: State | None
    createdAt: str
    updatedAt: str
    version: int


class ItemFault(TypedDict):
    """One thing wrong with an item of a bulk: where in the item (RFC 6901), and what."""

    pointer: str
    message: str


class ItemErrors(TypedDict):
    """All that is wrong with one item of a bulk; ``index`` counts from 0 in the order given."""

    index: int
    errors: list[ItemFault]


class BulkResult(TypedDict):
    """What a bulk did: how many jobs it created, their ids in the order given, and what was refused."""

    created: int
    ids: list[int]
    errors: list[ItemErrors]


class UpcomingRun(TypedDict):
    """One run to come; ``local`` is ``scheduledFor`` on the clock of the zone, ``dueAt`` includes jitter."""

    scheduledFor: str
    dueAt: str
    local: str
    remark: str | None


class Upcoming(TypedDict):
    """The next runs, soonest first, and the schedule in words."""

    items: list[UpcomingRun]
    description: str


class Phases(TypedDict):
    """How long each part of a call took, in milliseconds; ``totalMs`` is the whole call."""

    dnsMs: float | None
    connectMs: float | None
    tlsMs: float | None
    firstByteMs: float | None
    totalMs: float | None


class Attempt(TypedDict):
    """One HTTP call of an execution."""

    attempt: int
    startedAt: str | None
    finishedAt: str | None
    responseStatus: int | None
    errorCode: ErrorCode | None
    errorMessage: str | None
    phases: Phases | None
    worker: str | None


class Execution(TypedDict):
    """One run of a job as the API answers it."""

    id: int
    jobId: int
    trigger: Trigger
    state: State
    scheduledFor: str
    dueAt: str | None
    queuedAt: str | None
    startedAt: str | None
    finishedAt: str | None
    executionDurationMs: float | None
    attempt: int
    retryCount: int
    maxRetryCount: int
    worker: str | None
    responseStatus: int | None
    responseHeaders: dict[str, str] | None
    responseBody: str | None
    responseBodyEncoding: Literal["utf-8", "base64"] | None
    responseTruncated: bool
    errorCode: ErrorCode | None
    errorMessage: str | None
    jobVersion: int | None
    phases: Phases | None
    attempts: list[Attempt]
    skippedCount: int | None
    redriveOf: int | None


class DeadLetter(TypedDict):
    """An execution that failed for good; ``id`` is the execution's, ``payload`` what was sent."""

    id: int
    jobId: int
    trigger: Trigger
    scheduledFor: str
    failedAt: str
    attempt: int
    retryCount: int
    responseStatus: int | None
    errorCode: ErrorCode | None
    errorMessage: str | None
    payload: Any
    lastAttempt: Attempt | None
    queue: str


class Selector(TypedDict, total=False):
    """Which dead letters are meant, by what they have in common. ``{"all": True}`` says all."""

    job_id: int
    error_code: str
    from_: str | datetime
    to: str | datetime
    all: bool


class Redrive(TypedDict):
    """A redrive that was accepted: its id, and how many dead letters became executions."""

    id: int
    matched: int


class RedriveProgress(TypedDict):
    """How far a redrive is: ``done`` executions are over, ``failed`` of them did not succeed."""

    id: int
    matched: int
    done: int
    failed: int
    state: Literal["running", "finished"]


class Discarded(TypedDict):
    """How many dead letters a discard threw away."""

    discarded: int


class SigningSecret(TypedDict):
    """A secret with which callbacks are signed; ``expiresAt`` is None for the newest."""

    id: int
    secret: str
    createdAt: str
    expiresAt: str | None


class SigningSecretList(TypedDict):
    """The secrets that are valid now, newest first."""

    items: list[SigningSecret]


class QueueFigures(TypedDict):
    """Sums. The first five are RQ's picture, None while Redis is away; the rest is Postgres' truth."""

    ready: int | None
    processing: int | None
    retry: int | None
    completed: int | None
    failed: int | None
    queued: int
    running: int
    pending: int
    retrying: int
    dead: int
    oldestWaitSeconds: float


class Queue(QueueFigures):
    """One queue: a pool's ``high``, normal or ``low`` one."""

    name: str
    pool: str


class Worker(TypedDict):
    """A live worker process."""

    name: str
    host: str
    pid: int
    pools: list[str]
    concurrency: int
    inFlight: int
    startedAt: str
    heartbeatAt: str


class Stats(TypedDict):
    """Queues, workers, and how late the pollers are; None: no poller has said yet."""

    queues: list[Queue]
    totals: QueueFigures
    workers: list[Worker]
    pollerLagSeconds: float | None


class Checks(TypedDict):
    """``ok``, or what is wrong."""

    database: str
    schema: str
    redis: str
    poller: str


class Readiness(TypedDict):
    """The server's own checks; ``degraded`` serves requests all the same."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: Checks


class Health(TypedDict):
    """The process is alive."""

    status: Literal["ok"]

"""The shapes of requests and answers, for editors and type checkers. At run time all are plain dicts."""

from datetime import datetime
from typing import Any, Literal, TypedDict

State = Literal[
    "pending", "queued", "running", "retrying", "blocked", "succeeded", "failed", "cancelled", "skipped"
]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "skipped"})


class JobFields(TypedDict, total=False):
    """The fields of a job that a caller may give, by their Python names. docs/api.md explains each."""

    key: str | None
    name: str | None
    description: str | None
    schedule: str
    timezone: str | None
    is_recurring: bool | None
    is_active: bool | None
    api: str
    method: str | None
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
    misfire_grace_seconds: int | None
    overlap_policy: Literal["allow", "skip", "queue"] | None
    priority: int | None
    pool: str | None
    tags: list[str] | None
    start_at: str | datetime | None
    end_at: str | datetime | None
    max_runs: int | None
    jitter_seconds: int | None


class Job(TypedDict, total=False):
    """A job as the API answers it."""

    id: int
    key: str | None
    name: str | None
    description: str | None
    schedule: str
    timezone: str
    isRecurring: bool
    isActive: bool
    api: str
    method: str
    headers: dict[str, str]
    secretHeaders: list[str]
    payload: Any
    type: str
    maxRetryCount: int
    minBackoffSeconds: float
    maxBackoffSeconds: float
    backoffFactor: float
    backoffJitter: float
    timeoutSeconds: float
    successStatus: list[str]
    noRetryStatus: list[str]
    followRedirects: bool
    misfirePolicy: str
    misfireGraceSeconds: int
    overlapPolicy: str
    priority: int
    pool: str
    tags: list[str]
    startAt: str | None
    endAt: str | None
    maxRuns: int | None
    jitterSeconds: int
    nextExecutionTime: str | None
    lastExecutionTime: str | None
    lastState: State | None
    createdAt: str
    updatedAt: str
    version: int


class Phases(TypedDict, total=False):
    """How long each part of a call took, in milliseconds; ``totalMs`` is the whole call."""

    dnsMs: float | None
    connectMs: float | None
    tlsMs: float | None
    firstByteMs: float | None
    totalMs: float | None


class Attempt(TypedDict, total=False):
    """One HTTP call of an execution."""

    attempt: int
    startedAt: str | None
    finishedAt: str | None
    responseStatus: int | None
    errorCode: str | None
    errorMessage: str | None
    phases: Phases | None
    worker: str | None


class Execution(TypedDict, total=False):
    """One run of a job as the API answers it."""

    id: int
    jobId: int
    trigger: Literal["schedule", "manual", "redrive"]
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
    errorCode: str | None
    errorMessage: str | None
    jobVersion: int
    phases: Phases | None
    attempts: list[Attempt]
    skippedCount: int | None
    redriveOf: int | None


class Selector(TypedDict, total=False):
    """Which dead letters are meant, by what they have in common. ``{"all": True}`` says all."""

    job_id: int
    error_code: str
    from_: str | datetime
    to: str | datetime
    all: bool

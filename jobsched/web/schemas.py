"""The shapes of answers, for the OpenAPI document only. Those of requests are jobsched.domain's own models.

Answers are built by jobsched.web.serialize; a test holds the two together.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobsched.domain.spec_fields import JobCreate
from jobsched.domain.states import State, Trigger


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Job(JobCreate):
    """A job as it stands. Values of secret headers are shown as `***`."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: int = Field(description="Given by the server.")
    nextExecutionTime: datetime | None = Field(description="When it runs next, jitter included.")
    lastExecutionTime: datetime | None = Field(
        description="When the last attempt of the newest finished execution started; if no call of it was in "
        "flight at its end, when it ended."
    )
    lastState: State | None = Field(description="How that execution ended.")
    createdAt: datetime
    updatedAt: datetime
    version: int = Field(description="Counts edits; also the ETag.")


class Phases(_Model):
    """Durations within a call, in milliseconds; `totalMs` is the whole call."""

    dnsMs: float | None
    connectMs: float | None
    tlsMs: float | None
    firstByteMs: float | None
    totalMs: float | None


class Attempt(_Model):
    """One HTTP call."""

    attempt: int
    startedAt: datetime | None
    finishedAt: datetime | None
    responseStatus: int | None
    errorCode: str | None
    errorMessage: str | None
    phases: Phases | None
    worker: str | None


class Execution(_Model):
    """One run of a job."""

    id: int
    jobId: int
    trigger: Trigger
    state: State
    scheduledFor: datetime = Field(description="The nominal time, without jitter.")
    dueAt: datetime | None = Field(description="When it is or was to run, jitter included.")
    queuedAt: datetime | None
    startedAt: datetime | None
    finishedAt: datetime | None
    executionDurationMs: float | None
    attempt: int = Field(description="The newest attempt's number, from 1; 0 before the first.")
    retryCount: int = Field(description="Failed attempts that spend `maxRetryCount`.")
    maxRetryCount: int
    worker: str | None
    responseStatus: int | None
    responseHeaders: dict[str, Any] | list[Any] | None
    responseBody: str | None = Field(description="The first bytes of the answer's body.")
    responseBodyEncoding: Literal["utf-8", "base64"] | None
    responseTruncated: bool
    errorCode: str | None = Field(description="docs/errors.md explains each.")
    errorMessage: str | None
    jobVersion: int | None
    phases: Phases | None
    attempts: list[Attempt]
    skippedCount: int | None = Field(description="Of a skipped execution: how many slots it stands for.")
    redriveOf: int | None = Field(description="The execution that this one repeats.")


class DeadLetter(_Model):
    """An execution that failed for good; `id` is the execution's."""

    id: int
    jobId: int
    trigger: Trigger
    scheduledFor: datetime
    failedAt: datetime
    attempt: int
    retryCount: int
    responseStatus: int | None
    errorCode: str | None
    errorMessage: str | None
    payload: Any = Field(description="What was sent.")
    lastAttempt: Attempt | None
    queue: str


class JobPage(_Model):
    """One page of jobs, newest first."""

    items: list[Job]
    nextCursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class ExecutionPage(_Model):
    """One page of executions, newest first."""

    items: list[Execution]
    nextCursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class DeadLetterPage(_Model):
    """One page of dead letters, newest first."""

    items: list[DeadLetter]
    nextCursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class Redrive(_Model):
    """A redrive that was accepted."""

    id: int
    matched: int = Field(description="Dead letters that became executions.")


class RedriveProgress(_Model):
    """How far a redrive is."""

    id: int
    matched: int
    done: int = Field(description="Executions that are over.")
    failed: int = Field(description="Of these, the ones that did not succeed.")
    state: Literal["running", "finished"]


class Discarded(_Model):
    """What a discard did."""

    discarded: int


class SigningSecretItem(_Model):
    """A secret that callbacks are signed with."""

    id: int
    secret: str = Field(description="`whsec_` and Base64 of the key of HMAC-SHA256.")
    createdAt: datetime
    expiresAt: datetime | None = Field(description="null: the current one.")


class SigningSecretList(_Model):
    """The secrets that are valid now, newest first."""

    items: list[SigningSecretItem]


class QueueFigures(_Model):
    """Sums. The first five are RQ's picture, null while Redis is away; the rest is Postgres' truth."""

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
    oldestWaitSeconds: float = Field(description="The longest wait of what is due and has not started.")


class Queue(QueueFigures):
    """One queue: a pool's `high`, normal or `low` one."""

    name: str
    pool: str


class Worker(_Model):
    """A live worker process."""

    name: str
    host: str
    pid: int
    pools: list[str]
    concurrency: int
    inFlight: int
    startedAt: datetime
    heartbeatAt: datetime


class QueueStats(_Model):
    """Queues, workers and how late the pollers are."""

    queues: list[Queue]
    totals: QueueFigures
    workers: list[Worker]
    pollerLagSeconds: float | None = Field(description="null: no poller has said yet.")


class Checks(_Model):
    """`ok`, or what is wrong."""

    database: str
    schema_: str = Field(alias="schema")
    redis: str
    poller: str


class Readiness(_Model):
    """`degraded` answers 200: requests are served. `unavailable` answers 503."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: Checks


class Health(_Model):
    """The process is alive."""

    status: Literal["ok"]


class ProblemFault(_Model):
    """One thing wrong: in the body (`pointer`, RFC 6901), or in the query string or a header (`parameter`)."""

    pointer: str | None = None
    parameter: str | None = None
    message: str


class Problem(_Model):
    """An error (RFC 9457)."""

    type: str = Field(description="`urn:jobsched:error:<code>`; stable.")
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] | None = Field(None, description="Every fault found.")
    requestId: str = Field(description="Also the header X-Request-Id, and in the server's log.")

"""The shapes of answers, for the OpenAPI document only. Those of requests are jobsched.domain's own models.

Answers are built by jobsched.web.serialize; a test holds the two together.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from jobsched.domain.outcome import ErrorCode
from jobsched.domain.requests import Id
from jobsched.domain.spec_fields import JobCreate
from jobsched.domain.states import State, Trigger


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0)]
HttpStatus = Annotated[int, Field(ge=100, le=999)]


class Job(JobCreate):
    """A job as it stands. Values of secret headers are shown as `***`."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    is_recurring: bool = Field(description="Whether it goes on after its first slot.")
    id: Id = Field(description="Given by the server.")
    nextExecutionTime: datetime | None = Field(description="When it runs next, jitter included.")
    lastExecutionTime: datetime | None = Field(
        description="When the last attempt of the newest finished execution started; if no call of it was in "
        "flight at its end, when it ended."
    )
    lastState: State | None = Field(description="How that execution ended.")
    createdAt: datetime = Field(description="When it was created.")
    updatedAt: datetime = Field(description="When it was last edited, paused or resumed.")
    version: Count = Field(description="Counts edits; also the ETag.")


class Phases(_Model):
    """Durations within a call, in milliseconds; `totalMs` is the whole call."""

    dnsMs: Milliseconds | None = Field(description="Looking the host's name up.")
    connectMs: Milliseconds | None = Field(description="Opening the connection.")
    tlsMs: Milliseconds | None = Field(description="The TLS handshake.")
    firstByteMs: Milliseconds | None = Field(description="From the request to the first byte of the answer.")
    totalMs: Milliseconds | None = Field(description="The whole call.")


class Attempt(_Model):
    """One HTTP call."""

    attempt: int = Field(ge=1, description="Its number, from 1.")
    startedAt: datetime | None = Field(description="When the call began.")
    finishedAt: datetime | None = Field(description="When its outcome was known.")
    responseStatus: HttpStatus | None = Field(description="The target's status; null without a whole answer.")
    errorCode: ErrorCode | None = Field(description="Why it failed; docs/errors.md explains each.")
    errorMessage: str | None = Field(description="The same for people.")
    phases: Phases | None = Field(description="Where its time went.")
    worker: str | None = Field(description="The worker that made it.")


class Execution(_Model):
    """One run of a job."""

    id: Id = Field(description="Given by the server; the call's header `Jobsched-Execution-Id`.")
    jobId: Id = Field(description="The job that it is a run of.")
    trigger: Trigger = Field(description="What started it.")
    state: State = Field(description="Where it is; docs/states.md draws the moves.")
    scheduledFor: datetime = Field(description="The nominal time, without jitter.")
    dueAt: datetime | None = Field(description="When it is or was to run, jitter included.")
    queuedAt: datetime | None = Field(description="When it was last handed to a queue.")
    startedAt: datetime | None = Field(description="When the newest attempt began.")
    finishedAt: datetime | None = Field(description="When it was over; null while it lives.")
    executionDurationMs: Milliseconds | None = Field(description="How long the last call took.")
    attempt: Count = Field(description="The newest attempt's number, from 1; 0 before the first.")
    retryCount: Count = Field(description="Failed attempts that spend `maxRetryCount`.")
    maxRetryCount: Count = Field(description="How many failed attempts are followed by another.")
    worker: str | None = Field(description="The worker of the newest attempt.")
    responseStatus: HttpStatus | None = Field(description="The target's status; null without a whole answer.")
    responseHeaders: dict[str, str] | None = Field(
        description="The headers of the answer; values of a name that came twice are joined by a comma."
    )
    responseBody: str | None = Field(description="The first bytes of the answer's body.")
    responseBodyEncoding: Literal["utf-8", "base64"] | None = Field(
        description="How `responseBody` is to be read: as text where the bytes were UTF-8."
    )
    responseTruncated: bool = Field(description="Whether the answer's body was longer than what was kept.")
    errorCode: ErrorCode | None = Field(
        description="Why it failed or was skipped; docs/errors.md explains each."
    )
    errorMessage: str | None = Field(description="The same for people.")
    jobVersion: Count | None = Field(description="The job's `version` that the newest attempt was made from.")
    phases: Phases | None = Field(description="Where the time of the last call went.")
    attempts: list[Attempt] = Field(description="All calls that were made, oldest first.")
    skippedCount: Count | None = Field(description="Of a skipped execution: how many slots it stands for.")
    redriveOf: Id | None = Field(description="The execution that this one repeats.")


class DeadLetter(_Model):
    """An execution that failed for good; `id` is the execution's."""

    id: Id = Field(description="The execution's id.")
    jobId: Id = Field(description="The job that it was a run of; it may be deleted by now.")
    trigger: Trigger = Field(description="What started it.")
    scheduledFor: datetime = Field(description="The nominal time, without jitter.")
    failedAt: datetime = Field(description="When it failed for good.")
    attempt: Count = Field(description="How many calls were made.")
    retryCount: Count = Field(description="How many of them spent `maxRetryCount`.")
    responseStatus: HttpStatus | None = Field(
        description="The last answer's status; null without a whole answer."
    )
    errorCode: ErrorCode | None = Field(
        description="How the last attempt ended; docs/errors.md explains each."
    )
    errorMessage: str | None = Field(description="The same for people.")
    payload: Any = Field(description="What was sent.")
    lastAttempt: Attempt | None = Field(description="The last call; null where none was made.")
    queue: str = Field(description="The queue that it ran in.")


class JobPage(_Model):
    """One page of jobs, newest first."""

    items: list[Job] = Field(max_length=500, description="At most `limit` jobs.")
    nextCursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class ExecutionPage(_Model):
    """One page of executions, newest first."""

    items: list[Execution] = Field(max_length=500, description="At most `limit` executions.")
    nextCursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class DeadLetterPage(_Model):
    """One page of dead letters, newest first."""

    items: list[DeadLetter] = Field(max_length=500, description="At most `limit` dead letters.")
    nextCursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class Redrive(_Model):
    """A redrive that was accepted."""

    id: Id = Field(description="For its progress.")
    matched: Count = Field(description="Dead letters that became executions.")


class RedriveProgress(_Model):
    """How far a redrive is."""

    id: Id = Field(description="The redrive's.")
    matched: Count = Field(description="Dead letters that became executions.")
    done: Count = Field(description="Executions that are over.")
    failed: Count = Field(description="Of these, the ones that did not succeed.")
    state: Literal["running", "finished"] = Field(description="Whether all of them are over.")


class Discarded(_Model):
    """What a discard did."""

    discarded: Count = Field(description="Dead letters that were deleted.")


class SigningSecretItem(_Model):
    """A secret that callbacks are signed with."""

    id: Id = Field(description="Given by the server.")
    secret: str = Field(description="`whsec_` and Base64 of the key of HMAC-SHA256.")
    createdAt: datetime = Field(description="When it was made.")
    expiresAt: datetime | None = Field(description="null: the current one.")


class SigningSecretList(_Model):
    """The secrets that are valid now, newest first."""

    items: list[SigningSecretItem] = Field(description="Those that are valid.")


class QueueFigures(_Model):
    """Sums. The first five are RQ's picture, null while Redis is away; the rest is Postgres' truth."""

    ready: Count | None = Field(description="RQ: ids that wait for a worker.")
    processing: Count | None = Field(description="RQ: started.")
    retry: Count | None = Field(description="RQ: scheduled for a retry.")
    completed: Count | None = Field(description="RQ: finished lately.")
    failed: Count | None = Field(description="RQ: failed lately.")
    queued: Count = Field(description="Executions handed to the queue.")
    running: Count = Field(description="Executions whose call is in flight.")
    pending: Count = Field(description="Executions that wait for their time or for room in the queue.")
    retrying: Count = Field(description="Executions that wait for their next attempt.")
    dead: Count = Field(description="Dead letters.")
    oldestWaitSeconds: float = Field(ge=0, description="The longest wait of what is due and has not started.")


class Queue(QueueFigures):
    """One queue: a pool's `high`, normal or `low` one."""

    name: str = Field(description="The queue's name, as RQ knows it.")
    pool: str = Field(description="The pool whose workers serve it.")


class Worker(_Model):
    """A live worker process."""

    name: str = Field(description="Its name, as executions show it.")
    host: str = Field(description="The machine it runs on.")
    pid: int = Field(description="Its process id there.")
    pools: list[str] = Field(description="The pools that it serves.")
    concurrency: Count = Field(description="How many calls it makes at once.")
    inFlight: Count = Field(description="How many it makes at the moment.")
    startedAt: datetime = Field(description="When it started.")
    heartbeatAt: datetime = Field(description="When it last said that it lives.")


class QueueStats(_Model):
    """Queues, workers and how late the pollers are."""

    queues: list[Queue] = Field(description="Every pool's queue, and its high and low ones when in use.")
    totals: QueueFigures = Field(description="The sums over all queues; of the waits, the longest.")
    workers: list[Worker] = Field(description="The living workers.")
    pollerLagSeconds: float | None = Field(
        description="How late the pollers fire what is due; null: none has said yet."
    )


class Checks(_Model):
    """`ok`, or what is wrong."""

    database: str = Field(description="Whether Postgres answers.")
    schema_: str = Field(alias="schema", description="Whether its schema is that of this version.")
    redis: str = Field(description="Whether Redis answers.")
    poller: str = Field(description="Whether a poller is alive.")


class Readiness(_Model):
    """`degraded` answers 200: requests are served. `unavailable` answers 503."""

    status: Literal["ok", "degraded", "unavailable"] = Field(description="What the checks come to.")
    checks: Checks = Field(description="Each of them.")


class Health(_Model):
    """The process is alive."""

    status: Literal["ok"] = Field(description="Nothing else is answered.")


class BodyFault(_Model):
    """One thing wrong in the body."""

    pointer: str = Field(
        pattern=r"^(/([^~/]|~[01])*)*$",
        description="The place (RFC 6901); empty for the body as a whole.",
    )
    message: str = Field(description="What is wrong with it.")


class ParameterFault(_Model):
    """One thing wrong in the query string or a header."""

    parameter: str = Field(description="The parameter's or the header's name.")
    message: str = Field(description="What is wrong with it.")


def _left_out(schema: JsonDict) -> None:
    schema.pop("default", None)


class Problem(_Model):
    """An error (RFC 9457)."""

    type: str = Field(
        pattern="^urn:jobsched:error:[a-z_]+$", description="`urn:jobsched:error:<code>`; stable."
    )
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599, description="The answer's status.")
    detail: str = Field(description="What happened, in a sentence; may change.")
    errors: list[BodyFault | ParameterFault] = Field(
        default=[],
        min_length=1,
        max_length=100,
        json_schema_extra=_left_out,
        description="Every fault found; left out where there is none to name.",
    )
    requestId: str = Field(description="Also the header X-Request-Id, and in the server's log.")

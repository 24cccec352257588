"""The shapes of bodies, for the OpenAPI document only.

Requests are not checked with these: jobsched.domain.spec names every fault with its JSON pointer, keeps
masked secrets and knows schedules, which a schema cannot. A test holds the two together.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobsched.domain.states import State, Trigger


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobDefinition(_Model):
    """What a caller says about a job. Only `schedule` and `api` are required."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "schedule": "*/5 9-17 * * MON-FRI",
                "timezone": "Europe/Berlin",
                "api": "https://example.com/hook",
                "payload": {"report": "daily"},
            }
        },
    )

    schedule: str = Field(
        description="Cron with 5 fields, or 6 with seconds first; `@hourly` and its like; `@every 90s`; an "
        "RFC 3339 instant; `@in 10m`."
    )
    api: str = Field(max_length=2048, description="The http or https URL that is called.")
    key: str | None = Field(
        None, max_length=200, description="Your own key for the job, unique in the project."
    )
    name: str | None = Field(None, max_length=200, description="For people.")
    description: str | None = Field(None, max_length=2000, description="For people.")
    timezone: str = Field("UTC", description="The IANA time zone in which `schedule` is read.")
    isRecurring: bool | None = Field(
        None, description="False: run once, at the next match. Default: true for cron and intervals."
    )
    isActive: bool = Field(True, description="False: paused; no new runs.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "POST", description="The method of the call. GET and HEAD take no payload."
    )
    headers: dict[str, str] = Field({}, description="Headers of the call; at most 50, 8 KiB together.")
    secretHeaders: list[str] = Field(
        [],
        description="Names of headers whose values are shown as `***` (Authorization, Proxy-Authorization, "
        "Cookie and X-Api-Key always are). `***` sent back keeps the stored value.",
    )
    payload: Any = Field(None, description="The body of the call, any JSON up to 256 KiB; null: no body.")
    type: Literal["AT_LEAST_ONCE", "AT_MOST_ONCE"] = Field(
        "AT_LEAST_ONCE", description="AT_MOST_ONCE: a call whose end is unknown is never repeated."
    )
    maxRetryCount: int = Field(3, ge=0, le=100, description="Retries after failed attempts.")
    minBackoffSeconds: float = Field(1, ge=0, le=86_400, description="Delay before the first retry.")
    maxBackoffSeconds: float = Field(3600, ge=0, le=604_800, description="The longest delay.")
    backoffFactor: float = Field(2, ge=1, le=10, description="By what the delay grows.")
    backoffJitter: float = Field(0.1, ge=0, le=1, description="Share by which a delay is spread.")
    timeoutSeconds: float = Field(30, ge=0.1, le=1800, description="Bound of the whole call.")
    successStatus: list[str] = Field(["200-299"], description="Statuses and ranges that mean success.")
    noRetryStatus: list[str] = Field([], description="Statuses and ranges that fail at once.")
    followRedirects: bool = Field(False, description="Follow up to 5 redirects.")
    misfirePolicy: Literal["fire_once", "fire_all", "skip"] = Field(
        "fire_once", description="What happens to slots that were missed."
    )
    misfireGraceSeconds: float = Field(60, ge=0, le=604_800, description="How late a slot may run.")
    overlapPolicy: Literal["allow", "skip", "queue"] = Field(
        "allow", description="What happens when the run before is not over."
    )
    priority: int = Field(5, ge=0, le=10, description="Higher goes first.")
    pool: str = Field("default", pattern=r"^[a-z0-9_-]{1,50}$", description="The workers that run it.")
    tags: list[str] = Field([], max_length=50, description="Labels of at most 50 characters.")
    startAt: datetime | None = Field(None, description="No slot before this instant.")
    endAt: datetime | None = Field(None, description="No slot after this instant.")
    maxRuns: int | None = Field(None, ge=1, le=1_000_000_000, description="Slots that are run, at most.")
    jitterSeconds: float = Field(
        0, ge=0, le=86_400, description="Spreads runs, by job and slot; never early."
    )


class Job(JobDefinition):
    """A job as it stands."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={})

    id: int = Field(description="Given by the server.")
    nextExecutionTime: datetime | None = Field(description="When it runs next, jitter included.")
    lastExecutionTime: datetime | None = Field(description="When the newest finished execution ended.")
    lastState: State | None = Field(description="How the newest finished execution ended.")
    createdAt: datetime
    updatedAt: datetime
    version: int = Field(description="Counts edits; also the ETag.")


class JobPatch(BaseModel):
    """A JSON merge patch (RFC 7396) of a job: any of its fields, null for the default. `payload` and
    `headers` are replaced whole."""

    model_config = ConfigDict(json_schema_extra={"example": {"schedule": "@every 1h"}})


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


class RunRequest(_Model):
    """May be left out."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"payload": {"report": "again"}}})

    payload: Any = Field(None, description="Sent in place of the job's payload.")


class DeadLetterFilter(_Model):
    """All given parts must hold. `{"all": true}` means every dead letter."""

    jobId: int | None = None
    errorCode: str | None = None
    from_: datetime | None = Field(None, alias="from", description="`scheduledFor` at or after.")
    to: datetime | None = Field(None, description="`scheduledFor` before.")
    all: bool = False


class Selector(_Model):
    """Which dead letters: `ids` or `filter`, one of the two."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"ids": [17, 18]}})

    ids: list[int] | None = None
    filter: DeadLetterFilter | None = None


class RedriveRequest(Selector):
    """Which dead letters are sent again, and how."""

    ratePerSecond: float | None = Field(None, description="At most so many a second; null: at once.")
    payload: Any = Field(None, description="Sent in place of the stored payload; for a single id only.")


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
    """One thing wrong: in the body (`pointer`, RFC 6901) or in the query string (`parameter`)."""

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

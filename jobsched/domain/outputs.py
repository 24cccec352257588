"""What answers look like, for the API's description.

Answers are written from records without going through these models; a test of the API holds the two together.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from jobsched.domain.spec_fields import JobCreate
from jobsched.domain.states import State, Trigger

_INSTANT: JsonDict = {"format": "date-time"}
FinalState = Literal["succeeded", "failed", "cancelled", "skipped"]


class Output(BaseModel):
    """Base of what answers carry."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


def _instant(description: str) -> Any:
    return Field(description=description + " RFC 3339, UTC.", json_schema_extra=_INSTANT)


class JobOut(JobCreate):
    """A job as it stands."""

    id: int = Field(description="The job's id.")
    is_recurring: bool = Field(description="Whether the job goes on after its first slot.")
    next_execution_time: str | None = _instant(
        "When the job is next due, jitter included; null: not any more."
    )
    last_execution_time: str | None = _instant("When the execution that finished last was started.")
    last_state: FinalState | None = Field(description="How that execution ended.")
    created_at: str = _instant("When the job was made.")
    updated_at: str = _instant("When it was last edited.")
    version: int = Field(description="Counts edits; the ETag.")


class PhasesOut(Output):
    """How long the parts of a call took. Each is a duration of its own; total is the whole call."""

    dns_ms: float | None = Field(description="Milliseconds of the name lookup.")
    connect_ms: float | None = Field(description="Milliseconds of the TCP handshake.")
    tls_ms: float | None = Field(description="Milliseconds of the TLS handshake.")
    first_byte_ms: float | None = Field(description="Milliseconds from the request to the first byte back.")
    total_ms: float | None = Field(description="Milliseconds of the whole call.")


class AttemptOut(Output):
    """One HTTP call of an execution."""

    attempt: int = Field(description="Its number, from 1.")
    started_at: str | None = _instant("When the call began.")
    finished_at: str | None = _instant("When it ended.")
    response_status: int | None = Field(description="The answer's status.")
    error_code: str | None = Field(description="What went wrong; see docs/errors.md.")
    error_message: str | None = Field(description="The same in words.")
    phases: PhasesOut | None = Field(description="How long its parts took.")
    worker: str | None = Field(description="The name of the worker that made the call.")


class ExecutionOut(Output):
    """One run of a job. The answer and the error at the top are those of the newest attempt that ended."""

    id: int = Field(description="The execution's id.")
    job_id: int = Field(description="The job's id.")
    trigger: Trigger = Field(description="What started it.")
    state: State = Field(description="Where it is.")
    scheduled_for: str = _instant("Its slot: the nominal due time.")
    due_at: str | None = _instant("When it comes or came due, jitter and retries included.")
    queued_at: str | None = _instant("When it was handed to the workers.")
    started_at: str | None = _instant("When its newest attempt began.")
    finished_at: str | None = _instant("When it was over.")
    execution_duration_ms: float | None = Field(description="Milliseconds of the last attempt.")
    attempt: int = Field(description="The number of the newest attempt; 0: none yet.")
    retry_count: int = Field(description="Failed attempts that count against maxRetryCount.")
    max_retry_count: int = Field(description="The job's, as it was when the execution ended or is now.")
    worker: str | None = Field(description="The name of the worker of the newest attempt.")
    response_status: int | None = Field(description="The answer's status.")
    response_headers: Any = Field(description="The answer's headers.")
    response_body: str | None = Field(description="The first bytes of the answer's body.")
    response_body_encoding: Literal["utf-8", "base64"] | None = Field(
        description="How responseBody is written."
    )
    response_truncated: bool = Field(description="Whether there was more.")
    error_code: str | None = Field(description="What went wrong; see docs/errors.md.")
    error_message: str | None = Field(description="The same in words.")
    job_version: int | None = Field(description="The version of the job that was run.")
    phases: PhasesOut | None = Field(description="How long the parts of the call took.")
    attempts: list[AttemptOut] = Field(description="All attempts that ended, oldest first.")
    skipped_count: int | None = Field(description="How many slots a skipped execution stands for.")
    redrive_of: int | None = Field(description="The execution that this one repeats.")


class DeadLetterOut(Output):
    """An execution that failed for good."""

    id: int = Field(description="The execution's id.")
    job_id: int = Field(description="The job's id.")
    trigger: Trigger = Field(description="What had started it.")
    scheduled_for: str = _instant("Its slot: the nominal due time.")
    failed_at: str = _instant("When it failed for good.")
    attempt: int = Field(description="The number of its last attempt.")
    retry_count: int = Field(description="Failed attempts that counted against maxRetryCount.")
    response_status: int | None = Field(description="The last answer's status.")
    error_code: str | None = Field(description="What went wrong; see docs/errors.md.")
    error_message: str | None = Field(description="The same in words.")
    payload: Any = Field(description="What was sent.")
    last_attempt: AttemptOut | None = Field(description="The last attempt.")


class RedriveOut(Output):
    """A redrive that was started."""

    id: int = Field(description="Its id, for its progress.")
    matched: int = Field(description="How many dead letters became executions.")


class RedriveProgressOut(RedriveOut):
    """How far a redrive is."""

    done: int = Field(description="How many of its executions are over.")
    failed: int = Field(description="How many of those failed for good again.")
    state: Literal["running", "finished"] = Field(description="Whether all are over.")

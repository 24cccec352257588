"""Executions, live and finished, and dead letters: the read side."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import Database

from jobsched.db.page import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One execution. ``attempts`` and ``phases`` are JSON values in the API's own names."""

    id: int
    project_id: int
    job_id: int
    trigger: str
    state: str
    scheduled_for: datetime
    due_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    execution_duration_ms: float | None
    attempt: int
    retry_count: int
    max_retry_count: int
    worker: str | None
    response_status: int | None
    response_headers: Any
    response_body: bytes | None
    response_truncated: bool
    error_code: str | None
    error_message: str | None
    job_version: int | None
    phases: dict[str, Any] | None
    attempts: list[dict[str, Any]]
    skipped_count: int | None
    redrive_of: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """An execution that failed for good; ``id`` is the execution's. ``payload`` as it was sent."""

    id: int
    project_id: int
    job_id: int
    trigger: str
    scheduled_for: datetime
    failed_at: datetime
    attempt: int
    retry_count: int
    response_status: int | None
    error_code: str | None
    error_message: str | None
    payload: Any
    last_attempt: dict[str, Any] | None
    queue: str


class Executions:
    """Reads executions and dead letters from ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, project_id: int, execution_id: int) -> ExecutionRecord:
        """The execution, live or finished. Raises NotFound."""
        raise NotImplementedError

    def page(
        self,
        project_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        job_id: int | None = None,
        states: Sequence[str] = (),
        trigger: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> Page[ExecutionRecord]:
        """Newest first by id, live and finished. ``from_`` (inclusive) and ``to`` bound ``scheduled_for``."""
        raise NotImplementedError

    def dead_letter(self, project_id: int, execution_id: int) -> DeadLetterRecord:
        """The dead letter of an execution. Raises NotFound."""
        raise NotImplementedError

    def dead_letters(
        self,
        project_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        job_id: int | None = None,
        error_code: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> Page[DeadLetterRecord]:
        """Newest first by id. ``from_`` (inclusive) and ``to`` bound ``scheduled_for``."""
        raise NotImplementedError

"""Executions, live and finished, and dead letters: the read side. Lists: jobsched/db/execution_list.py."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from peewee import Database

from jobsched.clock import rfc3339
from jobsched.db.connection import Row, converted
from jobsched.db.dead_letters import conditions, order
from jobsched.db.execution_list import FINISHED_ROWS, LIVE_ROWS, Wanted, newest, with_limit
from jobsched.db.page import Page
from jobsched.db.session import show_instants
from jobsched.domain.json_text import unstorable
from jobsched.domain.requests import Selector
from jobsched.errors import NotFound

_LARGEST_ID = 2**63 - 1


class ExecutionRecord(NamedTuple):
    """One execution. Instants are RFC 3339; ``attempts`` and ``phases`` are JSON values in the API's own names.

    ``attempts`` holds all attempts that ended. Of a live execution the answer and the error are those of the
    newest of them. The worker is the one that runs it or ran its newest attempt.
    """

    id: int
    project_id: int
    job_id: int
    trigger: str
    state: str
    scheduled_for: str
    due_at: str | None
    queued_at: str | None
    started_at: str | None
    finished_at: str | None
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


class DeadLetterRecord(NamedTuple):
    """An execution that failed for good; ``id`` is the execution's. ``payload`` as it was sent, instants RFC 3339."""

    id: int
    project_id: int
    job_id: int
    trigger: str
    scheduled_for: str
    failed_at: str
    attempt: int
    retry_count: int
    response_status: int | None
    error_code: str | None
    error_message: str | None
    payload: Any
    last_attempt: dict[str, Any] | None
    queue: str


_DEAD_FIELDS = DeadLetterRecord._fields


class Executions:
    """Reads executions and dead letters from ``database``. Raises the database's errors besides those named."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, project_id: int, execution_id: int) -> ExecutionRecord:
        """The execution, live or finished. Raises NotFound."""
        rows = []
        if 0 < execution_id <= _LARGEST_ID:
            where = "WHERE e.id = %(id)s AND e.project_id = %(project)s"
            rows = self._rows(
                f"{LIVE_ROWS} {where} UNION ALL {FINISHED_ROWS} {where}",
                {"id": execution_id, "project": project_id},
            )
        if not rows:
            raise NotFound(f"There is no execution {execution_id}.")
        return _execution(rows[0])

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
        """Newest first by id, live and finished. ``from_`` (inclusive) and ``to`` bound ``scheduled_for``.

        Give ``from_`` where you can: it also tells which days of history need not be looked at. What was over more
        than a day from now, by a clock that went wrong, is looked for only up to a ``to`` that is still to come.
        """
        wanted = Wanted(
            project_id=project_id,
            before_id=before_id,
            job_id=job_id,
            states=tuple(states),
            trigger=trigger,
            from_=from_,
            to=to,
        )
        if wanted.impossible:
            return Page([])
        with converted():
            rows = newest(self._database, wanted, limit + 1)
        return Page.of([_execution(row) for row in rows], limit, lambda execution: execution.id)

    def dead_letter(self, project_id: int, execution_id: int) -> DeadLetterRecord:
        """The dead letter of an execution. Raises NotFound."""
        rows = []
        if 0 < execution_id <= _LARGEST_ID:
            rows = self._rows(
                f"SELECT {', '.join(_DEAD_FIELDS)} FROM dead_letter WHERE id = %s AND project_id = %s",
                (execution_id, project_id),
            )
        if not rows:
            raise NotFound(f"There is no dead letter {execution_id}.")
        return _dead_letter(rows[0])

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
        if error_code is not None and unstorable(error_code):
            return Page([])
        selector = Selector(job_id=job_id, error_code=error_code, from_=from_, to=to, all=True)
        where, parameters = conditions(project_id, selector)
        if before_id is not None:
            where += " AND d.id < %(before)s"
        statement = (
            f"SELECT {', '.join(_DEAD_FIELDS)} FROM dead_letter d WHERE {where} "
            f"ORDER BY {order(selector)} LIMIT :limit"
        )
        rows = self._rows(with_limit(statement, limit + 1), {**parameters, "before": before_id})
        return Page.of([_dead_letter(row) for row in rows], limit, lambda letter: letter.id)

    def _rows(self, statement: str, parameters: Any) -> list[Row]:
        with converted():
            cursor = self._database.cursor()
            show_instants(cursor)
            rows: list[Row] = cursor.execute(statement, parameters).fetchall()
        return rows


def _execution(row: Row) -> ExecutionRecord:
    execution = ExecutionRecord._make(row)
    attempts = execution.attempts
    attempts[:] = map(_attempt, attempts)
    if execution.finished_at is not None and execution.started_at is not None:
        # The attempt that ended an execution stands in the columns of its row.
        attempts.append(
            {
                "attempt": execution.attempt,
                "startedAt": execution.started_at,
                "finishedAt": execution.finished_at,
                "responseStatus": execution.response_status,
                "errorCode": execution.error_code,
                "errorMessage": execution.error_message,
                "phases": execution.phases,
                "worker": execution.worker,
            }
        )
    elif attempts:
        return execution._replace(**_of_newest(attempts[-1], execution))
    return execution


def _of_newest(newest: dict[str, Any], execution: ExecutionRecord) -> dict[str, Any]:
    """What an execution that runs or waits again, or was cancelled while it waited, tells of its newest attempt."""
    known = {
        "response_status": newest.get("responseStatus"),
        "error_code": newest.get("errorCode"),
        "error_message": newest.get("errorMessage"),
        "phases": newest.get("phases"),
        "worker": newest.get("worker"),
        "started_at": newest["startedAt"],
    }
    return {name: value for name, value in known.items() if getattr(execution, name) is None}


def _attempt(stored: dict[str, Any]) -> dict[str, Any]:
    """An attempt as answers show it: instants come out of jsonb in Postgres' own spelling."""
    return stored | {name: _instant(stored.get(name)) for name in ("startedAt", "finishedAt")}


def _instant(text: str | None) -> str | None:
    return None if text is None else rfc3339(datetime.fromisoformat(text))


def _dead_letter(row: Row) -> DeadLetterRecord:
    letter = DeadLetterRecord._make(row)
    if letter.last_attempt is None:
        return letter
    return letter._replace(last_attempt=_attempt(letter.last_attempt))

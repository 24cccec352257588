"""Executions, live and finished, and dead letters: the read side.

A list reads live executions and the history in one statement and therefore in one snapshot: an execution that
finishes meanwhile is seen in one of them, never in both or neither. Between pages it keeps its id, which is
the order, so it is not seen again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from peewee import Database

from jobsched import clock
from jobsched.clock import rfc3339
from jobsched.db.connection import Row, converted
from jobsched.db.dead_letters import conditions, order
from jobsched.db.page import Page
from jobsched.db.session import show_instants
from jobsched.domain.json_text import unstorable
from jobsched.domain.requests import Selector
from jobsched.domain.states import FINAL, LIVE, STATES, TRIGGERS
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

# Both selects give the columns of ExecutionRecord, in its order.
_LIVE = """
SELECT e.id, e.project_id, e.job_id, e.trigger, e.state, e.scheduled_for, e.due_at, e.queued_at, e.started_at,
    NULL::timestamptz, NULL::float8, e.attempt, e.retry_count, j.max_retry_count, w.name, NULL::int, NULL::jsonb,
    NULL::bytea, false, NULL, NULL, e.job_version, NULL::jsonb, e.attempts, NULL::int, e.redrive_of
FROM execution e JOIN job j ON j.id = e.job_id LEFT JOIN worker_process w ON w.id = e.worker_id
"""
_FINISHED = """
SELECT e.id, e.project_id, e.job_id, e.trigger, e.state, e.scheduled_for, e.due_at, e.queued_at, e.started_at,
    e.finished_at, e.duration_ms, e.attempt, e.retry_count, e.max_retry_count, e.worker, e.response_status,
    e.response_headers, e.response_body, e.response_truncated, e.error_code, e.error_message, e.job_version,
    e.phases, e.attempts, e.skipped_count, e.redrive_of
FROM execution_history e
"""


# An id that a page of history lies at or above, of what was due since :back. By "id + 0", which only the index on slots
# has, not by a walk over ids.
_PROBE = """
(SELECT e.id FROM execution_history e
WHERE {where} AND e.scheduled_for >= %({back})s AND e.finished_at >= %({back})s AND e.finished_at < %(soon)s
ORDER BY e.id + 0 DESC OFFSET :limit - 1 LIMIT 1)
"""
# What lies there; nothing where no such id is known.
_WINDOW = """
(WITH w AS MATERIALIZED ({finished} WHERE {where} AND e.id + 0 >= (SELECT floor.id FROM floor))
SELECT * FROM w ORDER BY id DESC LIMIT :limit)
"""
# All of it, newest first: what was over soon after the time asked for by a walk over ids, and of what was over later
# what has no page of the former above it, by the index on slots.
_LONG_AGO = """
(WITH near AS MATERIALIZED (SELECT * FROM ({walks}) AS n ORDER BY id DESC LIMIT :limit),
late AS MATERIALIZED ({finished} WHERE {where} AND e.finished_at >= %(soon)s
    AND e.id + 0 >= COALESCE((SELECT min(near.id) FROM near HAVING count(*) = :limit), 0))
SELECT * FROM near UNION ALL (SELECT * FROM late ORDER BY id DESC LIMIT :limit))
"""
_JOB = "e.job_id = %(job)s"
# The same, as a range and with its order: so Postgres expects many rows and walks the job's from the newest down. For
# most jobs it would expect a few, and then collect and sort all those of one that runs every minute.
_OF_JOB = "e.job_id BETWEEN %(job)s AND %(job)s"
#: Before it nothing was called, and Python has no instant an hour before the first one.
_FIRST_YEAR = 1970

#: How far back, in seconds, a page of history is looked for before the end of the time asked for.
_LOOK_BACK = (1.0, 60.0, 600.0, 3600.0)

#: More than the last of them: with an id that was given out in that time, or later, nothing was over a day before.
_DAY = timedelta(days=1)

# Until the end of a transaction. With the values Postgres leaves out days while it plans, finds that cheaper, and plans
# each call anew. That takes several times as long as to leave them out at the start of a plan that is there.
_ONE_PLAN = "SELECT set_config('plan_cache_mode', 'force_generic_plan', true)"


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
                f"{_LIVE} {where} UNION ALL {_FINISHED} {where}", {"id": execution_id, "project": project_id}
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

        Give ``from_`` where you can: it also tells which days of history need not be looked at.
        """
        wanted = [state for state in STATES if state in states] if states else list(STATES)
        if not wanted or (trigger is not None and trigger not in TRIGGERS):
            return Page([])
        parameters: dict[str, Any] = {
            "project": project_id, "before": before_id, "job": job_id, "trigger": trigger,
            "from": from_, "to": to, "states": wanted,
        }  # fmt: skip
        where = ["e.project_id = %(project)s"]
        for name, condition in (
            ("before", "e.id < %(before)s"),
            ("job", _JOB),
            ("trigger", "e.trigger = %(trigger)s"),
            ("from", "e.scheduled_for >= %(from)s"),
            ("to", "e.scheduled_for < %(to)s"),
        ):
            if parameters[name] is not None:
                where.append(condition)
        if trigger not in (None, "schedule"):
            where.append("e.trigger <> 'schedule'")  # else the index on what was not scheduled is not used
        final = [state for state in FINAL if state in wanted]
        live = [_part(_LIVE, where, set(LIVE) <= set(wanted))] if set(wanted) & set(LIVE) else []
        # Nothing finishes before its slot, so whole days can be left out.
        finished = where if from_ is None else [*where, "e.finished_at >= %(from)s"]
        if final and to is not None and before_id is None and job_id is None and to <= clock.utc_now():
            rows = self._until(live, finished, parameters, final, limit + 1)
        else:
            statement = _newest([*live, *_walks(finished, final)])
            rows = self._rows(_limited(statement, limit + 1), parameters)
        return Page.of([_execution(row) for row in rows], limit, lambda execution: execution.id)

    def _until(
        self, live: list[str], where: list[str], parameters: dict[str, Any], final: Sequence[str], limit: int
    ) -> list[Row]:
        """The rows of a page that ends before now.

        Ids follow the time of firing, not the slot: whoever walks from the newest id down to the slots before ``to``
        reads all that came after. So an id is looked for, from about that time, that has a page of history at or above
        it. There the few late ones are found by the index on slots.
        """
        to, from_ = parameters["to"], parameters["from"]
        in_state = [*where, "e.state = ANY(%(states)s)"]
        probes, since = list[str](), list[str]()
        whole = to.year < _FIRST_YEAR
        if not whole:
            parameters |= {"soon": to + _DAY, "since": to - _DAY}
            since = ["e.finished_at >= %(since)s"]
            for number, seconds in enumerate(_LOOK_BACK):
                back = to - timedelta(seconds=seconds)
                whole = from_ is not None and back <= from_
                if whole:
                    break
                parameters[f"back{number}"] = back
                probes.append(_PROBE.format(where=" AND ".join(in_state), back=f"back{number}"))
        # One after the other, as far as need be.
        known = ", ".join([*probes, "0"] if whole else probes)
        floor = f"WITH floor AS MATERIALIZED (SELECT COALESCE({known}) AS id)"
        window = _WINDOW.format(finished=_FINISHED, where=" AND ".join([*in_state, *since]))
        statement = f"{floor} {_newest([*live, window], 'x.*, (SELECT id FROM floor)')}"
        rows = self._by_one_plan(_limited(statement, limit), parameters)
        if whole or (rows and rows[0][-1] is not None):
            return [row[:-1] for row in rows]
        # Little happened then. In the days before, the walk is short.
        walks = _walks([*where, "e.finished_at < %(soon)s"], final)
        long_ago = _LONG_AGO.format(
            walks=" UNION ALL ".join(walks), finished=_FINISHED, where=" AND ".join(in_state)
        )
        return self._by_one_plan(_limited(_newest([*live, long_ago]), limit), parameters)

    def _by_one_plan(self, statement: str, parameters: dict[str, Any]) -> list[Row]:
        """The rows of a statement that has one plan on each connection, whatever its values."""
        # In one exchange, which is one transaction.
        with converted(), self._database.connection().pipeline():
            self._database.cursor().execute(_ONE_PLAN)
            cursor = self._database.cursor()
            show_instants(cursor)
            cursor.execute(statement, parameters, prepare=True)
            rows: list[Row] = cursor.fetchall()
        return rows

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
        rows = self._rows(_limited(statement, limit + 1), {**parameters, "before": before_id})
        return Page.of([_dead_letter(row) for row in rows], limit, lambda letter: letter.id)

    def _rows(self, statement: str, parameters: Any) -> list[Row]:
        with converted():
            cursor = self._database.cursor()
            show_instants(cursor)
            rows: list[Row] = cursor.execute(statement, parameters).fetchall()
        return rows


def _walks(where: list[str], final: Sequence[str]) -> list[str]:
    """The parts of a page that come from the history, of executions in these states, by walks from the newest down."""
    where = [_OF_JOB if condition == _JOB else condition for condition in where]
    if "succeeded" in final:
        return [_part(_FINISHED, where, set(FINAL) <= set(final))]
    # One walk a state: the indexes on what did not succeed are in order of ids within each.
    return [_part(_FINISHED, [*where, f"e.state = '{state}'"], every_state=True) for state in final]


def _part(select: str, where: list[str], every_state: bool) -> str:
    conditions = where if every_state else [*where, "e.state = ANY(%(states)s)"]
    order = "e.job_id DESC, e.id DESC" if _OF_JOB in where else "e.id DESC"
    return f"({select} WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit)"


def _limited(statement: str, limit: int) -> str:
    """``statement`` with its limit as a number.

    Were it a parameter, a plan for all calls would reckon with a tenth of all rows. Postgres would rather plan each
    call by itself, which takes longer than to read the page: the history has dozens of partitions.
    """
    return statement.replace(":limit", f"{limit:d}")


def _newest(parts: list[str], columns: str = "*") -> str:
    return f"SELECT {columns} FROM ({' UNION ALL '.join(parts)}) AS x ORDER BY 1 DESC LIMIT :limit"


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

"""Which executions a list shows, and how they are found among live ones and the days of the history.

Whoever walks from the newest id down stops at the page. So every filter is given a walk of an index that is in the
order of ids, and one plan that is kept: with days by the dozen, to plan takes longer than to read a page.

A list reads live executions and the history in one statement and therefore in one snapshot: an execution that
finishes meanwhile is seen in one of them, never in both or neither. Between pages it keeps its id, which is
the order, so it is not seen again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import Database

from jobsched import clock
from jobsched.db.connection import Row
from jobsched.db.session import show_instants
from jobsched.domain.states import FINAL, LIVE, STATES, TRIGGERS

# Both give the columns of ExecutionRecord (db/executions.py), in its order.
LIVE_ROWS = """
SELECT e.id, e.project_id, e.job_id, e.trigger, e.state, e.scheduled_for, e.due_at, e.queued_at, e.started_at,
    NULL::timestamptz, NULL::float8, e.attempt, e.retry_count, j.max_retry_count, w.name, NULL::int, NULL::jsonb,
    NULL::bytea, false, NULL, NULL, e.job_version, NULL::jsonb, e.attempts, NULL::int, e.redrive_of
FROM execution e JOIN job j ON j.id = e.job_id LEFT JOIN worker_process w ON w.id = e.worker_id
"""
FINISHED_ROWS = """
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
(WITH w AS MATERIALIZED ({rows} WHERE {where} AND e.id + 0 >= (SELECT floor.id FROM floor))
SELECT * FROM w ORDER BY id DESC LIMIT :limit)
"""
# All of it, newest first: what was over soon after the time asked for by a walk over ids, and of what was over later
# what has no page of the former above it, by the index on slots.
_LONG_AGO = """
(WITH near AS MATERIALIZED (SELECT * FROM ({walks}) AS n ORDER BY id DESC LIMIT :limit),
late AS MATERIALIZED ({rows} WHERE {where} AND e.finished_at >= %(soon)s
    AND e.id + 0 >= COALESCE((SELECT min(near.id) FROM near HAVING count(*) = :limit), 0))
SELECT * FROM near UNION ALL (SELECT * FROM late ORDER BY id DESC LIMIT :limit))
"""
_JOB = "e.job_id = %(job)s"
# The same, as a range and with its order: so Postgres expects many rows and walks the job's from the newest down. For
# most jobs it would expect a few, and then collect and sort all those of one that runs every minute.
_OF_JOB = "e.job_id BETWEEN %(job)s AND %(job)s"
_TRIGGER = "e.trigger = %(trigger)s"
# Likewise, of a trigger that the index on what was not scheduled has: else a day may be read whole for what few have.
_OF_TRIGGER = "e.trigger BETWEEN %(trigger)s AND %(trigger)s"
_BY_ID, _BY_JOB, _BY_TRIGGER = "e.id DESC", "e.job_id DESC, e.id DESC", "e.trigger DESC, e.id DESC"
# Nothing is over later than that. So the days that are made ahead stay closed, a third of all.
_BY_TOMORROW = "e.finished_at < now() + interval '1 day'"
#: Before it nothing was called, and Python has no instant an hour before the first one.
_FIRST_YEAR = 1970

#: How far back, in seconds, a page of history is looked for before the end of the time asked for.
_LOOK_BACK = (1.0, 60.0, 600.0, 3600.0)

#: More than the last of them: with an id that was given out in that time, or later, nothing was over a day before.
_DAY = timedelta(days=1)

# Until the end of a transaction. With the values Postgres leaves out days while it plans, or sees days without a row,
# finds that cheaper, and plans each call anew. That takes several times as long as to leave them out at the start of a
# plan that is there. And it reckons with more days than there will be: other processes to help with them would be there
# after the last row.
_ONE_PLAN = """
SELECT set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('max_parallel_workers_per_gather', '0', true)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters of a list; None and () leave one out. ``from_`` (inclusive) and ``to`` bound the slot."""

    project_id: int
    before_id: int | None = None
    job_id: int | None = None
    states: tuple[str, ...] = ()
    trigger: str | None = None
    from_: datetime | None = None
    to: datetime | None = None

    @property
    def impossible(self) -> bool:
        """Whether it asks for what no execution can be."""
        return (self.trigger is not None and self.trigger not in TRIGGERS) or (
            bool(self.states) and not set(self.states) & set(STATES)
        )

    @property
    def rare(self) -> bool:
        """Whether it is of a trigger that few executions have, and an index."""
        return self.trigger not in (None, "schedule")

    @property
    def past(self) -> bool:
        """Whether it ends before now."""
        return self.to is not None and self.to <= clock.utc_now()

    def among(self, states: Sequence[str]) -> list[str]:
        """Which of ``states`` it asks for."""
        return [state for state in states if not self.states or state in self.states]


def newest(database: Database, wanted: Wanted, limit: int) -> list[Row]:
    """The first ``limit`` rows as wanted, newest first by id. Raises the database's errors."""
    parameters: dict[str, Any] = {
        "project": wanted.project_id,
        "before": wanted.before_id,
        "job": wanted.job_id,
        "trigger": wanted.trigger,
        "from": wanted.from_,
        "to": wanted.to,
        "states": wanted.among(STATES),
    }
    where = ["e.project_id = %(project)s"]
    for name, condition in (
        ("before", "e.id < %(before)s"),
        ("job", _JOB),
        ("trigger", _TRIGGER),
        ("from", "e.scheduled_for >= %(from)s"),
        ("to", "e.scheduled_for < %(to)s"),
    ):
        if parameters[name] is not None:
            where.append(condition)
    live = [_part(LIVE_ROWS, where, wanted.among(LIVE) == list(LIVE))] if wanted.among(LIVE) else []
    finished = [*where]
    if wanted.rare:
        finished.append("e.trigger <> 'schedule'")  # else the index on what was not scheduled is not used
    if wanted.from_ is not None:
        # Nothing is over before its slot: so whole days are left out.
        finished.append("e.finished_at >= %(from)s")
    past = wanted.past
    if wanted.to is None or past:
        finished.append(_BY_TOMORROW)
    if wanted.among(FINAL) and past and wanted.before_id is None and wanted.job_id is None:
        return _until(database, wanted, live, finished, parameters, limit)
    statement = with_limit(_newest([*live, *_walks(wanted, finished)]), limit)
    if wanted.before_id is not None:
        return _by_one_plan(database, statement, parameters)
    cursor = database.cursor()
    show_instants(cursor)
    return list(cursor.execute(statement, parameters).fetchall())


def with_limit(statement: str, limit: int) -> str:
    """``statement`` with its limit as a number.

    Were it a parameter, a plan for all calls would reckon with a tenth of all rows. Postgres would rather plan each
    call by itself, which takes longer than to read the page: the history has dozens of partitions.
    """
    return statement.replace(":limit", f"{limit:d}")


def _until(
    database: Database,
    wanted: Wanted,
    live: list[str],
    where: list[str],
    parameters: dict[str, Any],
    limit: int,
) -> list[Row]:
    """The rows of a page that ends before now.

    Ids follow the time of firing, not the slot: whoever walks from the newest id down to the slots before ``to``
    reads all that came after. So an id is looked for, from about that time, that has a page of history at or above
    it. There the few late ones are found by the index on slots.
    """
    to, from_ = wanted.to, wanted.from_
    assert to is not None
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
    window = _WINDOW.format(rows=FINISHED_ROWS, where=" AND ".join([*in_state, *since]))
    statement = f"{floor} {_newest([*live, window], 'x.*, (SELECT id FROM floor)')}"
    rows = _by_one_plan(database, with_limit(statement, limit), parameters)
    if whole or (rows and rows[0][-1] is not None):
        return [row[:-1] for row in rows]
    # Little happened then. In the days before, the walk is short.
    walks = _walks(wanted, [*where, "e.finished_at < %(soon)s"])
    long_ago = _LONG_AGO.format(
        walks=" UNION ALL ".join(walks), rows=FINISHED_ROWS, where=" AND ".join(in_state)
    )
    return _by_one_plan(database, with_limit(_newest([*live, long_ago]), limit), parameters)


def _by_one_plan(database: Database, statement: str, parameters: dict[str, Any]) -> list[Row]:
    """The rows of a statement that has one plan on each connection, whatever its values."""
    # In one exchange, which is one transaction.
    with database.connection().pipeline():
        database.cursor().execute(_ONE_PLAN)
        cursor = database.cursor()
        show_instants(cursor)
        cursor.execute(statement, parameters, prepare=True)
        rows: list[Row] = cursor.fetchall()
    return rows


def _walks(wanted: Wanted, where: list[str]) -> list[str]:
    """The parts of a page that come from the history, by walks from the newest down."""
    final = wanted.among(FINAL)
    order = _BY_ID
    if wanted.job_id is not None:
        where, order = [_OF_JOB if condition == _JOB else condition for condition in where], _BY_JOB
    if "succeeded" not in final:
        # One walk a state: the indexes on what did not succeed are in order of ids within each.
        return [
            _part(FINISHED_ROWS, [*where, f"e.state = '{state}'"], every_state=True, order=order)
            for state in final
        ]
    if wanted.rare and wanted.job_id is None:
        where = [_OF_TRIGGER if condition == _TRIGGER else condition for condition in where]
        order = _BY_TRIGGER
    return [_part(FINISHED_ROWS, where, final == list(FINAL), order)]


def _part(rows: str, where: list[str], every_state: bool, order: str = _BY_ID) -> str:
    conditions = where if every_state else [*where, "e.state = ANY(%(states)s)"]
    return f"({rows} WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit)"


def _newest(parts: list[str], columns: str = "*") -> str:
    return f"SELECT {columns} FROM ({' UNION ALL '.join(parts)}) AS x ORDER BY 1 DESC LIMIT :limit"

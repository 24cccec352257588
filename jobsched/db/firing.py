"""The moves a poller makes when a schedule is due: fire its slots.

Fire is one transaction a batch: the schedule rows are locked first, before anything is computed, and the new
slot and the schedule's next time change together. A slot is a unique row, so it fires once whatever happens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg import errors as pg

from jobsched.db import arrays
from jobsched.db.claims import HISTORY_COLUMNS
from jobsched.db.connection import Cursor, Link
from jobsched.domain.misfire import MisfirePolicy
from jobsched.domain.overlap import Occupancy, OverlapPolicy


class SlotExists(Exception):
    """One of the slots to insert has been fired before. What the transaction has done is undone."""


# Named tuples, not dataclasses: there are 20,000 of each a second, and a frozen one costs 2 µs to make.
class DueSchedule(NamedTuple):
    """A locked schedule that is due, with what of its job decides. Times in seconds.

    ``waiting``: how many executions of the job wait, counted no further than BACKLOG_LIMIT; ``now``: the database's
    clock when the schedule was locked.
    """

    job_id: int
    next_slot: datetime
    next_execution_time: datetime
    last_slot: datetime | None
    anchor: datetime
    runs: int
    project_id: int
    schedule: str
    timezone: str
    is_recurring: bool
    misfire_policy: MisfirePolicy
    misfire_grace_seconds: float
    overlap_policy: OverlapPolicy
    priority: int
    pool: str
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    jitter_seconds: float
    max_retry_count: int
    version: int
    waiting: int
    now: datetime


class NewExecution(NamedTuple):
    """A slot to run. ``state``: queued, pending without room in its queue, or blocked by its job's overlap policy."""

    project_id: int
    job_id: int
    scheduled_for: datetime
    due_at: datetime
    state: str
    priority: int
    pool: str
    queue: str


@dataclass(frozen=True, slots=True)
class SkippedSlots:
    """Slots that are not run: one row of history for ``count`` of them.

    ``error_code``: misfire, overlap or backlog.
    """

    project_id: int
    job_id: int
    scheduled_for: datetime
    count: int
    error_code: str
    error_message: str
    max_retry_count: int
    job_version: int


class Advance(NamedTuple):
    """What a fired schedule becomes. None for ``next_slot``: nothing is due any more."""

    job_id: int
    next_slot: datetime | None
    next_execution_time: datetime | None
    last_slot: datetime | None
    runs: int


class Outlook(NamedTuple):
    """What lies before a poller. ``clock``: what time it is where due times are compared.

    ``next_in``: seconds until the next due time of a schedule or a waiting execution after the round began; not
    positive for what became due meanwhile, None if nothing is to come. ``overdue``: a schedule that was due when it
    began is due still, so somebody else holds its lock. ``waiting``: an execution waits whose time has come.
    """

    clock: datetime
    next_in: float | None
    overdue: bool
    waiting: bool


#: A job with so many waiting executions gets its further slots as skipped (backlog).
BACKLOG_LIMIT = 1000

# statement_timestamp(), not clock_timestamp(): a volatile function is no index condition, and the scan would
# go on through all that is due in the future.
_LOCK_DUE = """
SELECT job_id, next_slot, next_execution_time, last_slot, anchor, runs FROM job_schedule
WHERE next_execution_time <= statement_timestamp()
ORDER BY next_execution_time LIMIT %s FOR UPDATE SKIP LOCKED
"""

# The id alone: a row that holds what Python has no value for, such as infinity, can still be set aside.
_LOCK_LONGEST_DUE = """
SELECT job_id FROM job_schedule WHERE next_execution_time <= statement_timestamp()
ORDER BY next_execution_time LIMIT 1 FOR UPDATE SKIP LOCKED
"""

_LOCK_ONE = """
SELECT job_id, next_slot, next_execution_time, last_slot, anchor, runs FROM job_schedule
WHERE job_id = %s FOR UPDATE
"""

# A statement of its own, after the lock: its snapshot sees the edit that may just have released the row, and its
# time is not before any that is due.
_JOBS = f"""
SELECT id, project_id, schedule, timezone, is_recurring, misfire_policy, misfire_grace_seconds, overlap_policy,
    priority, pool, start_at, end_at, max_runs, jitter_seconds, max_retry_count, version,
    (SELECT count(*) FROM (SELECT FROM execution e WHERE e.job_id = job.id AND e.state <> 'running'
                           LIMIT {BACKLOG_LIMIT}) AS w),
    statement_timestamp()
FROM job WHERE id = ANY(%s) AND is_active AND deleted_at IS NULL
"""

_QUEUED = """
SELECT q.queue, (SELECT count(*) FROM (
    SELECT FROM execution WHERE state = 'queued' AND queue = q.queue LIMIT %s) AS e)
FROM unnest(%s) AS q(queue)
"""

_OCCUPANCIES = """
SELECT job_id, bool_or(state IN ('queued', 'running', 'retrying')), bool_or(state = 'blocked'),
    bool_or(state = 'pending' AND due_at <= statement_timestamp())
FROM execution WHERE job_id = ANY(%s) GROUP BY job_id
"""

_INSERT = """
INSERT INTO execution (trigger, project_id, job_id, scheduled_for, due_at, state, priority, pool, queue, queued_at)
SELECT 'schedule', project_id, job_id, scheduled_for, due_at, state, priority, pool, queue,
    CASE WHEN state = 'queued' THEN clock_timestamp() END
FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s)
    AS n(project_id, job_id, scheduled_for, due_at, state, priority, pool, queue)
"""
_RETURNING = "RETURNING CASE WHEN state = 'queued' THEN queue END, id"

_ADVANCE = """
UPDATE job_schedule s SET next_slot = a.next_slot, next_execution_time = a.next_execution_time,
    last_slot = a.last_slot, runs = a.runs, fault = NULL
FROM unnest(%s, %s, %s, %s, %s) AS a(job_id, next_slot, next_execution_time, last_slot, runs)
WHERE s.job_id = a.job_id
"""

_SKIP = f"""
WITH gone AS (
    INSERT INTO execution_history ({HISTORY_COLUMNS}, skipped_count)
    SELECT nextval('execution_id_seq'), project_id, job_id, 'schedule', scheduled_for, NULL, NULL, NULL,
        clock_timestamp(), 'skipped', 0, 0, max_retry_count, NULL, NULL, NULL, NULL, NULL, false, error_code,
        error_message, NULL, '[]', job_version, NULL, count
    FROM json_to_recordset(%s::json) AS n(project_id bigint, job_id bigint, scheduled_for timestamptz,
        count int, error_code text, error_message text, max_retry_count int, job_version int)
    RETURNING job_id, finished_at, state
)
INSERT INTO job_last (job_id, last_execution_time, last_state)
SELECT DISTINCT ON (job_id) job_id, finished_at, state FROM gone ORDER BY job_id, finished_at DESC
ON CONFLICT (job_id) DO UPDATE SET
    last_execution_time = excluded.last_execution_time, last_state = excluded.last_state
"""

# The least, not EXISTS: with old statistics every row looks due, and none would be searched for in all of them.
_OUTLOOK = """
SELECT t.now, extract(epoch FROM least(
    (SELECT min(next_execution_time) FROM job_schedule
     WHERE next_execution_time > t.since AND next_execution_time < 'infinity'),
    (SELECT min(due_at) FROM execution
     WHERE state IN ('pending', 'retrying') AND due_at > t.since AND due_at < 'infinity')
) - t.now)::float8,
    COALESCE((SELECT min(next_execution_time) FROM job_schedule) <= t.since, false),
    COALESCE((SELECT min(due_at) FROM execution
              WHERE state IN ('pending', 'retrying') AND due_at < 'infinity') <= t.now, false)
FROM (SELECT now, now - make_interval(secs => %s) AS since FROM (SELECT clock_timestamp() AS now) AS c) AS t
"""


def lock_longest_due(cursor: Cursor) -> int | None:
    """Lock the schedule that is due for the longest time and that nobody else holds; the id of its job."""
    cursor.execute(_LOCK_LONGEST_DUE)
    row = cursor.fetchone()
    return row[0] if row else None


def lock_due(cursor: Cursor, limit: int, job_id: int | None = None) -> tuple[list[DueSchedule], list[int]]:
    """Lock up to ``limit`` due schedules that nobody else holds, the longest due first, or that of one job.

    Returns the schedules, and the ids of locked ones whose job is gone or paused.
    """
    if job_id is None:
        cursor.execute(_LOCK_DUE, (limit,), binary=True)
    else:
        cursor.execute(_LOCK_ONE, (job_id,), binary=True)
    locked = cursor.fetchall()
    if not locked:
        return [], []
    cursor.execute(_JOBS, (arrays.bigints([row[0] for row in locked]),), binary=True)
    jobs = {row[0]: row[1:] for row in cursor.fetchall()}
    due = [DueSchedule._make(row + jobs[row[0]]) for row in locked if row[0] in jobs]
    return due, [row[0] for row in locked if row[0] not in jobs] if len(due) < len(locked) else []


def rooms(cursor: Cursor, queues: Sequence[str], high_water: int) -> dict[str, int]:
    """For each queue, how many more executions may become queued. Counts no further than the mark."""
    cursor.execute(_QUEUED, (high_water, arrays.texts(queues)))
    return {queue: high_water - queued for queue, queued in cursor.fetchall()}


def occupancies(cursor: Cursor, jobs: Sequence[int]) -> dict[int, Occupancy]:
    """What each of ``jobs`` has at the moment. The caller holds their schedules' locks; free jobs are left out."""
    cursor.execute(_OCCUPANCIES, (arrays.bigints(jobs),))
    return {job: Occupancy(*rest) for job, *rest in cursor.fetchall()}


def insert(cursor: Cursor, executions: Sequence[NewExecution]) -> list[tuple[str, int]]:
    """Insert slots, in order. Returns (queue, id) of what is queued.

    Raises SlotExists where one of them has been fired before, which a clock that was set back can bring about.
    """
    try:
        return _insert(cursor, _INSERT + _RETURNING, executions)
    except pg.UniqueViolation as error:
        raise SlotExists from error


def insert_missing(cursor: Cursor, executions: Sequence[NewExecution]) -> list[tuple[str, int]]:
    """The same, and a slot that exists already changes nothing. It costs half as much again."""
    return _insert(cursor, _INSERT + "ON CONFLICT DO NOTHING " + _RETURNING, executions)


def _insert(cursor: Cursor, statement: str, executions: Sequence[NewExecution]) -> list[tuple[str, int]]:
    projects, jobs, slots, due, states, priorities, pools, queues = zip(*executions, strict=True)
    nominal = arrays.instants(slots)
    parameters = (
        arrays.bigints(projects),
        arrays.bigints(jobs),
        nominal,
        nominal if due == slots else arrays.instants(due),
        arrays.texts(states),
        arrays.bigints(priorities),
        arrays.texts(pools),
        arrays.texts(queues),
    )
    cursor.execute(statement, parameters, binary=True)
    return [(queue, i) for queue, i in cursor.fetchall() if queue is not None]


def advance(cursor: Cursor, advances: Sequence[Advance]) -> None:
    """Give fired schedules their next times."""
    jobs, slots, times, last, runs = zip(*advances, strict=True)
    nominal = arrays.instants(slots)
    effective = nominal if times == slots else arrays.instants(times)
    parameters = arrays.bigints(jobs), nominal, effective, arrays.instants(last), arrays.bigints(runs)
    cursor.execute(_ADVANCE, parameters)


def skip(cursor: Cursor, slots: Sequence[SkippedSlots]) -> None:
    """Write what is not run into the history."""
    names = slots[0].__slots__
    rows = [{name: getattr(slot, name) for name in names} for slot in slots]
    cursor.execute(_SKIP, (json.dumps(rows, default=datetime.isoformat),))


def uncount(cursor: Cursor, slots: Mapping[int, int]) -> None:
    """Take back slots (how many, by job) that were counted as runs and are skipped after all.

    The caller holds the locks of these jobs' schedules.
    """
    cursor.execute(
        "UPDATE job_schedule s SET runs = GREATEST(s.runs - n.count, 0) "
        "FROM unnest(%s::bigint[], %s::int[]) AS n(job_id, count) WHERE s.job_id = n.job_id",
        (list(slots), list(slots.values())),
    )


def retire(cursor: Cursor, jobs: Sequence[int]) -> None:
    """Take schedules whose job is gone or paused off the clock."""
    cursor.execute(
        "UPDATE job_schedule SET next_slot = NULL, next_execution_time = NULL WHERE job_id = ANY(%s)",
        (list(jobs),),
    )


def push_aside(cursor: Cursor, job_id: int, fault: str, seconds: float) -> None:
    """Put a schedule that cannot be fired ``seconds`` ahead and record why, so that it stops nobody."""
    cursor.execute(
        "UPDATE job_schedule SET next_execution_time = clock_timestamp() + make_interval(secs => %s), "
        "fault = %s WHERE job_id = %s",
        (seconds, fault[:2000].replace("\0", ""), job_id),
    )


def outlook(link: Link, ago: float) -> Outlook:
    """What is due after a round that began ``ago`` seconds ago, and what it has left."""
    [row] = link.execute(_OUTLOOK, (ago,))
    return Outlook(*row)

"""The moves a poller makes when a waiting execution is due: hand it to RQ, or hold it back for its job's sake.

What a job's overlap policy says is decided under the lock of the job's schedule row, from what the executions
are then. Firing holds the same lock, and an edit of the policy waits for the rows that are locked here, so that
neither two pollers nor an edit beside them let in one too many. Nothing here waits for a lock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobsched.db.claims import HISTORY_COLUMNS
from jobsched.db.connection import Cursor, Link
from jobsched.domain.overlap import FREE, Occupancy, OverlapPolicy


class Waiting(NamedTuple):
    """A locked execution whose time has come. ``decided``: no overlap policy can hold it back any more."""

    id: int
    job_id: int
    trigger: str
    decided: bool


@dataclass(frozen=True, slots=True)
class Contested:
    """A locked job that does not allow overlaps. ``limited``: it counts its runs (maxRuns)."""

    job_id: int
    policy: OverlapPolicy
    occupancy: Occupancy
    limited: bool


_WAITING_QUEUES = """
WITH RECURSIVE q AS (
    (SELECT queue FROM execution WHERE state IN ('pending', 'retrying') ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT e.queue FROM execution e WHERE e.state IN ('pending', 'retrying') AND e.queue > q.queue
            ORDER BY e.queue LIMIT 1)
    FROM q WHERE q.queue IS NOT NULL
) SELECT queue FROM q WHERE queue IS NOT NULL
"""

# By priority, then by due time: a walk down the index for each priority that a band can hold, so that
# neither rows due later nor a backlog of lower priority is ever read. The due time as a number, since Python
# has no value for every timestamp of Postgres.
_LOCK_DUE = """
SELECT w.id, w.job_id, w.trigger, w.state = 'retrying' OR w.force, p.priority,
    extract(epoch FROM w.due_at)::float8
FROM generate_series(10, 0, -1) AS p(priority), LATERAL (
    SELECT id, job_id, trigger, state, force, due_at FROM execution
    WHERE queue = %(queue)s AND state IN ('pending', 'retrying') AND priority = p.priority
      AND due_at <= statement_timestamp()
      AND NOT (job_id = ANY(%(without)s::bigint[]) AND state = 'pending')
    ORDER BY due_at LIMIT %(room)s FOR UPDATE SKIP LOCKED
) AS w LIMIT %(room)s
"""

# A statement of its own, after the lock on the executions: an edit of the policy that these rows do not wait for
# has been committed by then, and is seen.
_DISALLOWING = "SELECT id FROM job WHERE id = ANY(%s) AND overlap_policy <> 'allow'"

_LOCK_SCHEDULES = """
SELECT job_id FROM job_schedule WHERE job_id = ANY(%s) ORDER BY job_id FOR UPDATE SKIP LOCKED
"""

# Again a statement of its own: its snapshot sees what the last holder of the lock has done.
# Not joined: with the ids as values the planner knows which of the jobs have many executions and which have few.
_OCCUPANCIES = """
SELECT job_id, bool_or(state <> 'blocked'), bool_or(state = 'blocked')
FROM execution WHERE job_id = ANY(%s) AND state <> 'pending' GROUP BY job_id
"""
_POLICIES = "SELECT id, overlap_policy, max_runs IS NOT NULL FROM job WHERE id = ANY(%s)"

_QUEUE = "UPDATE execution SET state = 'queued', queued_at = clock_timestamp() WHERE id = ANY(%s)"
_BLOCK = "UPDATE execution SET state = 'blocked' WHERE id = ANY(%s)"
_PUSH_ASIDE = "UPDATE execution SET due_at = clock_timestamp() + make_interval(secs => %s) WHERE id = %s"

_LET_GO = """
UPDATE execution SET state = 'pending'
WHERE (state = 'blocked') IS TRUE AND id = ANY(ARRAY(
    SELECT id FROM execution WHERE state = 'blocked' AND job_id = ANY(%s) FOR UPDATE SKIP LOCKED))
RETURNING job_id
"""

# A redrive that is skipped stays a dead letter, under its own id: nothing of it was sent.
_SKIP = f"""
WITH reason AS (
    SELECT * FROM json_to_recordset(%s::json) AS r(id bigint, message text)
), gone AS (
    DELETE FROM execution e USING reason r WHERE e.id = r.id
    RETURNING e.*, r.message, clock_timestamp() AS finished_at
), history AS (
    INSERT INTO execution_history ({HISTORY_COLUMNS}, skipped_count)
    SELECT g.id, g.project_id, g.job_id, g.trigger, g.scheduled_for, g.due_at, NULL, NULL, g.finished_at,
        'skipped', 0, 0, COALESCE(j.max_retry_count, 0), NULL, NULL, NULL, NULL, NULL, false, 'overlap',
        g.message, NULL, '[]', j.version, g.redrive_of, 1
    FROM gone g LEFT JOIN job j ON j.id = g.job_id
), dead AS (
    INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, payload, attempt, retry_count,
        error_code, error_message, queue, failed_at)
    SELECT g.id, g.project_id, g.job_id, g.trigger, g.scheduled_for, COALESCE(g.payload, j.payload), 0, 0,
        'overlap', g.message, g.queue, g.finished_at
    FROM gone g LEFT JOIN job j ON j.id = g.job_id WHERE g.trigger = 'redrive'
), redriven AS (
    UPDATE redrive r SET failed = r.failed + f.count
    FROM (SELECT redrive_id, count(*) FROM gone GROUP BY 1) AS f WHERE r.id = f.redrive_id
)
INSERT INTO job_last (job_id, last_execution_time, last_state)
SELECT DISTINCT ON (job_id) job_id, finished_at, 'skipped' FROM gone ORDER BY job_id, finished_at DESC
ON CONFLICT (job_id) DO UPDATE SET
    last_execution_time = excluded.last_execution_time, last_state = excluded.last_state
"""


def waiting_queues(link: Link) -> list[str]:
    """The queues in which something is pending or retrying, due or not."""
    return [row[0] for row in link.execute(_WAITING_QUEUES)]


def lock_due(cursor: Cursor, queue: str, room: int, without: Sequence[int] = ()) -> list[Waiting]:
    """Lock up to ``room`` due executions of one queue, by priority and due time.

    Pending ones of the jobs ``without`` are left out: somebody else decides about these jobs at the moment.
    """
    cursor.execute(_LOCK_DUE, {"queue": queue, "room": room, "without": list(without)})
    rows: list[tuple[int, int, str, bool, int, float]] = cursor.fetchall()
    rows.sort(key=lambda row: (-row[4], row[5], row[0]))
    return [Waiting(*row[:4]) for row in rows]


def disallowing(cursor: Cursor, jobs: Sequence[int]) -> list[int]:
    """Those of ``jobs`` that do not allow overlaps. Call it after ``lock_due``."""
    cursor.execute(_DISALLOWING, (list(jobs),))
    return [row[0] for row in cursor.fetchall()]


def lock_jobs(cursor: Cursor, jobs: Sequence[int]) -> list[Contested]:
    """Lock the schedules of ``jobs`` that nobody else holds, and say what these jobs have at the moment."""
    cursor.execute(_LOCK_SCHEDULES, (list(jobs),))
    locked = [row[0] for row in cursor.fetchall()]
    if not locked:
        return []
    cursor.execute(_OCCUPANCIES, (locked,))
    occupancies = {job: Occupancy(*seen) for job, *seen in cursor.fetchall()}
    cursor.execute(_POLICIES, (locked,))
    return [
        Contested(job, policy, occupancies.get(job, FREE), limited)
        for job, policy, limited in cursor.fetchall()
    ]


def queue(cursor: Cursor, ids: Sequence[int]) -> None:
    """Locked executions → queued."""
    cursor.execute(_QUEUE, (list(ids),))


def block(cursor: Cursor, ids: Sequence[int]) -> None:
    """Locked pending executions → blocked."""
    cursor.execute(_BLOCK, (list(ids),))


def let_go(cursor: Cursor, jobs: Sequence[int]) -> set[int]:
    """Blocked executions of ``jobs``, which are free, → pending. Returns the jobs that had one.

    The caller holds the locks of these jobs' schedules.
    """
    cursor.execute(_LET_GO, (list(jobs),))
    return {row[0] for row in cursor.fetchall()}


def push_aside(cursor: Cursor, execution: int, seconds: float) -> None:
    """Put a locked execution that Postgres refuses to move ``seconds`` ahead, so that it stops nobody."""
    cursor.execute(_PUSH_ASIDE, (seconds, execution))


def skip(cursor: Cursor, reasons: Sequence[tuple[int, str]]) -> None:
    """Locked pending executions → history, skipped for the overlap policy; each with its reason in words."""
    rows = [{"id": execution, "message": message} for execution, message in reasons]
    cursor.execute(_SKIP, (json.dumps(rows),))

"""Waiting executions → history, cancelled: one statement, fenced by state.

One that a worker claims meanwhile is no longer waiting and is left to run.
"""

from peewee import Database

from jobsched.db.claims import HISTORY_COLUMNS, UNBLOCK
from jobsched.domain.states import WAITING

_WAITING = ", ".join(f"'{state}'" for state in WAITING)

# The attempts of a waiting execution have all ended and stand in attempts; started_at NULL says so to readers.
_CANCEL = f"""
WITH chosen AS MATERIALIZED (
    SELECT id FROM execution WHERE {{which}} AND state IN ({_WAITING}) ORDER BY id FOR UPDATE
), gone AS (
    DELETE FROM execution e USING chosen WHERE e.id = chosen.id AND e.state IN ({_WAITING})
    RETURNING e.*, clock_timestamp() AS finished_at
), history AS (
    INSERT INTO execution_history ({HISTORY_COLUMNS})
    SELECT g.id, g.project_id, g.job_id, g.trigger, g.scheduled_for, g.due_at, g.queued_at, NULL, g.finished_at,
        'cancelled', g.attempt, g.retry_count, j.max_retry_count, NULL, g.attempts -> -1 ->> 'worker',
        (g.attempts -> -1 ->> 'responseStatus')::int, NULL, NULL, false, 'cancelled', %(why)s, NULL, g.attempts,
        g.job_version, g.redrive_of
    FROM gone g JOIN job j ON j.id = g.job_id
), last AS (
    INSERT INTO job_last (job_id, last_execution_time, last_state)
    SELECT DISTINCT ON (job_id) job_id, finished_at, 'cancelled' FROM gone ORDER BY job_id, finished_at DESC
    ON CONFLICT (job_id) DO UPDATE SET
        last_execution_time = excluded.last_execution_time, last_state = excluded.last_state
    WHERE job_last.last_execution_time <= excluded.last_execution_time OR job_last.last_state = 'skipped'
), {UNBLOCK}
SELECT id FROM gone
"""

_ONE = _CANCEL.format(which="id = %(id)s AND project_id = %(project)s")
_OF_JOB = _CANCEL.format(which="job_id = %(job)s")


def cancel_waiting(database: Database, project_id: int, execution_id: int) -> bool:
    """Cancel one execution, if it waits. Whether it did."""
    parameters = {"id": execution_id, "project": project_id, "why": "Cancelled on request."}
    return bool(database.execute_sql(_ONE, parameters).fetchall())


def cancel_waiting_of_job(database: Database, job_id: int) -> int:
    """Cancel all that waits of a job which is being deleted. Returns how many."""
    parameters = {"job": job_id, "why": "The job was deleted."}
    return len(database.execute_sql(_OF_JOB, parameters).fetchall())

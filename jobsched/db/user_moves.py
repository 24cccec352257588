"""What a user does to executions: run now, cancel, retry, redrive, discard.

Each is one statement with its condition inside, so that calls at the same time, and pollers and workers beside
them, never do a thing twice. Where a statement finds nothing because the execution has just moved on, it is
tried again on what the execution has become.

New executions share-lock their job's row: a delete, which comes after the lock on ``job_schedule`` to the same
row, either sees them and cancels them or makes them impossible. They are inserted ``pending``, due now; the
poller hands them to the workers, so that the mark of the queue and the overlap policy are looked at in one place.
"""

from dataclasses import dataclass
from typing import Any

from peewee import Database

from jobsched.db.cancelling import cancel_waiting
from jobsched.db.connection import Row, converted, repeated
from jobsched.db.dead_letters import conditions
from jobsched.db.executions import ExecutionRecord, Executions
from jobsched.domain.json_text import compact
from jobsched.domain.queues import HIGH_FROM, LOW_UP_TO
from jobsched.domain.requests import JOBS_PAYLOAD, RedriveRequest, Selector
from jobsched.errors import Conflict, NotFound

_LARGEST_ID = 2**63 - 1
# How often an execution may move on between our statements before we give up.
_TRIES = 5
#: Seconds that a statement over many dead letters may take.
_LONG = 120.0

# jobsched.domain.queues.queue_name in SQL; a test compares the two.
QUEUE_OF_JOB = (
    f"j.pool || CASE WHEN j.priority >= {HIGH_FROM} THEN '.high' "
    f"WHEN j.priority <= {LOW_UP_TO} THEN '.low' ELSE '' END"
)
_LIVE_JOB = (
    "SELECT id, project_id, pool, priority FROM job WHERE deleted_at IS NULL AND project_id = %(project)s"
)
_NOW = "(SELECT date_trunc('milliseconds', clock_timestamp()) AS now OFFSET 0) AS t"

_RUN_NOW = f"""
WITH j AS ({_LIVE_JOB} AND id = %(job)s FOR SHARE)
INSERT INTO execution
    (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue, force, payload)
SELECT j.project_id, j.id, 'manual', t.now, t.now, 'pending', j.priority, j.pool, {QUEUE_OF_JOB}, %(force)s,
    %(payload)s::json
FROM j, {_NOW}
RETURNING id
"""

_FLAG_RUNNING = """
UPDATE execution SET cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp())
WHERE id = %(id)s AND project_id = %(project)s AND state = 'running' RETURNING id
"""

# A retrying execution stays retrying, so that it goes on to occupy its job under an overlap policy.
_DUE_NOW = """
UPDATE execution SET due_at = LEAST(due_at, clock_timestamp())
WHERE id = %(id)s AND project_id = %(project)s AND state IN ('pending', 'retrying') RETURNING id
"""

# In a statement of its own, so that the next one sees what whoever had the lock has done: else of two retries at once
# both would read the dead letter that only one of them can take.
_LOCK_DEAD = "SELECT 1 FROM dead_letter WHERE id = %(id)s AND project_id = %(project)s FOR UPDATE"

_AGAIN = f"""
WITH old AS (
    SELECT job_id, scheduled_for FROM execution_history WHERE id = %(id)s AND project_id = %(project)s
    UNION ALL
    SELECT job_id, scheduled_for FROM dead_letter WHERE id = %(id)s AND project_id = %(project)s
    LIMIT 1
), j AS ({_LIVE_JOB} AND id = (SELECT job_id FROM old) FOR SHARE), dead AS (
    DELETE FROM dead_letter WHERE id = %(id)s AND project_id = %(project)s AND EXISTS (SELECT FROM j)
    RETURNING COALESCE(payload, 'null'::json) AS payload
)
INSERT INTO execution
    (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue, payload, redrive_of)
SELECT j.project_id, j.id, 'redrive', old.scheduled_for, t.now, 'pending', j.priority, j.pool, {QUEUE_OF_JOB},
    (SELECT payload FROM dead), %(id)s
FROM j, old, {_NOW}
RETURNING id
"""

_REDRIVE = f"""
WITH chosen AS MATERIALIZED (
    SELECT d.id, j.priority, j.pool, {QUEUE_OF_JOB} AS queue
    FROM dead_letter d JOIN job j ON j.id = d.job_id AND j.deleted_at IS NULL
    WHERE {{which}} ORDER BY d.id FOR UPDATE OF d FOR SHARE OF j
), gone AS (
    DELETE FROM dead_letter d USING chosen c WHERE d.id = c.id
    RETURNING d.id, d.project_id, d.job_id, d.scheduled_for, COALESCE(d.payload, 'null'::json) AS payload,
        c.priority, c.pool, c.queue
), made AS (
    INSERT INTO redrive (project_id, matched) SELECT %(project)s, count(*) FROM gone RETURNING id, matched
), inserted AS (
    INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue,
        payload, redrive_of, redrive_id)
    SELECT g.project_id, g.job_id, 'redrive', g.scheduled_for,
        t.now + make_interval(secs => %(step)s * (row_number() OVER (ORDER BY g.id) - 1)),
        'pending', g.priority, g.pool, g.queue,
        CASE WHEN %(with_payload)s THEN %(payload)s::json ELSE g.payload END, g.id, made.id
    FROM gone g, made, {_NOW}
)
SELECT id, matched FROM made
"""

# In order of ids, as a redrive locks them: the two never deadlock.
_DISCARD = """
WITH chosen AS MATERIALIZED (SELECT d.id FROM dead_letter d WHERE {which} ORDER BY d.id FOR UPDATE),
gone AS (DELETE FROM dead_letter d USING chosen c WHERE d.id = c.id RETURNING 1)
SELECT count(*) FROM gone
"""

_PROGRESS = """
SELECT r.id, r.matched, r.failed, (SELECT count(*) FROM execution e WHERE e.redrive_id = r.id)
FROM redrive r WHERE r.id = %(id)s AND r.project_id = %(project)s
"""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """``pending``: the execution was running; its worker aborts the call soon (answer 202, else 200)."""

    execution: ExecutionRecord
    pending: bool


@dataclass(frozen=True, slots=True)
class Redriven:
    """A redrive that was written; ``matched`` dead letters became executions."""

    id: int
    matched: int


@dataclass(frozen=True, slots=True)
class RedriveProgress:
    """``done`` executions are over, ``failed`` of them failed for good again; ``state``: running or finished."""

    id: int
    matched: int
    done: int
    failed: int
    state: str


class UserMoves:
    """The moves, in transactions of their own or inside the caller's.

    Every call that returns an ExecutionRecord or a Redriven wrote something due: NOTIFY after the commit.
    Besides what they name they raise the database's errors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._executions = Executions(database)

    @repeated
    def run_now(
        self, project_id: int, job_id: int, *, payload: Any = JOBS_PAYLOAD, force: bool = False
    ) -> ExecutionRecord:
        """A manual execution, due now; of a paused job too. Raises NotFound."""
        with converted(), self._database.atomic():
            parameters = {
                "project": project_id,
                "job": job_id,
                "force": force,
                "payload": None if payload is JOBS_PAYLOAD else compact(payload),
            }
            made = self._rows(_RUN_NOW, parameters) if 0 < job_id <= _LARGEST_ID else []
            if not made:
                raise NotFound(f"There is no job {job_id}.")
            return self._executions.get(project_id, made[0][0])

    @repeated
    def cancel(self, project_id: int, execution_id: int) -> Cancelled:
        """Cancel what waits, ask for the end of what runs. Raises NotFound, Conflict (it is over)."""
        with converted(), self._database.atomic():
            for _ in range(_TRIES):
                before = self._executions.get(project_id, execution_id)
                if before.finished_at is not None:
                    raise Conflict(f"Execution {execution_id} is over: it {_ENDED[before.state]}.")
                if cancel_waiting(self._database, project_id, execution_id):
                    return Cancelled(self._executions.get(project_id, execution_id), pending=False)
                if self._rows(_FLAG_RUNNING, {"project": project_id, "id": execution_id}):
                    return Cancelled(self._executions.get(project_id, execution_id), pending=True)
            raise Conflict(f"Execution {execution_id} changes its state all the time; try again.")

    @repeated
    def retry(self, project_id: int, execution_id: int) -> ExecutionRecord:
        """Run it now: the same execution if it waits for its time, a redrive of it if it is over.

        Raises NotFound, Conflict (it is queued, running or blocked; or its job was deleted).
        """
        if not 0 < execution_id <= _LARGEST_ID:
            raise NotFound(f"There is no execution {execution_id}.")
        parameters = {"project": project_id, "id": execution_id}
        with converted(), self._database.atomic():
            for _ in range(_TRIES):
                if self._rows(_DUE_NOW, parameters):
                    return self._executions.get(project_id, execution_id)
                self._rows(_LOCK_DEAD, parameters)
                if made := self._rows(_AGAIN, parameters):
                    return self._executions.get(project_id, made[0][0])
                present = self._executions.get(project_id, execution_id)
                if present.finished_at is not None and self._job_is_deleted(present.job_id):
                    raise Conflict(f"The job of execution {execution_id} was deleted.")
                if present.state in ("queued", "running", "blocked"):
                    raise Conflict(f"Execution {execution_id} is {present.state} already.")
            raise Conflict(f"Execution {execution_id} changes its state all the time; try again.")

    @repeated
    def redrive(self, project_id: int, request: RedriveRequest) -> Redriven:
        """Turn dead letters into executions of the jobs as they are now, in order of their ids.

        Those of deleted jobs stay. Raises Conflict if ids were given and all that exist are of deleted jobs.
        """
        which, parameters = conditions(project_id, request.selector)
        given = request.payload is not JOBS_PAYLOAD
        parameters |= {
            "step": 1 / request.rate_per_second if request.rate_per_second else 0.0,
            "with_payload": given,
            "payload": compact(request.payload) if given else None,
        }
        with converted(), self._database.atomic():
            self._database.connection().extend(_LONG)
            redriven = Redriven(*self._rows(_REDRIVE.format(which=which), parameters)[0])
            if redriven.matched == 0 and request.selector.ids is not None:
                left = f"SELECT count(*) FROM dead_letter d WHERE {which}"
                if self._rows(left, parameters)[0][0]:
                    raise Conflict("The job of every one of these dead letters was deleted.")
        return redriven

    def redrive_progress(self, project_id: int, redrive_id: int) -> RedriveProgress:
        """How far a redrive is. Raises NotFound."""
        rows: list[Row] = []
        if 0 < redrive_id <= _LARGEST_ID:
            with converted():
                rows = self._rows(_PROGRESS, {"project": project_id, "id": redrive_id})
        if not rows:
            raise NotFound(f"There is no redrive {redrive_id}.")
        identity, matched, failed, live = rows[0]
        state = "running" if live else "finished"
        return RedriveProgress(identity, matched, matched - live, failed, state)

    @repeated
    def discard(self, project_id: int, selector: Selector) -> int:
        """Delete dead letters for good. Returns how many."""
        which, parameters = conditions(project_id, selector)
        with converted(), self._database.atomic():
            self._database.connection().extend(_LONG)
            statement = _DISCARD.format(which=which)
            count: int = self._rows(statement, parameters)[0][0]
        return count

    def _job_is_deleted(self, job_id: int) -> bool:
        return not self._rows("SELECT 1 FROM job WHERE id = %s AND deleted_at IS NULL", (job_id,))

    def _rows(self, statement: str, parameters: Any) -> list[Row]:
        rows: list[Row] = self._database.execute_sql(statement, parameters).fetchall()
        return rows


_ENDED = {
    "succeeded": "has succeeded",
    "failed": "has failed",
    "cancelled": "was cancelled",
    "skipped": "was skipped",
}

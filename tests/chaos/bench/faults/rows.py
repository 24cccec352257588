"""Rows that no code of ours could have made: the others must go on."""

from typing import Any

import psycopg

from tests.chaos.bench.faults.base import Effect, Fault, Scene

#: Nobody listens there: should one of these be sent, it reaches no target that keeps an account.
_NOWHERE = "http://127.0.0.1:9/poisoned"

#: What is wrong with a job that is due. The first of each is refused by Python, the second by Postgres.
_SCHEDULES = (
    "UPDATE job SET schedule = '' WHERE id = %s",
    "UPDATE job SET schedule = '61 25 32 13 *' WHERE id = %s",
    "UPDATE job SET timezone = 'Mars/Base' WHERE id = %s",
    "UPDATE job_schedule SET runs = 2147483647 WHERE job_id = %s",
    "UPDATE job_schedule SET next_slot = 'infinity' WHERE job_id = %s",
    "UPDATE job SET misfire_grace_seconds = 'NaN' WHERE id = %s",
    "UPDATE job SET jitter_seconds = 'Infinity' WHERE id = %s",
)
#: What is wrong with an execution that is due, or with its job.
_EXECUTIONS = (
    "UPDATE job SET headers = '[1]' WHERE id = %s",
    "UPDATE job SET timeout_seconds = 'NaN' WHERE id = %s",
    "UPDATE job SET success_status = '{2xx}' WHERE id = %s",
    "UPDATE job SET api = 'gopher://\\nnowhere' WHERE id = %s",
    "UPDATE execution SET scheduled_for = '0044-03-15 BC' WHERE job_id = %s",
    "UPDATE execution SET retry_count = 2147483647, attempt = 2147483647 WHERE job_id = %s",
)
_JOB = (
    "INSERT INTO job (project_id, schedule, api, is_recurring) VALUES (1, '@every 1h', %s, true) RETURNING id"
)
_SCHEDULE = (
    "INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor) "
    "VALUES (%s, clock_timestamp(), clock_timestamp(), clock_timestamp() - interval '10 minutes')"
)
_EXECUTION = (
    "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
    "VALUES (1, %s, 'manual', clock_timestamp(), clock_timestamp(), 'pending', 5, 'default', 'default')"
)
_OF_JOB = ("dead_letter", "execution_history", "execution", "job_last", "job_schedule")
_NOTICED = (
    "schedule_set_aside",
    "execution_set_aside",
    "batch_refused",
    "claim_refused",
    "request_not_built",
    "schedule_unreadable",
)


class RowsPoisoned(Fault):
    """Two jobs with corrupt schedules, two executions with corrupt data, all of them due."""

    kind, parts, lasts = "rows_poisoned", ("rows",), 14.0

    def hit(self, scene: Scene) -> Effect:
        jobs: list[int] = []
        damages = scene.chance.sample(_SCHEDULES, 2), scene.chance.sample(_EXECUTIONS, 2)
        try:
            _patiently(scene, lambda connection: _insert(scene, connection, jobs, *damages))
            noticed = scene.until(lambda: _concern(scene, jobs) == len(jobs), 8.0)
            scene.cluster.pause(2.0)
        finally:
            # What of theirs runs, ends first: a row that goes under its worker would look fenced.
            _patiently(scene, lambda connection: _remove(connection, jobs, keep_running=True))
            scene.until(lambda: scene.cluster.ask(_RUNNING, (jobs,)) == [(0,)], 10.0)
            _patiently(scene, lambda connection: _remove(connection, jobs))
        said = "; ".join(
            damage.partition(" SET ")[2].partition(" WHERE")[0] for each in damages for damage in each
        )
        return Effect(noticed, f"jobs {jobs} with {said}: {scene.count(*_NOTICED)}")


_RUNNING = "SELECT count(*) FROM execution WHERE job_id = ANY(%s) AND state = 'running'"


def _insert(
    scene: Scene,
    connection: "psycopg.Connection[Any]",
    jobs: list[int],
    schedules: list[str],
    executions: list[str],
) -> None:
    """Adds the new ids to ``jobs``, those of a try included that failed: its commit may have come through."""
    with connection.transaction():
        for damage in [*schedules, *executions]:
            row = connection.execute(_JOB, (_NOWHERE,)).fetchone()
            assert row is not None
            jobs.append(int(row[0]))
            # Before anybody can see them: who counts live executions must know them.
            scene.cluster.poisoned.add(jobs[-1])
            connection.execute(_SCHEDULE if damage in schedules else _EXECUTION, (jobs[-1],))
            connection.execute(damage, (jobs[-1],))


def _remove(connection: "psycopg.Connection[Any]", jobs: list[int], *, keep_running: bool = False) -> None:
    with connection.transaction():
        if keep_running:
            connection.execute("DELETE FROM execution WHERE job_id = ANY(%s) AND state <> 'running'", (jobs,))
            connection.execute("UPDATE job SET max_retry_count = 0 WHERE id = ANY(%s)", (jobs,))
            return
        for table in _OF_JOB:
            connection.execute(f"DELETE FROM {table} WHERE job_id = ANY(%s)", (jobs,))
        connection.execute("DELETE FROM job WHERE id = ANY(%s)", (jobs,))


def _concern(scene: Scene, jobs: list[int]) -> int:
    """How many of these jobs somebody has met: their schedules pushed aside, their executions ended or moved."""
    rows = scene.cluster.ask(
        "SELECT count(DISTINCT job_id) FROM ("
        "SELECT job_id FROM job_schedule WHERE fault IS NOT NULL OR next_execution_time > clock_timestamp() "
        "UNION ALL SELECT job_id FROM execution_history UNION ALL "
        "SELECT job_id FROM execution WHERE state <> 'pending' OR due_at > clock_timestamp()) AS met "
        "WHERE job_id = ANY(%s)",
        (jobs,),
    )
    return int(rows[0][0]) if rows else 0


def _patiently(scene: Scene, act: Any) -> None:
    """Do it in a session, again while Postgres is not there for it."""
    failures: list[str] = []

    def done() -> bool:
        try:
            with scene.cluster.connect(name="rows", timeout=4) as connection:
                act(connection)
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            failures.append(str(error))
            return False
        return True

    assert scene.until(done, 60.0, every=0.2), f"Postgres does not let me: {failures[-1]}"

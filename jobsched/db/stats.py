"""Figures for /queue/stats and /ready, all from Postgres.

Time stamps are good enough here: these are figures for people. Who is dead is decided elsewhere, by watching
beats; a process that nobody watches any more is left out once it has been silent for SILENT_SECONDS.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import Database

from jobsched.db.connection import Row, converted
from jobsched.domain.queues import pool_of

SILENT_SECONDS = 30

_QUEUES = """
SELECT queue, sum(queued)::bigint, sum(running)::bigint, sum(pending)::bigint, sum(retrying)::bigint,
    sum(dead)::bigint, GREATEST(extract(epoch FROM clock_timestamp() - min(oldest)), 0)::float8
FROM (
    SELECT queue, count(*) FILTER (WHERE state = 'queued') AS queued,
        count(*) FILTER (WHERE state = 'running') AS running,
        count(*) FILTER (WHERE state IN ('pending', 'blocked')) AS pending,
        count(*) FILTER (WHERE state = 'retrying') AS retrying, 0 AS dead,
        min(due_at) FILTER (WHERE state IN ('pending', 'queued', 'retrying') AND due_at <= now()) AS oldest
    FROM execution WHERE %(project)s::bigint IS NULL OR project_id = %(project)s GROUP BY queue
    UNION ALL
    SELECT queue, 0, 0, 0, 0, count(*), NULL FROM dead_letter
    WHERE %(project)s::bigint IS NULL OR project_id = %(project)s GROUP BY queue
) AS q
GROUP BY queue ORDER BY queue
"""

_ALIVE = "state = 'alive' AND heartbeat_at > clock_timestamp() - make_interval(secs => %(silent)s)"

_WORKERS = f"""
SELECT name, host, pid, pools, concurrency, in_flight, started_at, heartbeat_at
FROM worker_process WHERE kind = 'worker' AND {_ALIVE} ORDER BY name, started_at
"""

# A schedule that is overdue right now tells more than what pollers last said, and also where there is none.
_POLLER = f"""
SELECT count(*), max(lag_seconds), (
    SELECT extract(epoch FROM clock_timestamp() - min(next_execution_time))::float8
    FROM job_schedule WHERE next_execution_time <= clock_timestamp()
)
FROM worker_process WHERE kind = 'poller' AND {_ALIVE}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """Counts of one queue; what is blocked counts as pending.

    ``oldest_wait_seconds``: since the oldest due execution that is not running was due; 0 where none waits.
    """

    name: str
    pool: str
    queued: int
    running: int
    pending: int
    retrying: int
    dead: int
    oldest_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One live worker process."""

    name: str
    host: str
    pid: int
    pools: list[str]
    concurrency: int
    in_flight: int
    started_at: datetime
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True)
class PollerStats:
    """``alive`` pollers, and by how many seconds firing is late: what they measured, or what is overdue now.

    ``lag_seconds`` is None where neither is known.
    """

    alive: int
    lag_seconds: float | None


class Stats:
    """Figures from ``database``. Raises the database's errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queues(self, project_id: int | None = None) -> list[QueueStats]:
        """Every queue with something in it, by name; of one project, or of all."""
        return [
            QueueStats(
                name=name,
                pool=pool_of(name),
                queued=queued,
                running=running,
                pending=pending,
                retrying=retrying,
                dead=dead,
                oldest_wait_seconds=oldest or 0.0,
            )
            for name, queued, running, pending, retrying, dead, oldest in self._rows(
                _QUEUES, {"project": project_id}
            )
        ]

    def workers(self) -> list[WorkerStats]:
        """The workers that are alive, by name."""
        names = tuple(WorkerStats.__dataclass_fields__)
        rows = self._rows(_WORKERS, {"silent": SILENT_SECONDS})
        return [WorkerStats(**dict(zip(names, row, strict=True))) for row in rows]

    def poller(self) -> PollerStats:
        """Whether pollers are alive, and how late they are."""
        alive, said, overdue = self._rows(_POLLER, {"silent": SILENT_SECONDS})[0]
        known = [lag for lag in (said, overdue) if lag is not None]
        return PollerStats(alive, max(known) if known else None)

    def _rows(self, statement: str, parameters: dict[str, Any]) -> list[Row]:
        with converted():
            rows: list[Row] = self._database.execute_sql(statement, parameters).fetchall()
        return rows

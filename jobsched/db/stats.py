"""Figures for /queue/stats, /metrics and /ready, all from Postgres.

Time stamps are good enough here: these are figures for people. Who is dead is decided elsewhere, by watching
beats; a process that nobody watches any more is left out once it has been silent for SILENT_SECONDS.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from peewee import Database

from jobsched import clock
from jobsched.db.connection import Row, converted
from jobsched.domain.queues import pool_of

SILENT_SECONDS = 30

#: How long the counts of all rows are shown again.
KEPT_SECONDS = 10.0

#: Up to so many rows are counted for each answer of ``queues``: that takes a millisecond.
COUNTED_ANEW = 10_000

T = TypeVar("T")

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
# statement_timestamp(), as in firing.py: by a volatile function all that is due in the future would be read.
_POLLER = f"""
SELECT count(*), max(lag_seconds), (
    SELECT extract(epoch FROM clock_timestamp() - min(next_execution_time))::float8
    FROM job_schedule WHERE next_execution_time <= statement_timestamp()
)
FROM worker_process WHERE kind = 'poller' AND {_ALIVE}
"""

_EXECUTIONS = """
SELECT queue, state, count(*), GREATEST(COALESCE(extract(epoch FROM clock_timestamp() - min(due_at)
    FILTER (WHERE state IN ('pending', 'queued', 'retrying') AND due_at <= now() AND isfinite(due_at))), 0), 0)::float8
FROM execution GROUP BY queue, state ORDER BY queue, state
"""

_DEAD_LETTERS = """
SELECT queue, COALESCE(error_code, 'none'), count(*) FROM dead_letter GROUP BY 1, 2 ORDER BY 1, 2
"""

# By their names, which retention.name_of gives them. Each is looked at once: not those of all tables and indexes, nor
# each of ours again for every day.
_COVERED = """
WITH name AS MATERIALIZED (
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'execution_history'::regclass
), part AS MATERIALIZED (
    SELECT to_date(split_part(relname, '_', 3), 'YYYYMMDD') AS first_day,
        to_date(split_part(relname, '_', 4), 'YYYYMMDD') AS end_day
    FROM name WHERE relname ~ '^execution_history_[0-9]{8}_[0-9]{8}$'
)
SELECT GREATEST(extract(epoch FROM min(day) AT TIME ZONE 'UTC' - clock_timestamp()), 0)::float8
FROM generate_series((now() AT TIME ZONE 'UTC')::date, now() AT TIME ZONE 'UTC' + interval '60 days', '1 day') AS day
WHERE NOT EXISTS (SELECT FROM part WHERE day >= first_day AND day < end_day)
"""

# GREATEST(NULL, 0) is 0: nothing is overdue, no transaction is open.
# Of other users' sessions xact_start is null, unless we are a member of pg_monitor.
_VITALS = """
SELECT extract(epoch FROM clock_timestamp())::float8,
    (SELECT GREATEST(extract(epoch FROM clock_timestamp() - min(next_execution_time)), 0)::float8
        FROM job_schedule WHERE isfinite(next_execution_time)),
    (SELECT extract(epoch FROM clock_timestamp() - max(heartbeat_at))::float8
        FROM worker_process WHERE kind = 'poller'),
    (SELECT GREATEST(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()),
    EXISTS (SELECT FROM execution_history_default)
"""

# Each file is asked for its size, and the catalogue for all its names: a month's partitions have hundreds.
_EXTENT = f"SELECT pg_database_size(current_database()), ({_COVERED})"


@dataclass(frozen=True, slots=True)
class Depth:
    """How many live executions of a queue are in a state, and for how long the oldest that is due has waited."""

    queue: str
    state: str
    count: int
    oldest_due_seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many dead letters of a queue have an error code."""

    queue: str
    error_code: str
    count: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """What an operator is woken by."""

    clock: float
    """The database's, in Unix time."""
    schedules_oldest_due_seconds: float
    poller_heartbeat_age_seconds: float | None
    """None where no poller is known, not even a dead one."""
    oldest_transaction_seconds: float
    """Of those in our database that we may see; 0 where there is none."""
    history_in_default: bool
    """History fell into the default partition."""
    size_bytes: int
    history_covered_seconds: float
    """From now to the first day without a partition of the history."""


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

    ``lag_seconds`` is None where neither is known; ``overdue_seconds``: how long the longest has been due, 0 if none.
    """

    alive: int
    lag_seconds: float | None
    overdue_seconds: float = 0.0


class _Kept(Generic[T]):
    """The answer of ``ask`` for ``KEPT_SECONDS``. One thread at a time asks; meanwhile others get the last answer.

    An answer that is not ``dear`` is not kept: who asks next asks anew, and waits for nobody.
    """

    def __init__(self, ask: Callable[[], T], dear: Callable[[T], bool] | None = None) -> None:
        self._ask = ask
        self._dear = dear
        self._asking = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self) -> T:
        last = self._last
        if last is not None and clock.monotonic() - last[0] < KEPT_SECONDS:
            return last[1]
        if last is None and self._dear is not None:
            return self._keep(self._ask())
        if not self._asking.acquire(blocking=last is None):
            assert last is not None
            return last[1]
        try:
            present = self._last
            return self._keep(self._ask()) if present is None or present is last else present[1]
        finally:
            self._asking.release()

    def _keep(self, answer: T) -> T:
        dear = self._dear is None or self._dear(answer)
        self._last = (clock.monotonic(), answer) if dear else None
        return answer


class Stats:
    """Figures from ``database``. Raises the database's errors.

    Those that look at all there is are kept for ``KEPT_SECONDS``: dead letters stay for ever, and no scrape is
    to read a million of them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._depths = _Kept(lambda: [Depth(*row) for row in self._rows(_EXECUTIONS, {})])
        self._dead_letters = _Kept(lambda: [DeadLetters(*row) for row in self._rows(_DEAD_LETTERS, {})])
        self._extent = _Kept(lambda: self._rows(_EXTENT, {})[0])
        self._queues: dict[int | None, _Kept[list[QueueStats]]] = {}

    def queues(self, project_id: int | None = None) -> list[QueueStats]:
        """Every queue with something in it, by name; of one project, or of all.

        Up to ``KEPT_SECONDS`` old where more than ``COUNTED_ANEW`` rows are counted.
        """
        kept = self._queues.get(project_id)
        if kept is None:
            kept = self._queues.setdefault(project_id, _Kept(lambda: self._count(project_id), _is_dear))
        return kept.get()

    def _count(self, project_id: int | None) -> list[QueueStats]:
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
        return PollerStats(alive, max(known) if known else None, overdue or 0.0)

    def depths(self) -> list[Depth]:
        """What is live in each queue, by state, of all projects; up to ``KEPT_SECONDS`` old."""
        return self._depths.get()

    def dead_letters(self) -> list[DeadLetters]:
        """What is dead in each queue, by error code, of all projects; up to ``KEPT_SECONDS`` old."""
        return self._dead_letters.get()

    def vitals(self) -> Vitals:
        """How the database and the pollers are; its size and the days covered up to ``KEPT_SECONDS`` old."""
        return Vitals(*self._rows(_VITALS, {})[0], *self._extent.get())

    def _rows(self, statement: str, parameters: dict[str, Any]) -> list[Row]:
        with converted():
            rows: list[Row] = self._database.execute_sql(statement, parameters).fetchall()
        return rows


def _is_dear(queues: list[QueueStats]) -> bool:
    counted = sum(one.queued + one.running + one.pending + one.retrying + one.dead for one in queues)
    return counted > COUNTED_ANEW

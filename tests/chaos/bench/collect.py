"""Reads the three records once all is over: Postgres, the target's log, and what is left in both servers."""

import json
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from jobsched.queue import rq_keys
from jobsched.testing.stand import Stand
from tests.chaos.bench.account_rows import DeadLetter, JobRow
from tests.chaos.bench.records import Arrival, Leaks, Stored

if TYPE_CHECKING:
    from tests.chaos.bench.cluster import Cluster
    from tests.chaos.bench.load import Load

#: Seconds within which what passes by itself has passed: pollers redraw RQ's picture once a minute.
_PATIENCE = 75.0

_UNLISTED = "hashes of jobs in no list of RQ"

#: Connections to Postgres that a process may hold, docs/operations.md: a poller one more once much was due at a time.
_SESSIONS = {"worker": 4, "poller": 6}

_LIVE = """
SELECT e.id, e.job_id, e.trigger, e.state, e.scheduled_for, e.due_at, e.started_at, NULL::timestamptz, e.attempt,
    e.retry_count, w.name, NULL, e.attempts, NULL::int, e.redrive_of, NULL::int
FROM execution e LEFT JOIN worker_process w ON w.id = e.worker_id
"""
_HISTORY = """
SELECT id, job_id, trigger, state, scheduled_for, due_at, started_at, finished_at, attempt, retry_count, worker,
    error_code, attempts, skipped_count, redrive_of, response_status
FROM execution_history
"""
_JOBS = """
SELECT j.id, j.name, j.version, j.created_at, j.deleted_at, s.next_execution_time, s.fault, j.schedule, j.api,
    j.payload, j.headers, j.max_retry_count, j.is_active
FROM job j JOIN job_schedule s ON s.job_id = j.id
"""
_API_NAMES = ("schedule", "api", "payload", "headers", "maxRetryCount", "isActive")

_SESSIONS_BY_KIND = """
SELECT CASE WHEN application_name LIKE 'jobsched-worker%' THEN 'worker'
            WHEN application_name LIKE 'jobsched-poller%' THEN 'poller'
            WHEN application_name LIKE 'jobsched-api%' THEN 'api' ELSE 'other' END, count(*)
FROM pg_stat_activity WHERE application_name LIKE 'jobsched-%' AND application_name <> 'jobsched-stand' GROUP BY 1
"""
_IN_TRANSACTION = """
SELECT count(*) FROM pg_stat_activity
WHERE state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '2 seconds'
"""
#: What is live, and what will be within seconds: jobs that users made last have their slots after the load.
_TO_COME = """
SELECT (SELECT count(*) FROM execution) + (
    SELECT count(*) FROM job_schedule
    WHERE next_execution_time < clock_timestamp() + interval '10 seconds' AND job_id <> ALL (%s::bigint[]))
"""
_ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
_ALIVE = "SELECT kind, count(*) FROM worker_process WHERE state = 'alive' GROUP BY 1"


def everything(cluster: "Cluster", load: "Load") -> dict[str, Any]:
    """All that the accountant is told beside the strikes, as keyword arguments for ``account``."""
    stand = cluster.stand
    left = leaks(
        stand,
        apis=len(cluster.slots("api")),
        pollers=len(cluster.slots("poller")),
        workers=len(cluster.slots("worker")),
    )
    rows = stored(stand)
    return {
        "calls": load.calls,
        "stored": rows,
        "arrivals": arrivals(cluster.target_log),
        "leaks": left,
        "dead_letters": dead_letters(stand),
        "schedules": schedules(stand),
        "poisoned": frozenset(cluster.poisoned),
        "ended": time.time(),
    }


def is_over(stand: Stand, poisoned: Iterable[int] = ()) -> bool:
    """Whether nothing is live and nothing will fire soon: the records are read one after the other, and must agree.

    Jobs that a fault has ``poisoned`` may be due for ever.
    """
    return stand.query(_TO_COME, (sorted(poisoned),)) == [(0,)]


def stored(stand: Stand) -> list[Stored]:
    """Every execution, live and finished, read in one snapshot."""
    return [_stored(row) for row in stand.query(f"{_LIVE} UNION ALL {_HISTORY} ORDER BY 1")]


def _stored(row: tuple[Any, ...]) -> Stored:
    (id, job, trigger, state, slot, due, started, finished, attempt, retries, worker, code, attempts, skipped, of,
     status) = row  # fmt: skip
    if finished is not None and started is not None:
        # The attempt that ended an execution stands in the columns of its row.
        attempts = [
            *attempts,
            {
                "attempt": attempt,
                "startedAt": started.isoformat(),
                "finishedAt": finished.isoformat(),
                "responseStatus": status,
                "errorCode": code,
                "worker": worker,
            },
        ]
    return Stored(
        id, job, trigger, state, slot.timestamp(), _unix(due), _unix(started), _unix(finished), attempt, retries,
        worker, code, tuple(attempts), skipped, of,
    )  # fmt: skip


def schedules(stand: Stand) -> list[JobRow]:
    """Every job with its schedule row, deleted ones included."""
    return [
        JobRow(
            id,
            name,
            version,
            created.timestamp(),
            _unix(deleted),
            _unix(following),
            fault,
            dict(zip(_API_NAMES, fields, strict=True)),
        )
        for id, name, version, created, deleted, following, fault, *fields in stand.query(_JOBS)
    ]


def dead_letters(stand: Stand) -> list[DeadLetter]:
    """Every dead letter."""
    return [DeadLetter(*row) for row in stand.query("SELECT id, job_id, error_code FROM dead_letter")]


def arrivals(log: Path) -> list[Arrival]:
    """The callbacks in a target's log; a last line that was not written whole is left out."""
    found = []
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break
            request = json.loads(line)
            headers = request["headers"]
            if "jobsched-execution-id" not in headers:
                continue
            found.append(
                Arrival(
                    request["t"],
                    int(headers["jobsched-execution-id"]),
                    int(headers["jobsched-attempt"]),
                    int(headers["jobsched-job-id"]),
                    headers["webhook-id"],
                    headers["jobsched-scheduled-for"],
                    headers["jobsched-trigger"],
                    request["path"],
                )
            )
    return found


def leaks(stand: Stand, *, apis: int, pollers: int, workers: int) -> Leaks:
    """What is left of work that is over, while so many processes live.

    Only what stays is left behind: looks again while anything is above its limit, for a good minute at most, in
    which pollers notice the dead and redraw RQ's picture.
    """
    pool = int(stand.settings.get("JOBSCHED_DB_POOL", "10"))
    allowed = {
        "sessions of worker processes": workers * _SESSIONS["worker"],
        "sessions of poller processes": pollers * _SESSIONS["poller"],
        "sessions of api processes": apis * (pool + 2),
        "sessions of other processes": apis + workers,
        "living worker rows": workers,
        "living poller rows": pollers,
        # A message that is sent again after its execution is over leaves a hash that expires by itself.
        _UNLISTED: max(200, _count(stand, "SELECT count(*) FROM execution_history") // 20),
    }
    end = time.monotonic() + _PATIENCE
    with redis.Redis.from_url(stand.redis_url, decode_responses=True, socket_timeout=10) as connection:
        while True:
            found = _in_postgres(stand) | _in_redis(connection)
            within = all(number <= allowed.get(name, 0) for name, number in found.items())
            if within or time.monotonic() > end:
                return Leaks(found, {name: allowed.get(name, 0) for name in found})
            threading.Event().wait(1.0)


def _count(stand: Stand, statement: str) -> int:
    return int(stand.query(statement)[0][0])


def _in_postgres(stand: Stand) -> dict[str, int]:
    sessions, alive = dict(stand.query(_SESSIONS_BY_KIND)), dict(stand.query(_ALIVE))
    return {
        "live executions": _count(stand, "SELECT count(*) FROM execution"),
        "transactions left open": _count(stand, _IN_TRANSACTION),
        "advisory locks": _count(stand, _ADVISORY),
        **{
            f"sessions of {kind} processes": sessions.get(kind, 0)
            for kind in ("api", "poller", "worker", "other")
        },
        **{f"living {kind} rows": alive.get(kind, 0) for kind in ("worker", "poller")},
    }


def _in_redis(connection: "redis.Redis") -> dict[str, int]:
    members = {name: _members(connection, name) for name in ("wip", "scheduled", "finished", "failed")}
    waiting = _waiting(connection)
    known = set(waiting).union(*(_ids(lists) for lists in members.values()))
    hashes = _hashes(connection)
    return {
        "ids in lists of RQ": len(waiting),
        "started or scheduled in RQ's picture": len(_ids(members["wip"])) + len(_ids(members["scheduled"])),
        "finished or failed in RQ's picture beyond the newest": sum(
            max(0, len(ids) - rq_keys.KEPT)
            for name in ("finished", "failed")
            for ids in members[name].values()
        ),
        _UNLISTED: sum(id not in known for id in hashes),
        "hashes of jobs that never expire": sum(life < 0 for life in hashes.values()),
    }


def _members(connection: "redis.Redis", registry: str) -> dict[str, list[str]]:
    keys = connection.scan_iter(f"{rq_keys.PREFIX}:{registry}:*", count=1000)
    return {key: connection.zrange(key, 0, -1) for key in keys}  # type: ignore[misc]


def _waiting(connection: "redis.Redis") -> list[str]:
    found: list[str] = []
    for key in connection.scan_iter(f"{rq_keys.queue_key('')}*", count=1000):
        found += connection.lrange(key, 0, -1)  # type: ignore[arg-type]
    return found


def _ids(registry: dict[str, list[str]]) -> set[str]:
    return {member.partition(":")[0] for members in registry.values() for member in members}


def _hashes(connection: "redis.Redis") -> dict[str, int]:
    """The time to live in seconds of each job's hash, by its id; -1 where it has none."""
    prefix = f"{rq_keys.PREFIX}:job:"
    keys = list(connection.scan_iter(f"{prefix}*", count=1000))
    pipeline = connection.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    lives: Iterable[int] = pipeline.execute()
    # -2: it has expired since it was found.
    return {key.removeprefix(prefix): life for key, life in zip(keys, lives, strict=True) if life != -2}


def _unix(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()

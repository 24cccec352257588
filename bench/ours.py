"""jobsched as a side: a fresh installation, a queue filled by SQL and a push, processes as anybody starts them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from json import dumps
from typing import Any

from bench.process import tree
from bench.side import PAYLOAD, Running, Side
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.testing.stand import Stand

_JOBS = 1000
_MAKE_JOBS = """
INSERT INTO job (project_id, schedule, is_recurring, api, payload, timeout_seconds, max_retry_count)
SELECT 1, '@every 1h', true, %s, %s, 30, 3 FROM generate_series(1, %s) RETURNING id
"""
# As the poller leaves them: queued, committed, then pushed. A page of a job after the other, since that is how
# executions of one schedule come.
_FILL = """
INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue, queued_at)
SELECT 1, (%(jobs)s::bigint[])[1 + n %% %(count)s], 'manual', clock_timestamp(), clock_timestamp(), 'queued', 5,
    'default', 'default', clock_timestamp()
FROM generate_series(1, %(n)s) AS n RETURNING id
"""
_RECORDED = """
SELECT count(*), count(*) FILTER (WHERE state = 'succeeded'), coalesce(sum(attempt), 0) FROM execution_history
"""


def side(name: str, label: str, *, processes: int, concurrencies: tuple[int, ...]) -> Side:
    """jobsched with so many worker processes."""
    return Side(
        name=name,
        label=label,
        fastest=10_000 + 8_000 * processes,
        concurrencies=concurrencies,
        start=partial(_start, processes),
        settings=f"{processes} × `jobsched worker`; Postgres and Valkey as `jobsched up` starts them",
    )


@contextmanager
def _start(processes: int, url: str, calls: int, concurrency: int) -> Iterator[Running]:
    with Stand() as stand:
        yield begin(stand, processes, url, calls, concurrency)


def begin(stand: Stand, processes: int, url: str, calls: int, concurrency: int) -> Running:
    """Fill the queue of a stand that is there, and start workers."""
    fill(stand, url, calls)
    workers = [f"worker-{number}" for number in range(processes)]
    for worker in workers:
        stand.start(worker, "worker", "--concurrency", str(concurrency))
    return Running(
        groups=partial(_groups, stand, workers),
        left=partial(_left, stand),
        check=partial(_check, stand, workers),
        finish=partial(_finish, stand, workers),
    )


def fill(stand: Stand, url: str, calls: int) -> None:
    """Make jobs, and as many queued executions as ``calls``; push them."""
    link = stand.link()
    try:
        jobs = [row[0] for row in link.execute(_MAKE_JOBS, (url, dumps(PAYLOAD), _JOBS))]
        rows = link.execute(_FILL, {"jobs": jobs, "count": len(jobs), "n": calls})
        # What autovacuum would do within a minute, and then not in the middle of the window.
        link.execute("ANALYZE")
        link.execute("CHECKPOINT")
    finally:
        link.close()
    Broker(connect(stand.redis_url)).push([("default", row[0]) for row in rows])


def _groups(stand: Stand, workers: Sequence[str]) -> Mapping[str, Sequence[int]]:
    assert stand.postgres.pid is not None
    assert stand.valkey.pid is not None
    return {
        "worker": [pid for worker in workers for pid in tree(stand.processes[worker].pid)],
        "Postgres": tree(stand.postgres.pid),
        "Valkey": [stand.valkey.pid],
    }


def _left(stand: Stand) -> int:
    return Broker(connect(stand.redis_url)).depths(["default"])["default"]


def _check(stand: Stand, workers: Sequence[str]) -> None:
    for worker in workers:
        if stand.processes[worker].poll() is not None:
            raise RuntimeError(f"{worker} has ended: {stand.log_of(worker)[-2000:]}")


def _finish(stand: Stand, workers: Sequence[str], requests: Callable[[], int]) -> dict[str, Any]:
    for worker in workers:
        code = stand.stop(worker)
        assert code == 0, f"{worker} ended with {code}: {stand.log_of(worker)[-2000:]}"
    recorded, succeeded, attempts = stand.query(_RECORDED)[0]
    seen = requests()
    assert attempts >= seen, f"the target has seen {seen} calls, the history has {attempts}"
    return {
        "seen_by_target": seen,
        "recorded": int(recorded),
        "succeeded": int(succeeded),
        "attempts": int(attempts),
    }

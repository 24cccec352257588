"""What RQ's tools are shown, read from the truth: running, waiting for a retry, dead."""

from dataclasses import dataclass, field

from jobsched.db.connection import Link

#: RQ's registries of ended jobs are kept to the newest so many a queue.
NEWEST = 1000


@dataclass(slots=True)
class QueueContents:
    """The executions of one queue, as (id, unix seconds): deadline, due time, time of failure."""

    started: list[tuple[int, float]] = field(default_factory=list)
    scheduled: list[tuple[int, float]] = field(default_factory=list)
    failed: list[tuple[int, float]] = field(default_factory=list)


_RUNNING = """
SELECT queue, id, extract(epoch FROM COALESCE(deadline_at, clock_timestamp()))::float8
FROM execution WHERE state = 'running'
"""

_RETRYING = """
SELECT queue, id, due FROM (
    SELECT queue, id, extract(epoch FROM due_at)::float8 AS due,
        row_number() OVER (PARTITION BY queue ORDER BY due_at) AS place
    FROM execution WHERE state = 'retrying'
) AS r WHERE place <= %s
"""

# From one queue to the next in the index: DISTINCT would read every dead letter there is.
_DEAD = """
WITH RECURSIVE q AS (
    (SELECT queue FROM dead_letter ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT d.queue FROM dead_letter d WHERE d.queue > q.queue ORDER BY d.queue LIMIT 1)
    FROM q WHERE q.queue IS NOT NULL
)
SELECT q.queue, d.id, extract(epoch FROM d.failed_at)::float8
FROM q, LATERAL (
    SELECT id, failed_at FROM dead_letter WHERE queue = q.queue ORDER BY failed_at DESC LIMIT %s
) AS d
"""


def read(link: Link) -> dict[str, QueueContents]:
    """The contents of every queue that has some."""
    queues: dict[str, QueueContents] = {}
    for queue, execution, at in link.execute(_RUNNING):
        queues.setdefault(queue, QueueContents()).started.append((execution, at))
    for queue, execution, at in link.execute(_RETRYING, (NEWEST,)):
        queues.setdefault(queue, QueueContents()).scheduled.append((execution, at))
    for queue, execution, at in link.execute(_DEAD, (NEWEST,)):
        queues.setdefault(queue, QueueContents()).failed.append((execution, at))
    return queues


def pools(link: Link) -> list[str]:
    """The pools that workers serve or have served in the last hour."""
    return [row[0] for row in link.execute("SELECT DISTINCT unnest(pools) FROM worker_process")]

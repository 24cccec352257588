"""The rows of worker and poller processes: birth, beat, death.

A beat only counts. Whether a process is alive is decided by who watches the counter, by a monotonic clock
(jobsched/poller/watch.py); time stamps here are for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from jobsched.db.connection import Link


@dataclass(frozen=True, slots=True)
class Pulse:
    """A process that is not dead, and how often it has beaten."""

    id: UUID
    kind: str
    name: str
    beat: int


def register(
    link: Link, *, id: UUID, kind: str, name: str, host: str, pid: int, pools: Sequence[str], concurrency: int
) -> None:
    """Write the row of a new process. ``kind`` is worker or poller."""
    link.execute(
        "INSERT INTO worker_process (id, kind, name, host, pid, pools, concurrency) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (id, kind, name, host, pid, list(pools), concurrency),
    )


def beat(link: Link, id: UUID, *, in_flight: int = 0, lag_seconds: float | None = None) -> bool:
    """Count one beat. False: the row says dead or is gone, and the process must start over under a new id."""
    return bool(
        link.execute(
            "UPDATE worker_process SET beat = beat + 1, in_flight = %s, lag_seconds = %s, "
            "heartbeat_at = clock_timestamp() WHERE id = %s AND state = 'alive' RETURNING true",
            (in_flight, lag_seconds, id),
        )
    )


def leave(link: Link, id: UUID) -> None:
    """Remove the row of a process that ends in order and owns nothing any more."""
    link.execute("DELETE FROM worker_process WHERE id = %s", (id,))


def pulses(link: Link) -> list[Pulse]:
    """Every process that is not known to be dead."""
    rows = link.execute("SELECT id, kind, name, beat FROM worker_process WHERE state = 'alive'")
    return [Pulse(*row) for row in rows]


def declare_dead(link: Link, id: UUID, beat: int) -> bool:
    """Mark a process dead, unless it has beaten since. Whether this call did it."""
    return bool(
        link.execute(
            "UPDATE worker_process SET state = 'dead' WHERE id = %s AND beat = %s AND state = 'alive' "
            "RETURNING true",
            (id, beat),
        )
    )


def bury(link: Link, keep_seconds: float) -> int:
    """Delete rows of processes that died long ago and own nothing. Returns how many."""
    rows = link.execute(
        "DELETE FROM worker_process w WHERE state = 'dead' "
        "AND heartbeat_at < clock_timestamp() - make_interval(secs => %s) "
        "AND NOT EXISTS (SELECT FROM execution e WHERE e.worker_id = w.id AND e.state = 'running') RETURNING 1",
        (keep_seconds,),
    )
    return len(rows)

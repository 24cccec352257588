"""What an installation needs for so many executions a second: processes, connections, disk.

Worked out from measured figures: what a worker and a poller do, and what a row takes on the disk.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from bench.fill import fill
from bench.markdown import table
from bench.plots import amount
from jobsched.testing.stand import Stand

#: What is planned with: half of what was measured, so that a backlog is worked off as fast again as it grows.
SHARE = 0.5
#: Calls in flight follow from how long a target takes; this is what the table counts with.
TARGET_SECONDS = 0.1
#: docs/operations.md, "Scaling": a poller with one in reserve for its start, an API process with its two extra.
_WORKER_CONNECTIONS, _POLLER_CONNECTIONS, _API_CONNECTIONS = 4, 6, 12
_DAY = 86_400
_FIRE_BAR = 20_000.0

_SIZES = """
SELECT pg_total_relation_size('job') + pg_total_relation_size('job_schedule') + pg_total_relation_size('job_last'),
    (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('execution_history') WHERE isleaf)
"""


@dataclass(frozen=True)
class Load:
    """What an installation is to carry."""

    per_second: float
    jobs: int
    days: int


LOADS = (
    Load(1, 1_000, 30),
    Load(10, 10_000, 30),
    Load(100, 100_000, 30),
    Load(1_000, 1_000_000, 14),
    Load(3_000, 1_000_000, 7),
    Load(10_000, 3_000_000, 3),
)


@dataclass(frozen=True)
class Need:
    """What it takes to carry it. ``seats`` is the sum over all workers."""

    workers: int
    seats: int
    pollers: int
    connections: int
    disk_bytes: float


def need(load: Load, *, worker: float, poller: float, job_bytes: float, row_bytes: float) -> Need:
    """``worker``: callbacks a second of one process; ``poller``: executions a second of one.

    Two of each at least, where more than a trickle is to be carried: one may be restarted.
    """
    least = 1 if load.per_second < 10 else 2
    workers = max(least, ceil(load.per_second / (SHARE * worker)))
    pollers = max(least, ceil(load.per_second / (SHARE * poller)))
    return Need(
        workers=workers,
        seats=max(workers * 10, ceil(load.per_second * TARGET_SECONDS / SHARE)),
        pollers=pollers,
        connections=workers * _WORKER_CONNECTIONS + pollers * _POLLER_CONNECTIONS + _API_CONNECTIONS,
        disk_bytes=load.jobs * job_bytes + load.per_second * _DAY * load.days * row_bytes,
    )


def measure_disk(jobs: int = 20_000, history: int = 100_000) -> dict[str, float]:
    """Bytes of a job and of a finished execution, indexes included, in an installation that has some of both."""
    with Stand() as stand:
        empty_jobs, empty_history = stand.query(_SIZES)[0]
        fill(stand.database_url, jobs=jobs, history=history)
        full_jobs, full_history = stand.query(_SIZES)[0]
    return {
        "job_bytes": round(float(full_jobs - empty_jobs) / jobs),
        "history_row_bytes": round(float(full_history - empty_history) / history),
    }


def words(deliver: dict[str, Any], fire: dict[str, Any] | None) -> str:
    """The table, from the results of ``deliver`` and, once there is one, of ``fire``; else from that part's bar."""
    figures = deliver["figures"]
    worker = figures["sides"]["jobsched"]["per_second"]["median"]
    poller = _fired(fire)
    disk = figures["disk"]
    rows = []
    for load in LOADS:
        found = need(
            load,
            worker=worker,
            poller=poller,
            job_bytes=disk["job_bytes"],
            row_bytes=disk["history_row_bytes"],
        )
        rows.append(
            [
                f"{load.per_second:,.0f}",
                f"{load.jobs:,}",
                str(load.days),
                f"{found.workers} ({found.seats:,} seats)",
                str(found.pollers),
                str(found.connections),
                _size(found.disk_bytes),
            ]
        )
    return (
        f"A worker process carries {amount(worker)} callbacks/s and a poller {amount(poller)} executions/s, of which "
        f"{SHARE:.0%} are planned with. A job takes {disk['job_bytes']:,.0f} bytes, a finished execution "
        f"{disk['history_row_bytes']:,.0f}, indexes included. Targets answer within {1000 * TARGET_SECONDS:g} ms.\n\n"
        + table(["executions/s", "jobs", "history, days", "workers", "pollers", "connections", "disk"], rows)
    )


def _fired(fire: dict[str, Any] | None) -> float:
    """Executions a second: what the bar of ``fire`` was held against, or the bar as long as nothing was."""
    speeds = [bar["value"] for bar in (fire or {}).get("bars", ()) if bar["unit"] == "/s"]
    return float(speeds[0]) if speeds else _FIRE_BAR


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{amount(count / size)} {unit}"
    return f"{amount(count / 1e6)} MB"

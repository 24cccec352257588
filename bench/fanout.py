"""Fan-out: 10,000 jobs due at the same second, against 1,000 host names, of which some are slow and some refuse.

Each name is an address of its own, so that connections, name lookups and what is remembered of them are those of
1,000 targets. Of the hosts, 10 % answer after 2 s and 5 % refuse connections. A worker can have as many calls open as
it has seats. So with few seats the slow ones set the pace, and with many nobody waits for them: both are measured.
"""

import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from bench import installation, named, plots
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.process import pss_bytes
from bench.stamps import SLOW, Stamp, StampingTarget
from bench.watch import largest
from jobsched.testing.stand import Stand

JOBS, JOBS_QUICK = 10_000, 1000
CONCURRENCIES, CONCURRENCIES_QUICK = (256, 2048), (256,)

#: Of 20 hosts one refuses, two are slow, the others are good.
_KINDS = ("refusing", "slow", "slow", *["good"] * 17)

#: Seconds from the creation of the jobs to their due time.
_AHEAD = 8.0
_LONGEST = 120.0
_LOOK_EVERY = 0.1
_OUTCOMES = "SELECT job_id, id, state, error_code, attempt, duration_ms::float8 FROM execution_history"


def measure(options: Options) -> Figures:
    """Once with few seats, once with many, each in fresh processes."""
    jobs = JOBS_QUICK if options.quick else JOBS
    concurrencies = CONCURRENCIES_QUICK if options.quick else CONCURRENCIES
    runs = [_run(jobs, concurrency) for concurrency in concurrencies]
    return {"jobs": jobs, "names": named.NAMES, "runs": runs}


def _run(jobs: int, concurrency: int) -> dict[str, Any]:
    # A port that is bound and not listened on refuses, and nobody else gets it meanwhile.
    with Stand() as stand, socket.socket() as closed:
        closed.bind(("0.0.0.0", 0))
        target = StampingTarget(stand.folder)
        try:
            return _measured(stand, target, closed.getsockname()[1], jobs, concurrency)
        finally:
            target.kill()


def _measured(
    stand: Stand, target: StampingTarget, refusing: int, jobs: int, concurrency: int
) -> dict[str, Any]:
    installation.start(stand, "--concurrency", str(concurrency), program="bench.named")
    worker = stand.processes["worker"]
    due = ceil(time.time() + _AHEAD)
    created = stand.client().jobs.create_many(
        [_job(n, target.port, refusing, datetime.fromtimestamp(due, UTC)) for n in range(jobs)]
    )
    assert time.time() < due, "creating the jobs took too long"
    stand.stop("api")
    kinds = {job: _KINDS[n % len(_KINDS)] for n, job in enumerate(created["ids"])}
    with largest(partial(_look, worker.pid), _LOOK_EVERY) as most:
        stand.wait(f"SELECT count(*) >= {jobs} FROM execution_history", True, _LONGEST)
    outcomes = stand.query(_OUTCOMES)
    return {"concurrency": concurrency, "worker": most} | _figures(outcomes, kinds, target.stop(), due)


def _job(n: int, port: int, refusing: int, due: datetime) -> dict[str, Any]:
    kind = _KINDS[n % len(_KINDS)]
    host = named.name(n % named.NAMES)
    path = SLOW if kind == "slow" else "/"
    return {
        "schedule": due.isoformat(),
        "api": f"http://{host}:{refusing if kind == 'refusing' else port}{path}",
        "payload": {"n": n},
        "maxRetryCount": 0,
    }


def _figures(
    outcomes: Sequence[tuple[Any, ...]], kinds: Mapping[int, str], stamps: Sequence[Stamp], due: int
) -> dict[str, Any]:
    of_execution = {execution: kinds[job] for job, execution, *_ in outcomes}
    ends = Counter(f"{kinds[job]}: {code or state}" for job, _, state, code, *_ in outcomes)
    seen = Counter(stamp.execution_id for stamp in stamps)
    called = {
        kind: [s.came - due for s in stamps if of_execution[s.execution_id] == kind]
        for kind in kinds.values()
    }
    calls = [took for job, *_, took in outcomes if kinds[job] == "good"]
    expected = sum(kind != "refusing" for kind in kinds.values())
    return {
        "seconds_until_the_last_is_called": round(max(s.came for s in stamps) - due, 2),
        "good_called_after_s": _quantiles(called["good"]),
        "slow_called_after_s": _quantiles(called["slow"]),
        "good_call_took_ms": _quantiles(calls),
        "outcomes": dict(sorted(ends.items())),
        "lost": len(kinds) - len({job for job, *_ in outcomes}) + expected - len(seen),
        "called_twice": sum(times > 1 for times in seen.values()),
        "attempts": max(attempt for *_, attempt, _took in outcomes),
        "good_called_s": [
            round(one, 3) for one in sorted(called["good"])[:: max(1, len(called["good"]) // 500)]
        ],
        "slow_called_s": [
            round(one, 3) for one in sorted(called["slow"])[:: max(1, len(called["slow"]) // 500)]
        ],
    }


def _look(pid: int) -> dict[str, float]:
    found = {"pss_mb": round(pss_bytes([pid]) / 1e6, 1)}
    with suppress(OSError):
        found["descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
    return found


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3), "max": round(max(values), 3)}


def bars(figures: Figures) -> Sequence[Bar]:
    """Nothing is lost and nothing is called twice; for how fast, see the figures."""
    runs = figures["runs"]
    return [
        Bar("fan-out, executions lost", sum(run["lost"] for run in runs), 0, "", "at most"),
        Bar("fan-out, executions called twice", sum(run["called_twice"] for run in runs), 0, "", "at most"),
    ]


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """When the calls began, by kind of target and number of seats."""
    series = {
        f"{kind} targets, {run['concurrency']:,} seats": run[f"{kind}_called_s"]
        for run in figures["runs"]
        for kind in ("good", "slow")
    }
    title = f"{figures['jobs']:,} jobs due at once, {figures['names']:,} hosts: when each was called"
    return [plots.quantiles(folder / "fanout-called.svg", title, "seconds after the due time", series)]


def words(figures: Figures) -> str:
    """When calls began, and what the worker held, by number of seats."""
    rows = [
        [
            f"{run['concurrency']:,}",
            plots.amount(run["seconds_until_the_last_is_called"]),
            *(
                plots.amount(run[f"{kind}_called_after_s"][at])
                for kind in ("good", "slow")
                for at in ("p50", "p99")
            ),
            plots.amount(run["good_call_took_ms"]["p50"]),
            plots.amount(run["worker"]["pss_mb"]),
            plots.amount(run["worker"]["descriptors"]),
            plots.amount(run["lost"] + run["called_twice"]),
        ]
        for run in figures["runs"]
    ]
    header = [
        "seats",
        "last called, s",
        "good called, p50 s",
        "p99",
        "slow called, p50 s",
        "p99",
        "a good call, p50 ms",
        "worker, MB",
        "descriptors",
        "lost or doubled",
    ]
    return f"{figures['jobs']:,} jobs due at once, {figures['names']:,} names.\n\n{table(header, rows)}"


PART = Part("fanout", "Fan-out: many jobs at once, many hosts", measure, bars, draw, words)

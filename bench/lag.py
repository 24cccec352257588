"""Lag: from the instant at which an execution is due to the first byte of its request at the target.

500 executions a second through poller, Redis and one worker to a target that notes when each request came. Both
clocks are this machine's. Two shapes:

- ``spread``: one falls due every 2 ms (``@every 5s`` with anchors 2 ms apart). The bars hold for this one.
- ``bursts``: all 500 fall due on each second's mark, as cron expressions do. The last of a burst waits for the
  others to be fired, claimed and sent, so its lag tells how long a burst takes.
"""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

from bench import installation, plots
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.process import cpu_of, tree
from bench.stamps import Stamp, StampingTarget
from jobsched.testing.stand import Stand

RATE = 500
SECONDS, SECONDS_QUICK = 60, 5
WARM_UP = 6.0

#: Seconds from the creation of the jobs to the first that is due: creating them must not be measured.
_AHEAD = 3.0
#: Seconds after the last due time in which all have arrived.
_AFTER = 3.0

_INTERVAL = 5
_SHAPES = {"spread": "one every 2 ms", "bursts": "500 on each second's mark"}
#: Both are the statement's clock of their own transactions, so a stage may be a little negative.
_TIMES = """
SELECT id, extract(epoch FROM queued_at), extract(epoch FROM started_at) FROM execution_history
WHERE id BETWEEN %s AND %s
"""


def measure(options: Options) -> Figures:
    """Both shapes, each in fresh processes."""
    seconds = SECONDS_QUICK if options.quick else SECONDS
    return {"rate": RATE, "seconds": seconds} | {shape: _shape(shape, seconds) for shape in _SHAPES}


def _shape(shape: str, seconds: int) -> dict[str, Any]:
    with Stand() as stand:
        target = StampingTarget(stand.folder)
        try:
            return run(stand, target, shape, seconds)
        finally:
            target.kill()


def run(stand: Stand, target: StampingTarget, shape: str, seconds: int) -> dict[str, Any]:
    """One shape for so many seconds after a warm-up, in fresh processes of a stand where nothing else is due."""
    installation.start(stand)
    base = ceil(time.time() + _AHEAD)
    stand.client().jobs.create_many(_jobs(shape, f"{target.url}/", base))
    stand.stop("api")
    first = base + _INTERVAL + WARM_UP
    last = first + seconds
    pids = {name: process.pid for name, process in stand.processes.items()} | {"target": target.pid}
    for server in (stand.postgres, stand.valkey):
        assert server.pid is not None
        pids[server.name.lower()] = server.pid
    _sleep_until(first)
    before = {name: cpu_of(tree(pid)) for name, pid in pids.items()}
    _sleep_until(last)
    after = {name: cpu_of(tree(pid)) for name, pid in pids.items()}
    _sleep_until(last + _AFTER)
    stamps = [one for one in target.stop() if first <= one.due < last]
    lags = sorted(1000 * (one.came - one.due) for one in stamps)
    expected = RATE * seconds
    figures = _quantiles(lags) | {
        "expected": expected,
        "arrived": len(lags),
        "cpu_us_per_execution": {
            name: round(1e6 * (after[name] - before[name]) / expected, 1) for name in pids
        },
        "stages": _stages(stand, stamps),
        "lags_ms": _counted(lags),
    }
    assert len(lags) == expected, f"{len(lags)} of {expected} executions arrived"
    return figures


def _stages(stand: Stand, stamps: Sequence[Stamp]) -> dict[str, dict[str, float]]:
    """Where the time goes: until the row is queued, until it is claimed, until the first byte."""
    ids = [one.execution_id for one in stamps]
    found = stand.query(_TIMES, (min(ids), max(ids)))  # and not all history: there may be millions
    rows = {i: (float(queued), float(started)) for i, queued, started in found}
    steps: dict[str, list[float]] = {
        "due_to_queued": [],
        "queued_to_claimed": [],
        "claimed_to_first_byte": [],
    }
    for one in stamps:
        queued, started = rows[one.execution_id]
        steps["due_to_queued"].append(1000 * (queued - one.due))
        steps["queued_to_claimed"].append(1000 * (started - queued))
        steps["claimed_to_first_byte"].append(1000 * (one.came - started))
    return {name: _quantiles(sorted(values)) for name, values in steps.items()}


def _jobs(shape: str, url: str, base: int) -> list[dict[str, Any]]:
    job = {"api": url, "payload": {"n": 1}}
    if shape == "bursts":
        return [job | {"schedule": "* * * * * *"} for _ in range(RATE)]
    start = datetime.fromtimestamp(base, UTC)
    count = RATE * _INTERVAL
    anchors = (start + timedelta(seconds=_INTERVAL) * n / count for n in range(count))
    return [job | {"schedule": f"@every {_INTERVAL}s", "startAt": at.isoformat()} for at in anchors]


def _sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.time()))


def _quantiles(lags: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(lags, n=1000, method="inclusive")
    named = {"p50_ms": cuts[499], "p90_ms": cuts[899], "p99_ms": cuts[989], "p99_9_ms": cuts[998]}
    return {name: round(value, 2) for name, value in (named | {"max_ms": lags[-1]}).items()}


def _counted(lags: Sequence[float]) -> list[tuple[float, int]]:
    """How often each lag was seen, to three digits: enough for a plot, and short."""
    return sorted(Counter(float(f"{lag:.3g}") for lag in lags).items())


def bars(figures: Figures) -> Sequence[Bar]:
    """The promises, of the steady shape."""
    spread = figures["spread"]
    return [
        Bar("lag at 500/s, p99", spread["p99_ms"], 50.0, "ms", "at most"),
        Bar("lag at 500/s, p99.9", spread["p99_9_ms"], 150.0, "ms", "at most"),
    ]


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """The distribution of both shapes."""
    series = {
        f"{shape}: {what}": [lag for lag, count in figures[shape]["lags_ms"] for _ in range(count)]
        for shape, what in _SHAPES.items()
    }
    title = f"Lag at {figures['rate']} executions a second: due time to first byte"
    return [plots.quantiles(folder / "lag-distribution.svg", title, "milliseconds", series, mark=50.0)]


def words(figures: Figures) -> str:
    """The lag and its stages, and what each process spent on an execution."""
    rows, costs = [], []
    for shape, what in _SHAPES.items():
        one = figures[shape]
        for stage, lags in {"due to first byte": one, **one["stages"]}.items():
            cells = [
                plots.amount(lags[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
            ]
            rows.append([what, stage.replace("_", " "), *cells])
        spent = one["cpu_us_per_execution"]
        costs.append([what, *map(plots.amount, [*spent.values(), sum(spent.values())])])
    lag = table(["due", "ms", "p50", "p90", "p99", "p99.9", "max"], rows)
    cost = table(["CPU, µs an execution", *figures["spread"]["cpu_us_per_execution"], "all"], costs)
    return f"{figures['rate']} executions a second for {figures['seconds']} s.\n\n{lag}\n{cost}"


PART = Part("lag", "Lag: from the due time to the first byte", measure, bars, draw, words)

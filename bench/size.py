"""Part ``size``: firing, delivering and lag with a million jobs and a month's history, and what idling costs.

The same measurement on an empty installation and on a filled one, in turns; what grows is the ratio of the two.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import deliver, installation, lag, ours, plots
from bench.fill import fill
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.process import cpu_of, tree
from bench.reads import FULL, QUICK
from bench.side import Running, Side
from bench.stamps import StampingTarget
from bench.target import NginxTarget
from jobsched.poller.fire import Fire
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.testing.stand import Stand

GROWTH = 1.15
IDLE_JOBS, IDLE_JOBS_QUICK = 100_000, 5_000
IDLE_BAR = 1.0

ROUNDS = 3
_DUE, _DUE_QUICK = 40_000, 4_000
_CONCURRENCY = 256
_IDLE_SECONDS, _IDLE_QUICK = 120.0, 10.0
_SETTLE = 30.0

_REST = """
UPDATE job_schedule SET next_slot = NULL, next_execution_time = NULL
WHERE next_execution_time < now() + interval '1 day'
"""

_MAKE_DUE = """
WITH new AS (
    INSERT INTO job (project_id, schedule, is_recurring, api)
    SELECT 1, (n %% 60) || ' ' || (n / 60 %% 24) || ' ' || (n / 1440 %% 28 + 1) || ' * *', true, 'http://127.0.0.1:1/'
    FROM generate_series(1, %s) AS n RETURNING id
)
INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor)
SELECT id, date_trunc('second', now()), date_trunc('second', now()), now() FROM new
"""


def measure(options: Options) -> Figures:
    """Idle first, while the machine is; then rounds of everything, empty and full in turns."""
    rounds = 1 if options.quick else ROUNDS
    idle = _idle(options.quick)
    jobs, history = QUICK if options.quick else FULL
    with Stand() as empty, Stand() as full:
        filled = fill(full.database_url, jobs=jobs, history=history)
        figures = compared(empty, full, rounds, options.quick)
    return figures | {
        "jobs": jobs, "history": history, "idle": idle, "fill_seconds": round(filled.seconds, 1),
    }  # fmt: skip


def compared(empty: Stand, full: Stand, rounds: int, quick: bool) -> Figures:
    """Firing, delivering and lag on both in turns, and how much they grow from the one to the other."""
    figures: Figures = {"rounds": rounds}
    taken: dict[str, dict[str, list[float]]] = {"empty": {}, "full": {}}
    with NginxTarget() as target:
        for number in range(rounds):
            stands = [("empty", empty), ("full", full)]
            for name, stand in stands if number % 2 == 0 else reversed(stands):
                for what, value in _round(stand, target, quick).items():
                    taken[name].setdefault(what, []).append(value)
    figures["empty"], figures["full"] = (
        {what: _spread(values) for what, values in taken[name].items()} for name in ("empty", "full")
    )
    figures["growth"] = {
        # A rate that falls and a time that rises both give more than 1.
        what: round(statistics.median(_growths(what, taken["empty"][what], taken["full"][what])), 3)
        for what in taken["empty"]
    }
    return figures


def _growths(what: str, empty: Sequence[float], full: Sequence[float]) -> list[float]:
    pairs = zip(empty, full, strict=True)
    return [one / other if what.endswith("_per_second") else other / one for one, other in pairs]


def _round(stand: Stand, target: NginxTarget, quick: bool) -> dict[str, float]:
    pace = deliver.QUICK if quick else deliver.PUBLISHED
    fired = fire(stand, _DUE_QUICK if quick else _DUE)
    delivered = deliver.window(_side(stand), target, _CONCURRENCY, pace.warm_up, pace.window)
    _empty_queues(stand)
    late = _lag(stand, lag.SECONDS_QUICK if quick else lag.SECONDS)
    _empty_queues(stand)
    return {
        "fire_per_second": fired["per_second"],
        "fire_cpu_us": fired["cpu_us"],
        "deliver_per_second": delivered["per_second"],
        "deliver_cpu_us": delivered["cpu_us"]["worker"],
        "lag_p50_ms": late["p50_ms"],
        "lag_p99_ms": late["p99_ms"],
    }


def fire(stand: Stand, count: int) -> dict[str, float]:
    """Fire ``count`` schedules that are due now, in this process: executions a second, and processor time of each."""
    link = stand.link()
    try:
        link.execute(_MAKE_DUE, (count,))
        link.execute("ANALYZE job, job_schedule")
        firing = Fire(link, Broker(connect(stand.redis_url)), high_water=10_000_000)
        began, cpu, fired = time.monotonic(), time.thread_time(), 0
        while (done := firing.run_once()).executions:
            fired += done.executions
        seconds, cpu = time.monotonic() - began, time.thread_time() - cpu
    finally:
        link.close()
    # Of a million other jobs one or another comes due meanwhile.
    assert count <= fired <= count * 1.001, f"{fired} of {count} were fired"
    _empty_queues(stand)
    return {"per_second": fired / seconds, "cpu_us": 1e6 * cpu / fired}


def _empty_queues(stand: Stand) -> None:
    """What one measurement has left must not be met by the next; jobs that are due soon again go, too."""
    link = stand.link()
    try:
        link.execute("TRUNCATE execution")
        link.execute(_REST)
        connect(stand.redis_url).flushall()
    finally:
        link.close()


def _side(stand: Stand) -> Side:
    @contextmanager
    def start(url: str, calls: int, concurrency: int) -> Iterator[Running]:
        yield ours.begin(stand, 1, url, calls, concurrency)

    return Side(
        "jobsched", "jobsched", fastest=18_000, concurrencies=(_CONCURRENCY,), start=start, settings=""
    )


def _lag(stand: Stand, seconds: int) -> Mapping[str, float]:
    target = StampingTarget(stand.folder)
    try:
        return lag.run(stand, target, "spread", seconds)
    finally:
        target.kill()
        for name in list(stand.processes):
            stand.stop(name)


def _idle(quick: bool) -> dict[str, Any]:
    """Processor time of everything while nothing is due, in percent of one core."""
    jobs, seconds = (IDLE_JOBS_QUICK, _IDLE_QUICK) if quick else (IDLE_JOBS, _IDLE_SECONDS)
    with Stand() as stand:
        fill(stand.database_url, jobs=jobs, history=0)
        installation.start(stand)
        time.sleep(_SETTLE)  # slots to come are looked through at the start, for as long as there are jobs
        groups: dict[str, Callable[[], list[int]]] = {
            name: partial(tree, process.pid) for name, process in stand.processes.items()
        }
        assert stand.postgres.pid is not None
        assert stand.valkey.pid is not None
        groups |= {"Postgres": partial(tree, stand.postgres.pid), "Valkey": partial(tree, stand.valkey.pid)}
        before = {name: cpu_of(pids()) for name, pids in groups.items()}
        began = time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - began
        percent = {
            name: round(100 * (cpu_of(pids()) - before[name]) / lasted, 3) for name, pids in groups.items()
        }
    own = sum(value for name, value in percent.items() if name not in {"Postgres", "Valkey"})
    return {"jobs": jobs, "seconds": round(lasted, 1), "percent": percent, "own_percent": round(own, 3)}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }


def bars(figures: Figures) -> Sequence[Bar]:
    """Growth of speed and lag; what idling costs our processes, and with the servers."""
    idle = figures["idle"]
    costs = Bar(
        f"CPU idle with {idle['jobs']:,} jobs", idle["own_percent"], IDLE_BAR, "% of a core", "at most"
    )
    return [*growth_bars(figures), costs]


def growth_bars(figures: Figures) -> Sequence[Bar]:
    """Growth of speed and lag."""
    names = {"fire_per_second": "fire", "deliver_per_second": "deliver", "lag_p99_ms": "lag, p99"}
    return [
        Bar(f"{name}: empty to full", figures["growth"][what], GROWTH, "×", "at most")
        for what, name in names.items()
    ]


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """How much longer everything takes, and what idles."""
    idle = [("idle", figures["idle"]["percent"])]
    return [
        draw_growth(figures, folder / "size-growth.svg"),
        plots.stacked_bars(
            folder / "size-idle.svg", f"Idle, {figures['idle']['jobs']:,} jobs", "% of a core", idle
        ),
    ]


def draw_growth(figures: Figures, path: Path) -> Path:
    """How much longer everything takes."""
    rows = [(what.replace("_", " "), value, value, value) for what, value in figures["growth"].items()]
    title = f"{figures['jobs']:,} jobs and {figures['history']:,} executions: cost relative to empty"
    return plots.horizontal_bars(path, title, "×", rows, mark=GROWTH)


def words(figures: Figures) -> str:
    """Empty, full and the ratio; then idling by process."""
    idle = figures["idle"]
    shown = [[name, f"{value:.2f}"] for name, value in idle["percent"].items()]
    shown.append(["all of ours", f"{idle['own_percent']:.2f}"])
    return (
        f"{growth_words(figures)}\n"
        f"Idle with {idle['jobs']:,} jobs, over {idle['seconds']:.0f} s:\n\n"
        f"{table(['process', '% of a core'], shown)}"
    )


def growth_words(figures: Figures) -> str:
    """Empty, full and the ratio."""

    def cell(one: Mapping[str, float]) -> str:
        return f"{plots.amount(one['median'])} ({plots.amount(one['low'])} to {plots.amount(one['high'])})"

    rows = [
        [what.replace("_", " "), cell(figures["empty"][what]), cell(figures["full"][what]), f"{ratio:.2f}"]
        for what, ratio in figures["growth"].items()
    ]
    return (
        f"{figures['jobs']:,} jobs, {figures['history']:,} executions in the history.\n\n"
        f"{table(['', 'empty', 'full', 'ratio'], rows)}"
    )


PART = Part("size", "Size", measure, bars, draw, words)

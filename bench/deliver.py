"""Part ``deliver``: how many callbacks a worker makes and records a second, beside the workers that people use.

Every side takes jobs from a queue that does not run dry, posts the same payload to the same target, and records the
end by its own means. What counts is what the target saw between two looks, of all sides alike.

A round is one window of each side; rounds follow each other, so that what disturbs the machine for a while disturbs
all. Each window has fresh servers and processes. Ratios are taken within a round, and their median is judged.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import capacity, ours, plots
from bench.markdown import spread, table
from bench.part import Bar, Figures, Options, Part
from bench.peers import sides as peers
from bench.process import cpu_of, pss_bytes
from bench.side import Running, Side
from bench.target import NginxTarget
from bench.watch import largest, until

SIDES: tuple[Side, ...] = (
    ours.side("jobsched", "jobsched, one process", processes=1, concurrencies=(128, 256, 512, 1024)),
    ours.side("jobsched-2", "jobsched, two processes", processes=2, concurrencies=(512,)),
    *peers.SIDES,
)

#: What is judged, and the least ratio to each.
ONE = "jobsched"
RATIOS = {"bullmq": 1.0, "rq-simple": 25.0, "arq": 2.5}
CPU_BAR = 100.0

_START_SECONDS = 30.0
#: Sides that cost more than so many times the least are left out of the plot of costs.
_SHOWN = 15


@dataclass(frozen=True)
class Pace:
    """How long things take: a window and what comes before it, windows that try a concurrency, and rounds."""

    warm_up: float
    window: float
    trial: float
    rounds: int


PUBLISHED = Pace(warm_up=4.0, window=20.0, trial=6.0, rounds=3)
QUICK = Pace(warm_up=1.5, window=3.0, trial=0.0, rounds=1)


def measure(options: Options) -> Figures:
    """Try concurrencies, then measure in rounds. ValueError for a side that is not known."""
    unknown = set(options.only) - {side.name for side in SIDES}
    if unknown:
        raise ValueError(
            f"no such side: {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in SIDES)}"
        )
    sides = [side for side in SIDES if not options.only or side.name in options.only]
    pace = QUICK if options.quick else PUBLISHED
    with NginxTarget() as target:
        tried = {side.name: _trials(side, target, pace) for side in sides}
        windows: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for number in range(pace.rounds):
            # The other way round every second time: nobody always comes after the same one.
            for side in sides if number % 2 == 0 else reversed(sides):
                best = _best(side, tried[side.name])
                windows[side.name].append(window(side, target, best, pace.warm_up, pace.window))
    return {
        "window_seconds": pace.window,
        "rounds": pace.rounds,
        "sides": {side.name: _summary(side, tried[side.name], windows[side.name]) for side in sides},
        "ratios": ratios(windows),
        "disk": capacity.measure_disk() if ONE in windows else {},
    }


def window(
    side: Side, target: NginxTarget, concurrency: int, warm_up: float, seconds: float
) -> dict[str, Any]:
    """One window: fill, start, warm up, look, wait, look, end, and see what was recorded."""
    calls = int(side.fastest * (warm_up + seconds + 1.0)) + 4 * concurrency
    offset = target.requests()
    with side.start(target.url + "/callback", calls, concurrency) as running:
        _await_first(target, offset, running)
        time.sleep(warm_up)
        with largest(lambda: {"pss": pss_bytes(running.groups()["worker"])}, 1.0) as peak:
            before = _look(target, running)
            time.sleep(seconds)
            after = _look(target, running)
        running.check()
        left = running.left()
        if left <= 0:
            raise RuntimeError(f"the queue of {side.name} ran dry: it is faster than {side.fastest}/s")
        recorded = running.finish(lambda: target.requests() - offset)
    made = after.requests - before.requests
    return {
        "concurrency": concurrency,
        "per_second": made / (after.at - before.at),
        "cpu_us": {name: 1e6 * (after.cpu[name] - before.cpu[name]) / max(1, made) for name in before.cpu},
        "worker_peak_pss_mb": peak["pss"] / 1e6,
        "left_in_queue": left,
        "records": recorded,
    }


@dataclass(frozen=True)
class _Look:
    """What is seen at one moment."""

    at: float
    requests: int
    cpu: Mapping[str, float]


def _look(target: NginxTarget, running: Running) -> _Look:
    groups = dict(running.groups()) | {"target": target.pids}
    return _Look(time.monotonic(), target.requests(), {name: cpu_of(pids) for name, pids in groups.items()})


def _await_first(target: NginxTarget, offset: int, running: Running) -> None:
    def has_come() -> bool:
        running.check()
        return target.requests() != offset

    until(has_come, _START_SECONDS, "no call")


def _trials(side: Side, target: NginxTarget, pace: Pace) -> dict[int, float]:
    """Calls a second at each concurrency; empty where none is to be tried."""
    if not pace.trial or len(side.concurrencies) == 1:
        return {}
    return {
        one: window(side, target, one, pace.warm_up / 2, pace.trial)["per_second"]
        for one in side.concurrencies
    }


def _best(side: Side, tried: Mapping[int, float]) -> int:
    # Untried: the middle one.
    return (
        max(tried, key=lambda one: tried[one]) if tried else side.concurrencies[len(side.concurrencies) // 2]
    )


def _summary(side: Side, tried: Mapping[int, float], windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    speeds = [one["per_second"] for one in windows]
    groups = windows[0]["cpu_us"]
    return {
        "label": side.label,
        "settings": side.settings,
        "versions": side.versions(),
        "concurrency": windows[0]["concurrency"],
        "tried": {str(one): round(speed, 1) for one, speed in tried.items()},
        "per_second": _spread(speeds),
        "cpu_us": {
            name: round(statistics.median(one["cpu_us"][name] for one in windows), 1) for name in groups
        },
        "worker_cpu_us": _spread([one["cpu_us"]["worker"] for one in windows]),
        "worker_peak_pss_mb": _spread([one["worker_peak_pss_mb"] for one in windows]),
        "records": [one["records"] for one in windows],
    }


def ratios(windows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """Calls a second of jobsched over those of each other side, round by round."""
    if ONE not in windows:
        return {}
    return {
        name: _spread(
            [
                own["per_second"] / max(other["per_second"], 1e-9)
                for own, other in zip(windows[ONE], others, strict=True)
            ]
        )
        for name, others in windows.items()
        if name != ONE
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }


def bars(figures: Figures) -> list[Bar]:
    """Ratios to the others, and what a callback costs the worker."""
    sides = figures["sides"]
    found = [
        Bar(
            f"callbacks/s over {sides[name]['label']}",
            figures["ratios"][name]["median"],
            least,
            "×",
            "at least",
        )
        for name, least in RATIOS.items()
        if name in figures["ratios"]
    ]
    if ONE in sides:
        cpu = sides[ONE]["worker_cpu_us"]["median"]
        found.append(Bar("CPU of the worker per callback", cpu, CPU_BAR, "µs", "at most"))
    return found


def draw(figures: Figures, folder: Path) -> list[Path]:
    """Calls a second by side, and processor time by process."""
    ordered = sorted(figures["sides"].values(), key=lambda side: -side["per_second"]["median"])
    title = "Callbacks delivered and recorded a second"
    speeds = [
        (
            f"{side['label']} ({side['concurrency']})",
            *(side["per_second"][key] for key in ("median", "low", "high")),
        )
        for side in ordered
    ]
    totals = [sum(side["cpu_us"].values()) for side in ordered]
    # Beside a fork for each job the others would be lines without an area; the table has them all.
    shown = [side for side, total in zip(ordered, totals, strict=True) if total <= _SHOWN * min(totals)]
    costs = [(side["label"], side["cpu_us"]) for side in shown]
    return [
        plots.horizontal_bars(
            folder / "deliver-speed.svg", title, "callbacks/s (concurrency in brackets)", speeds
        ),
        plots.stacked_bars(
            folder / "deliver-cpu.svg", "Processor time of one callback, by process", "µs", costs
        ),
    ]


def words(figures: Figures) -> str:
    """Speeds and ratios, what a callback costs each process, and how each side was set up."""
    sides, ratios = figures["sides"], figures["ratios"]
    groups = list(dict.fromkeys(group for side in sides.values() for group in side["cpu_us"]))
    speeds = [
        [
            side["label"],
            str(side["concurrency"]),
            spread(side["per_second"]),
            spread(ratios[name]) if name in ratios else "",
            spread(side["worker_peak_pss_mb"]),
        ]
        for name, side in sides.items()
    ]
    costs = [
        [
            side["label"],
            *(plots.amount(side["cpu_us"][one]) if one in side["cpu_us"] else "" for one in groups),
            plots.amount(sum(side["cpu_us"].values())),
        ]
        for side in sides.values()
    ]
    settings = [
        [
            side["label"],
            side["settings"],
            ", ".join(f"{one}: {plots.amount(speed)}/s" for one, speed in side["tried"].items()),
            ", ".join(f"{library} {version}" for library, version in side["versions"].items()),
        ]
        for side in sides.values()
    ]
    return (
        f"{figures['rounds']} rounds of {figures['window_seconds']:g} s; median (lowest to highest).\n\n"
        + table(["side", "concurrency", "callbacks/s", "jobsched over it", "worker memory (Pss), MB"], speeds)
        + "\nProcessor time of one callback, µs, by process:\n\n"
        + table(["side", *groups, "all"], costs)
        + "\nSettings, and the concurrencies that were tried first:\n\n"
        + table(["side", "settings", "tried", "versions"], settings)
    )


PART = Part("deliver", "Delivering callbacks", measure, bars, draw, words)

"""Memory of each process, idle and under load: PSS, which divides a shared page among those that hold it.

Four situations, one after the other: idle; requests to the API, one job each, by clients at once; bulk requests of
10,000 jobs; all those jobs due at the same second, which the poller fires in full batches and the worker delivers to
a target so slow that all its seats are taken. The largest of many looks counts.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bench import installation, plots
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.process import pss_bytes, tree
from bench.watch import largest
from jobsched.testing.stand import Stand

CONCURRENCY = 256
CLIENTS = 8
BULK = 10_000
#: How many bulk requests, each so many jobs; and the seconds of requests one by one.
SIZE, SIZE_QUICK = 2, 1
SECONDS, SECONDS_QUICK = 15.0, 3.0

#: Which process may take how much, in every situation (MB). The API's is each of its processes.
BARS = {"worker": 75.0, "poller": 65.0, "api": 80.0}

_SETTLE = 4.0
_LOOK_EVERY = 0.25
_DUE_IN = 6.0
_LEFT = "SELECT count(*) FROM execution"
_DELIVERED = "SELECT count(*) FROM execution_history"
_PATH = "slow/200"

Look = dict[str, float]


def measure(options: Options) -> Figures:
    """All four situations in one installation."""
    size, seconds = (SIZE_QUICK, SECONDS_QUICK) if options.quick else (SIZE, SECONDS)
    target = subprocess.Popen(
        [sys.executable, "-m", "jobsched.testing.target", "--no-record"], stdout=subprocess.PIPE
    )
    assert target.stdout is not None
    url = f"{target.stdout.readline().decode().strip()}/{_PATH}"
    try:
        with Stand() as stand:
            installation.start(stand, "--concurrency", str(CONCURRENCY))
            time.sleep(_SETTLE)
            look = partial(_look, stand)
            situations = {"idle": look()}
            with largest(look, _LOOK_EVERY) as situations["requests"]:
                _request(stand, seconds)
            due = datetime.now(UTC) + timedelta(seconds=_DUE_IN + 2.0 * size)
            with largest(look, _LOOK_EVERY) as situations["bulk"]:
                for _ in range(size):
                    stand.client().jobs.create_many(_jobs(url, due))
            with largest(look, _LOOK_EVERY) as situations["work"]:
                stand.wait(f"SELECT ({_LEFT}) = 0 AND ({_DELIVERED}) >= {size * BULK}", True, 120)
            delivered = stand.query(_DELIVERED)[0][0]
            time.sleep(_SETTLE)
            situations["afterwards"] = look()
    finally:
        target.kill()
        target.wait(30)
    return {
        "concurrency": CONCURRENCY,
        "delivered": delivered,
        "pss_mb": {
            name: {process: round(size, 1) for process, size in look.items()}
            for name, look in situations.items()
        },
    }


def _jobs(url: str, due: datetime) -> list[dict[str, Any]]:
    return [
        {"schedule": due.isoformat(), "api": url, "payload": {"tenant": n % 997, "job": n}}
        for n in range(BULK)
    ]


def _request(stand: Stand, seconds: float) -> None:
    """Create jobs and read lists, by as many clients as the API has threads."""
    end = time.monotonic() + seconds
    job = json.dumps({"schedule": "@daily", "api": "http://127.0.0.1:9/", "payload": {"n": 1}}).encode()

    def call() -> None:
        while time.monotonic() < end:
            for path, body in (("/api/v1/jobs", job), ("/api/v1/jobs?limit=50", None)):
                request = urllib.request.Request(f"{stand.url}{path}", data=body)
                request.add_header("Authorization", f"Bearer {stand.key}")
                request.add_header("Content-Type", "application/json")
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()

    _at_once([call] * CLIENTS)


def _at_once(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _look(stand: Stand) -> Look:
    """What each process holds now, in MB; of the API, which is two, the one that serves counts as ``api``."""
    sizes: Look = {}
    for name, process in stand.processes.items():
        first, *children = tree(process.pid)
        sizes[f"{name} arbiter" if children else name] = pss_bytes([first]) / 1e6
        for child in children:
            sizes[name] = max(sizes.get(name, 0.0), pss_bytes([child]) / 1e6)
    return sizes


def bars(figures: Figures) -> Sequence[Bar]:
    """What each process may hold at most, in whichever situation."""
    sizes: Mapping[str, Look] = figures["pss_mb"]
    return [
        Bar(
            f"memory of a {process} process",
            max(look[process] for look in sizes.values()),
            most,
            "MB",
            "at most",
        )
        for process, most in BARS.items()
    ]


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """Idle and largest of each process."""
    rows = [
        (f"{process}, {name}", look[process], look[process], look[process])
        for process in BARS
        for name, look in figures["pss_mb"].items()
    ]
    title = "Memory of each process (PSS)"
    return [plots.horizontal_bars(folder / "memory-processes.svg", title, "MB", rows)]


def words(figures: Figures) -> str:
    """Each process in each situation."""
    looks: Mapping[str, Look] = figures["pss_mb"]
    rows = [
        [process, *(plots.amount(look.get(process, 0.0)) for look in looks.values())]
        for process in looks["idle"]
    ]
    return table(["PSS, MB", *looks], rows)


PART = Part("memory", "Memory of each process", measure, bars, draw, words)

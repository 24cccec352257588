"""Creating jobs over HTTP: one by one beside a bare Flask view, and ten thousand at a time.

All as `jobsched api` serves it, with its defaults: one serving process, eight threads. Single POSTs come from 16
keep-alive clients, in windows that take turns with two bare views (bench/bare.py) under the same gunicorn: one that
sends the same single statement, and one written as most people would. A bulk is one request of 10,000 jobs, timed
from its first byte to the end of the answer.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.clients import Client, documents, request
from bench.markdown import spread, table
from bench.part import Bar, Figures, Options, Part
from bench.plots import horizontal_bars
from bench.process import cpu_of, pss_bytes, tree
from bench.watch import until
from jobsched.embedded.ports import free_port
from jobsched.testing.stand import Stand

_CLIENTS = 16
_BULK = 10_000
_SINGLE, _BULKS, _NDJSON = "/api/v1/jobs", "/api/v1/jobs/bulk", "application/x-ndjson"
_LABELS = {
    "jobsched": "jobsched, POST /api/v1/jobs",
    "bare_one": "bare Flask view, one statement",
    "bare_plain": "bare Flask view, BEGIN, two INSERTs, COMMIT",
}


def measure(options: Options) -> Figures:
    """Windows of single POSTs in turns, then bulks of both kinds in turns, then bulks of two clients at once."""
    rounds, seconds, bulks = (1, 2.0, 2) if options.quick else (3, 10.0, 8)
    with Stand() as stand:
        port = int(stand.start_api().rsplit(":", 1)[1])
        api = tree(stand.processes["api"].pid)
        time.sleep(2)
        idle = _memory(api)
        with _bare(stand) as bare:
            sides = {
                "jobsched": (port, _SINGLE, api),
                "bare_one": (bare["port"], "/one", bare["tree"]),
                "bare_plain": (bare["port"], "/plain", bare["tree"]),
            }
            for place, path, _ in sides.values():
                _window(stand.key, place, path, 1.0)
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, (place, path, pids) in sides.items():
                    taken[name].append(_window_of(stand.key, place, path, pids, seconds))
        loaded = _memory(api)
        single = {name: _summed(windows) for name, windows in taken.items()}
        bulk = _bulks(stand, port, api, bulks)
        return {
            "clients": _CLIENTS,
            "jobs_a_bulk": _BULK,
            "single": single,
            "single_ratio": _ratio(single, "bare_one"),
            "single_ratio_to_plain": _ratio(single, "bare_plain"),
            "bulk": bulk,
            "api_pss_mb": {"idle": idle, "after_single_posts": loaded, "after_bulks": _memory(api)},
        }


def _ratio(single: Mapping[str, Any], other: str) -> float:
    ours, bare = single["jobsched"]["requests_per_second"], single[other]["requests_per_second"]
    return float(ours["median"] / bare["median"])


@contextmanager
def _bare(stand: Stand) -> Iterator[dict[str, Any]]:
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", "--port", str(port)]
    with (stand.folder / "log" / "bare.txt").open("wb") as log:
        process = subprocess.Popen(command, env=stand.environment(), stdout=log, stderr=log)
    try:
        until(partial(_answers, f"http://127.0.0.1:{port}/ready"), 30.0, "the bare view does not answer")
        yield {"port": port, "tree": tree(process.pid)}
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def _window(key: str, port: int, path: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.clients", "--port", str(port), "--path", path, "--key", key]
    command += ["--clients", str(_CLIENTS), "--seconds", str(seconds)]
    sent = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(sent.stdout)
    return result


def _window_of(key: str, port: int, path: str, pids: Sequence[int], seconds: float) -> dict[str, float]:
    before = cpu_of(pids)
    sent = _window(key, port, path, seconds)
    latencies = sorted(sent["milliseconds"])
    return {
        "requests_per_second": sent["requests"] / sent["seconds"],
        "server_cpu_us_per_request": 1e6 * (cpu_of(pids) - before) / sent["requests"],
        "client_cpu_us_per_request": 1e6 * sent["cpu_seconds"] / sent["requests"],
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[len(latencies) * 99 // 100],
    }


def _bulks(stand: Stand, port: int, api: Sequence[int], count: int) -> dict[str, Any]:
    taken: dict[str, list[dict[str, float]]] = {"json": [], "ndjson": [], "two_clients": []}
    kinds: dict[str, Callable[[float], bytes]] = {
        "json": lambda seed: _array(stand.key, seed),
        "ndjson": lambda seed: _lines(stand.key, seed),
    }
    for number in range(-1, count):  # the first is a warm-up
        for name, make in kinds.items():
            one = _bulk(port, api, [make(time.time())])
            if number >= 0:
                taken[name].append(one)
    for _ in range(max(2, count // 2)):
        taken["two_clients"].append(_bulk(port, api, [_lines(stand.key, time.time()) for _ in range(2)]))
    made = stand.query("SELECT count(*) FROM job WHERE key LIKE 'report-%%'")[0][0]
    asked = _BULK * (2 * (count + 1) + 2 * max(2, count // 2))
    assert made == asked, f"{made} jobs were made of {asked}"
    return {name: _summed(each) for name, each in taken.items()}


def _array(key: str, seed: float) -> bytes:
    return request(_BULKS, key, json.dumps(documents(_BULK, seed, keys=True)).encode())


def _lines(key: str, seed: float) -> bytes:
    lines = "\n".join(map(json.dumps, documents(_BULK, seed, keys=True)))
    return request(_BULKS, key, lines.encode(), _NDJSON)


def _bulk(port: int, api: Sequence[int], requests: Sequence[bytes]) -> dict[str, float]:
    clients = [Client(port) for _ in requests]
    before, began = cpu_of(api), time.perf_counter()
    for client, one in zip(clients, requests, strict=True):
        client.send(one)
    for client in clients:
        while client.answered() is None:
            pass
        client.close()
    seconds, jobs = time.perf_counter() - began, _BULK * len(requests)
    return {"jobs_per_second": jobs / seconds, "server_cpu_us_per_job": 1e6 * (cpu_of(api) - before) / jobs}


def _summed(windows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    names = windows[0]
    return {name: _spread([window[name] for window in windows]) for name in names}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}


def _memory(pids: Sequence[int]) -> dict[str, float]:
    arbiter, *serving = (pss_bytes([pid]) / 1e6 for pid in pids)
    return {"arbiter": arbiter, "serving": sum(serving), "together": arbiter + sum(serving)}


def bars(figures: Figures) -> Sequence[Bar]:
    """Bulk by one client at a time, in the slower of the two forms; single POSTs beside the faster bare view."""
    bulk = min(figures["bulk"][form]["jobs_per_second"]["median"] for form in ("json", "ndjson"))
    ratio = figures["single_ratio"]
    memory = figures["api_pss_mb"]["after_single_posts"]["together"]
    return [
        Bar("bulk of 10,000 jobs", bulk, 25_000, "jobs/s", "at least"),
        Bar("single POST, share of a bare Flask view with the same INSERT", ratio, 0.70, "", "at least"),
        Bar("API, arbiter and serving process, after single POSTs", memory, 80, "MB PSS", "at most"),
    ]


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """Single POSTs beside the bare views; bulks of each form."""
    return [
        horizontal_bars(
            folder / "create-single.svg",
            f"Jobs created one by one, {_CLIENTS} clients",
            "requests a second",
            [_row(_LABELS[name], side["requests_per_second"]) for name, side in figures["single"].items()],
        ),
        horizontal_bars(
            folder / "create-bulk.svg",
            "Jobs created 10,000 at a time",
            "jobs a second",
            [
                _row(label, figures["bulk"][name]["jobs_per_second"])
                for name, label in (
                    ("json", "JSON array"),
                    ("ndjson", "NDJSON"),
                    ("two_clients", "2 clients at once"),
                )
            ],
            mark=25_000,
        ),
    ]


def _row(label: str, value: Mapping[str, float]) -> tuple[str, float, float, float]:
    return label, value["median"], value["low"], value["high"]


def words(figures: Figures) -> str:
    """The figures in Markdown."""
    single = [
        [
            _LABELS[name],
            spread(side["requests_per_second"]),
            spread(side["server_cpu_us_per_request"]),
            spread(side["p50_ms"]),
            spread(side["p99_ms"]),
        ]
        for name, side in figures["single"].items()
    ]
    bulk = [
        [name, spread(one["jobs_per_second"]), spread(one["server_cpu_us_per_job"])]
        for name, one in figures["bulk"].items()
    ]
    memory = [
        [when, *(f"{one[part]:.0f}" for part in ("arbiter", "serving", "together"))]
        for when, one in figures["api_pss_mb"].items()
    ]
    return "\n".join(
        [
            table(["single POSTs, 16 clients", "a second", "server CPU, µs", "p50, ms", "p99, ms"], single),
            table(["bulks of 10,000", "jobs a second", "server CPU a job, µs"], bulk),
            table(["API's memory, PSS in MB", "arbiter", "serving", "together"], memory),
        ]
    )


PART = Part("create", "Creating jobs", measure, bars, draw, words)

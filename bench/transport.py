"""Calls alone: the loop that carries them, without Postgres and Redis, against a target that answers at once.

    python -m bench.transport URL --calls 60000 --seats 100 --hanging 900 --libcurl

In plain HTTP over connections of our own, and by libcurl, as TLS is. What this takes of a callback's processor time
cannot be saved elsewhere in a worker. Hanging calls go to a socket that accepts and never answers, and wait while the
others are measured: they must cost nothing. Each measurement runs in a process of its own.
"""

import gc
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from statistics import median

import click

from bench import plots
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.target import NginxTarget
from jobsched.callback import Call, Guard, Resolver, Transport
from jobsched.callback.request import build

CALLS, CALLS_QUICK = 60_000, 5_000
ROUNDS = 3
#: Calls in flight, those that hang beside them, and whether libcurl carries them.
SHAPES = tuple((*shape, by) for shape in ((100, 0), (100, 900), (512, 0)) for by in (False, True))


def measure(options: Options) -> Figures:
    """Rounds of all shapes, one after the other."""
    calls, rounds = (CALLS_QUICK, 1) if options.quick else (CALLS, ROUNDS)
    taken: dict[tuple[int, int, bool], list[dict[str, float]]] = {shape: [] for shape in SHAPES}
    with NginxTarget() as target:
        for _ in range(rounds):
            for shape in SHAPES:
                taken[shape].append(_in_a_process(f"{target.url}/callback", calls, *shape))
    shapes = [
        {
            "seats": seats,
            "hanging": hanging,
            "libcurl": by_libcurl,
            **{name: round(median(one[name] for one in several), 1) for name in several[0]},
        }
        for (seats, hanging, by_libcurl), several in taken.items()
    ]
    return {"calls": calls, "rounds": rounds, "shapes": shapes}


def _in_a_process(url: str, calls: int, seats: int, hanging: int, by_libcurl: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.transport", url, "--calls", str(calls)]
    command += ["--seats", str(seats), "--hanging", str(hanging)]
    command += ["--libcurl"] if by_libcurl else []
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout)
    assert found.pop("failed") == 0, found
    return found


def bars(_figures: Figures) -> Sequence[Bar]:
    """None: what a callback costs as a whole is promised by ``deliver``."""
    return []


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """Processor time of a call, by shape."""
    rows = [(_named(one), one["cpu_us"], one["cpu_us"], one["cpu_us"]) for one in figures["shapes"]]
    return [plots.horizontal_bars(folder / "transport-cpu.svg", "Processor time of a call alone", "µs", rows)]


def words(figures: Figures) -> str:
    """Speed and cost, by shape."""
    names = ("per_second", "cpu_us", "calls_a_turn")
    rows = [[_named(one), *(plots.amount(one[name]) for name in names)] for one in figures["shapes"]]
    return (
        f"{figures['calls']:,} calls, median of {figures['rounds']} rounds.\n\n"
        f"{table(['in flight', 'calls/s', 'CPU a call, µs', 'ends a turn'], rows)}"
    )


def _named(shape: dict[str, float]) -> str:
    hanging = f" and {shape['hanging']:,} that hang" if shape["hanging"] else ""
    return f"{shape['seats']:,}{hanging}{', libcurl' if shape['libcurl'] else ''}"


PART = Part("transport", "Calls alone", measure, bars, draw, words)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _call(number: int, url: str) -> Call:
    now = datetime.now(UTC)
    return build(
        execution_id=number,
        job_id=number % 1000,
        attempt=1,
        incarnation="bench0",
        scheduled_for=now,
        trigger="schedule",
        method="POST",
        url=url,
        job_headers={"X-A": "b"},
        payload_json='{"n":1}',
        timeout_seconds=120,
        follow_redirects=False,
        at_most_once=False,
        now=now,
    )


@click.command()
@click.argument("url")
@click.option("--calls", type=int, required=True)
@click.option("--seats", type=int, required=True, help="Calls in flight at once.")
@click.option("--hanging", type=int, default=0, help="Calls that hang meanwhile.")
@click.option("--libcurl", is_flag=True, help="Let libcurl carry plain HTTP, too.")
def main(url: str, calls: int, seats: int, hanging: int, libcurl: bool) -> None:
    """Print the figures as JSON."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    transport = Transport(
        concurrency=seats + hanging,
        guard=Guard([ip_network("127.0.0.0/8"), ip_network("::1/128")]),
        resolver=Resolver(),
        own_wire=not libcurl,
    )
    silent = socket.create_server(("127.0.0.1", 0), backlog=hanging + 1)
    hang_url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    for number in range(hanging):
        transport.start(_call(-1 - number, hang_url))
    for _ in range(20):
        transport.turn(0.02)
    gc.collect()
    gc.freeze()
    started = done = failed = turns = 0
    cpu, begin = _cpu(), time.monotonic()
    while done < calls:
        while started < calls and started - done < seats:
            transport.start(_call(started, url))
            started += 1
        turns += 1
        for result in transport.turn(1.0):
            done += 1
            failed += result.status != 200
    seconds, used = time.monotonic() - begin, _cpu() - cpu
    assert transport.in_flight == hanging, f"{transport.in_flight} are left, not {hanging}"
    found = {"per_second": calls / seconds, "cpu_us": 1e6 * used / calls, "calls_a_turn": calls / turns}
    print(json.dumps(found | {"failed": failed}))
    transport.close()
    silent.close()


if __name__ == "__main__":
    main()

"""Measures the transport alone: calls/s and CPU per call against a fast local target, with idle ones alongside.

    python bench/transport.py URL [--calls 60000] [--seats 100] [--hanging 900] [--method POST]

``URL`` should be a server that is faster than the transport, such as an nginx that returns 200;
``--hanging`` calls go to a socket that accepts and never answers, and wait while the others are measured.
"""

import gc
import resource
import socket
import time
from datetime import UTC, datetime
from ipaddress import ip_network

import click

from jobsched.callback import Call, Guard, Resolver, Transport
from jobsched.callback.request import build


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _call(number: int, url: str, method: str) -> Call:
    now = datetime.now(UTC)
    return build(
        execution_id=number,
        job_id=number % 1000,
        attempt=1,
        incarnation="bench0",
        scheduled_for=now,
        trigger="schedule",
        method=method,
        url=url,
        job_headers={"X-A": "b"},
        payload_json=None if method in {"GET", "HEAD"} else '{"n":1}',
        timeout_seconds=120,
        follow_redirects=False,
        at_most_once=False,
        now=now,
    )


@click.command()
@click.argument("url")
@click.option("--calls", default=60_000, show_default=True)
@click.option("--seats", default=100, show_default=True, help="Calls in flight at once.")
@click.option("--hanging", default=0, show_default=True, help="Calls that hang meanwhile.")
@click.option("--method", default="POST", show_default=True)
@click.option("--prebuilt", is_flag=True, help="Build the requests before the measurement.")
def main(url: str, calls: int, seats: int, hanging: int, method: str, prebuilt: bool) -> None:
    """Print one line with the figures."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    transport = Transport(
        concurrency=seats + hanging,
        guard=Guard([ip_network("127.0.0.0/8"), ip_network("::1/128")]),
        resolver=Resolver(),
    )
    silent = socket.create_server(("127.0.0.1", 0), backlog=hanging + 1)
    hang_url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    for number in range(hanging):
        transport.start(_call(-1 - number, hang_url, "POST"))
    for _ in range(20):
        transport.turn(0.02)
    ready = [_call(number, url, method) for number in range(calls)] if prebuilt else []
    gc.collect()
    gc.freeze()
    started = done = failed = turns = 0
    cpu, begin = _cpu(), time.monotonic()
    while done < calls:
        while started < calls and started - done < seats:
            transport.start(ready[started] if prebuilt else _call(started, url, method))
            started += 1
        turns += 1
        for result in transport.turn(1.0):
            done += 1
            failed += result.status != 200
    seconds, used = time.monotonic() - begin, _cpu() - cpu
    print(
        f"{method} seats {seats} hanging {transport.in_flight}: {calls / seconds:,.0f} calls/s, "
        f"{1e6 * used / calls:.1f} µs CPU a call, {calls / turns:.1f} calls a turn, {failed} failed"
    )
    transport.close()
    silent.close()


if __name__ == "__main__":
    main()

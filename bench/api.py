"""How fast the API answers one client, how many jobs it takes a second, and what memory each process holds.

    python bench/api.py [--requests 2000] [--clients 4] [--firing 200] [--seconds 15]

Starts servers, API, poller, worker and a target of its own; everything on this machine, so the clients and the
servers share its cores. Memory is PSS (shared pages divided among their holders), summed over a process's children.
``--firing`` jobs run each second for ``--seconds``, to see poller and worker under load and how late calls begin.
"""

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from jobsched.testing.stand import Stand

JOB = {"schedule": "@every 1h", "api": "http://127.0.0.1:9/", "payload": {"report": 7, "full": True}}
LATE = """
SELECT extract(epoch FROM started_at - scheduled_for)::float8 * 1000 FROM execution_history
WHERE trigger = 'schedule' AND started_at IS NOT NULL
"""


class Api:
    """One keep-alive connection to the API."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, self._headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def timed(self, expected: int, method: str, path: str, body: Any = None) -> tuple[float, Any]:
        """Milliseconds of one call, and its answer."""
        began = time.perf_counter()
        status, answer = self.call(method, path, body)
        assert status == expected, (status, answer)
        return 1000 * (time.perf_counter() - began), answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--firing", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    target = subprocess.Popen(
        [sys.executable, "-m", "jobsched.testing.target", "--port", "0", "--no-record"],
        stdout=subprocess.PIPE,
    )
    assert target.stdout is not None
    url = target.stdout.readline().decode().split()[-1].rstrip("/")
    try:
        with Stand() as stand:
            measure(stand, url, options)
    finally:
        target.kill()


def measure(stand: Stand, url: str, options: argparse.Namespace) -> None:
    port = free_port()
    key = stand.run("keys", "create", "--name", "bench", "--role", "admin").strip()
    for name, arguments in (
        ("api", ("--host", "127.0.0.1", "--port", str(port))),
        ("poller", ()),
        ("worker", ()),
    ):
        stand.start(name, name, *arguments)
    api = wait_for_api(stand, port, key)
    time.sleep(4)
    report_memory("idle", stand)

    ids = [api.timed(201, "POST", "/api/v1/jobs", JOB)[1]["id"] for _ in range(100)]
    creates = [api.timed(201, "POST", "/api/v1/jobs", JOB)[0] for _ in range(options.requests)]
    reads = [api.timed(200, "GET", f"/api/v1/jobs/{ids[n % 100]}")[0] for n in range(options.requests)]
    stats = [api.timed(200, "GET", "/queue/stats")[0] for _ in range(options.requests // 10)]
    health = [api.timed(200, "GET", "/health")[0] for _ in range(options.requests // 2)]
    for name, values in (("create", creates), ("read", reads), ("/queue/stats", stats), ("/health", health)):
        print(f"{name}, one client: {quantiles(values)} ms; {1000 / statistics.mean(values):.0f}/s")
    report_memory("after these", stand)

    rate = together(port, key, options.clients, options.requests // options.clients)
    print(f"create, {options.clients} clients at once: {rate:.0f}/s")

    for name, jobs in (
        ("alike", [JOB | {"key": f"alike {n}"} for n in range(10_000)]),
        ("all different", [JOB | {"maxRuns": n + 1} for n in range(10_000)]),
    ):
        took = api.timed(201, "POST", "/api/v1/jobs/bulk", jobs)[0]
        print(f"bulk of 10,000 jobs, {name}: {took / 1000:.2f} s; {10_000_000 / took:.0f}/s")
    report_memory("after the bulks", stand)

    firing = JOB | {"schedule": "@every 1s", "api": f"{url}/ok"}
    for _ in range(options.firing):
        api.timed(201, "POST", "/api/v1/jobs", firing)
    time.sleep(options.seconds)
    report_memory(f"firing {options.firing} jobs a second", stand)
    late = [row[0] for row in stand.query(LATE)]
    print(f"call begun after its due time: {quantiles(late)} ms, of {len(late)} calls")


def together(port: int, key: str, clients: int, each: int) -> float:
    """Jobs created a second by ``clients`` connections at once."""

    def create() -> None:
        api = Api(port, key)
        for _ in range(each):
            api.timed(201, "POST", "/api/v1/jobs", JOB)

    threads = [threading.Thread(target=create) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients * each / (time.perf_counter() - began)


def wait_for_api(stand: Stand, port: int, key: str) -> Api:
    end = time.monotonic() + 60
    while True:
        try:
            api = Api(port, key)
            if api.call("GET", "/ready")[1]["status"] == "ok":
                return api
        except OSError:
            pass
        assert time.monotonic() < end, stand.log_of("api")
        time.sleep(0.1)


def report_memory(when: str, stand: Stand) -> None:
    figures = ", ".join(f"{name} {pss(process.pid):.0f} MiB" for name, process in stand.processes.items())
    print(f"memory {when}: {figures}")


def pss(pid: int) -> float:
    """PSS of a process and its children, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = next(
        line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")
    )
    return int(own.split()[1]) / 1024 + sum(pss(int(child)) for child in children)


def quantiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:.1f}, p99 {cuts[98]:.1f}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

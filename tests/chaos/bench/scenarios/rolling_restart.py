"""Every process is stopped and replaced, one after the other, twice, under load: nobody outside notices."""

import signal
import time
from typing import Any

from tests.chaos.bench.scenarios.callers import Caller
from tests.chaos.bench.scenarios.stage import (
    Findings,
    Stage,
    account,
    patiently,
    pause,
    schedule_load,
    stop_load,
    told,
)


def run(
    *,
    rounds: int = 2,
    jobs: int = 150,
    answer_seconds: float = 0.5,
    apis: int = 2,
    pollers: int = 2,
    workers: int = 3,
    between: float = 0.5,
) -> dict[str, Any]:
    """``jobs`` are due each second, until all is replaced. Calls are shorter than the grace, so none may be cut off."""
    findings = Findings()
    stops: dict[str, list[float]] = {"api": [], "p": [], "w": []}
    with Stage() as stage:
        client = stage.cast(apis=apis, pollers=pollers, workers=workers, concurrency=150)
        url = f"{stage.target.url}/slow/{answer_seconds * 1000:.0f}"
        load = schedule_load(client, url, jobs=jobs, step=1, runs=600)
        urls = list(stage.urls.values())
        asking = [Caller(urls[n % apis :] + urls[: n % apis], stage.stand.key, retries=20) for n in range(2)]
        for caller in asking:
            caller.__enter__()
        pause(load.first + 2 - time.time())
        for _ in range(rounds):
            for name in sorted(stage.stand.processes):
                kind = name.rstrip("0123456789")
                before = time.monotonic()
                code = stage.stand.stop(name, signal.SIGTERM)
                stops[kind].append(time.monotonic() - before)
                findings.expect(code == 0, f"{name} ended with {code}")
                _start(stage, name, kind)
                pause(between)
        for caller in asking:
            caller.__exit__(None, None, None)
        figures = account(stage, findings, stop_load(stage, client, load), within=40)
        acknowledged = {job for caller in asking for job in caller.created}
        stored = [
            row[0] for row in stage.stand.query("SELECT id FROM job WHERE name = 'created by a caller'")
        ]
        interrupted = stage.said("calls_interrupted")
    findings.none_of([one for caller in asking for one in caller.failures()], "calls to the API failed")
    findings.none_of(acknowledged ^ set(stored), "acknowledged jobs are missing, or exist without an answer")
    findings.none_of(interrupted, "calls were cut off")
    findings.expect(figures["repeated_calls"] == 0, f"{figures['repeated_calls']} calls were repeated")
    return told(
        findings,
        figures
        | {
            "processes_replaced": sum(len(each) for each in stops.values()),
            "longest_stop_of_an_api_seconds": max(stops["api"]),
            "longest_stop_of_a_poller_seconds": max(stops["p"]),
            "longest_stop_of_a_worker_seconds": max(stops["w"]),
            "api_calls": sum(len(caller.asked) for caller in asking),
            "api_failures": sum(len(caller.failures()) for caller in asking),
            "api_calls_sent_again_after_a_broken_connection": sum(caller.retried for caller in asking),
            "api_slowest_seconds": max(caller.slowest() for caller in asking),
        },
    )


def _start(stage: Stage, name: str, kind: str) -> None:
    """Start it again, and wait until it is at work, as a rollout does before it goes on to the next."""
    if kind == "api":
        stage.api(name)
        return
    if kind == "p":
        stage.poller(name)
    else:
        stage.worker(name, concurrency=150)
    pid = stage.stand.processes[name].pid
    alive = "SELECT count(*) FROM worker_process WHERE state = 'alive' AND pid = %s"
    patiently(lambda: stage.stand.query(alive, (pid,)) == [(1,)], 30, f"{name} is registered")

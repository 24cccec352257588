"""Postgres ends at once and starts again, under load and with writes at the API: every process goes on by itself."""

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
    told,
)

_BEATS = "SELECT name, pid, beat FROM worker_process WHERE state = 'alive'"


def run(*, jobs: int = 200, runs: int = 40, away: float = 3.0, concurrency: int = 100) -> dict[str, Any]:
    """``jobs`` are due each second. Postgres is killed like by a power cut, and is back ``away`` seconds later."""
    findings = Findings()
    with Stage() as stage:
        client = stage.cast(apis=2, concurrency=concurrency)
        load = schedule_load(client, stage.target.url + "/slow/300", jobs=jobs, step=1, runs=runs)
        pids = {name: process.pid for name, process in stage.stand.processes.items()}
        asking = {name: Caller([url], stage.stand.key) for name, url in stage.urls.items()}
        for caller in asking.values():
            caller.__enter__()
        pause(load.first + 5.2 - time.time())  # not long after a full second, when most are in flight
        before = {(name, pid): beat for name, pid, beat in stage.stand.query(_BEATS)}
        in_flight = stage.running()
        killed = time.time()
        stage.stand.postgres.kill()
        pause(away)
        findings.expect(
            stage.stand.postgres.start() == stage.stand.database_url, "Postgres is somewhere else"
        )
        back = time.time()
        recovered: dict[str, float] = {}

        def look() -> bool:
            for name, pid, beat in stage.stand.query(_BEATS):
                # A beat after the return; a process that had to be born again is told of below.
                if beat > before.get((name, pid), -1):
                    recovered.setdefault(_slot(name, pid, pids), time.time() - back)
            return len(recovered) == len(before)

        try:
            patiently(look, 30, "every process beats again")
        except RuntimeError as error:
            findings.append(str(error))
        pause(3.0)
        for caller in asking.values():
            caller.__exit__(None, None, None)
        figures = account(stage, findings, load, within=60)
        for name, caller in asking.items():
            after = caller.first_success_after(back, "create")
            if findings.expect(after is not None, f"{name} has not created anything since"):
                recovered[name] = after or 0.0
        ended = stage.ended()
        acknowledged = {job for caller in asking.values() for job in caller.created}
        stored = {row[0] for row in stage.stand.query("SELECT id FROM job WHERE deleted_at IS NULL")}
        dead = stage.said("process_dead")
        first = min((call.at for call in stage.calls() if call.at > back), default=None)
    findings.none_of(ended, "processes have ended")
    findings.none_of(acknowledged - stored, "acknowledged jobs are missing")
    findings.none_of(dead, "pollers declared somebody dead")
    statuses = [one.status for caller in asking.values() for one in caller.failures()]
    findings.none_of([status for status in statuses if status != 503], "answers other than 2xx and 503")
    # The worker that was hit in the midst of a claim cannot know whether it was committed; nothing else is repeated.
    findings.expect(figures["repeated_calls"] == 0, f"{figures['repeated_calls']} calls were repeated")
    return told(
        findings,
        figures
        | {
            "in_flight_when_killed": in_flight,
            "away_seconds": back - killed,
            "acknowledged_creates": len(acknowledged),
            "api_answers_503": statuses.count(503),
            "api_slowest_seconds": max(caller.slowest() for caller in asking.values()),
            "seconds_until_recovered": dict(sorted(recovered.items())),
            "first_callback_after_seconds": None if first is None else first - back,
        },
    )


def _slot(name: str, pid: int, pids: dict[str, int]) -> str:
    """The name by which the scenario started a process."""
    return next((slot for slot, its in pids.items() if its == pid), name)

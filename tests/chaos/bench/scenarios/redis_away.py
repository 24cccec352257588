"""Redis is away for a minute: the API serves as ever, and what came due meanwhile is run once it is back."""

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

#: Seconds after Redis' return within which nothing due may be older than LATE seconds.
WITHIN, LATE = 10.0, 1.0

_OLDEST_DUE = f"""
SELECT (SELECT count(*) FROM execution
        WHERE state IN ('pending', 'queued', 'retrying') AND due_at < clock_timestamp() - interval '{LATE} s')
     + (SELECT count(*) FROM job_schedule WHERE next_execution_time < clock_timestamp() - interval '{LATE} s')
"""


def run(
    *,
    seconds: float = 60.0,
    jobs: int = 150,
    step: float = 2.0,
    callers: int = 2,
    before: float = 4.0,
    after: float = 20.0,
) -> dict[str, Any]:
    """``jobs`` are due every ``step`` seconds: ``before`` the outage, through it, and ``after`` it."""
    findings = Findings()
    with Stage() as stage:
        client = stage.cast(concurrency=200)
        runs = int((before + seconds + after) / step)
        load = schedule_load(client, stage.target.url + "/slow/100", jobs=jobs, step=step, runs=runs)
        pause(load.first + before - time.time())
        stage.stand.valkey.kill()
        away_since = time.time()
        asking = [Caller([stage.urls["api1"]], stage.stand.key) for _ in range(callers)]
        for caller in asking:
            caller.__enter__()
        pause(seconds)
        for caller in asking:
            caller.__exit__(None, None, None)
        waiting = stage.stand.query(_OLDEST_DUE)[0][0]
        came_meanwhile = [call for call in stage.calls() if call.at > away_since + 5]
        findings.expect(stage.stand.valkey.start() == stage.stand.redis_url, "Redis came back somewhere else")
        back = time.time()
        try:
            caught_up = patiently(lambda: stage.stand.query(_OLDEST_DUE)[0][0] == 0, 60, "all is caught up")
            findings.expect(caught_up <= WITHIN, f"catching up took {caught_up:.1f} s")
        except RuntimeError as error:
            findings.append(str(error))
            caught_up = None
        figures = account(stage, findings, load, within=60)
        acknowledged = {job for caller in asking for job in caller.created}
        stored = {row[0] for row in stage.stand.query("SELECT id FROM job WHERE deleted_at IS NULL")}
    findings.none_of(acknowledged - stored, "acknowledged jobs are missing")
    findings.expect(waiting > 0, "nothing waited for Redis")
    findings.none_of(came_meanwhile, "calls were made while Redis was away")
    for caller in asking:
        findings.none_of(caller.failures(), "calls to the API were not answered with 2xx")
    findings.expect(figures["repeated_calls"] == 0, f"{figures['repeated_calls']} calls were repeated")
    return told(
        findings,
        figures
        | {
            "away_seconds": back - away_since,
            "waiting_when_it_came_back": waiting,
            "caught_up_after_seconds": caught_up,
            "api_calls": sum(len(caller.asked) for caller in asking),
            "api_failures": sum(len(caller.failures()) for caller in asking),
            "api_slowest_seconds": max(caller.slowest() for caller in asking),
        },
    )

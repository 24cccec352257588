"""Redis forgets everything, again and again, with hundreds of executions queued and in flight."""

import random
import time
from typing import Any

import redis

from tests.chaos.bench.scenarios.stage import Findings, Stage, account, pause, schedule_load, told

#: Seconds after a wipe within which everything that was queued must have reached its target.
WITHIN = 15.0

_QUEUED = "SELECT id FROM execution WHERE state = 'queued'"


def run(
    *, jobs: int = 400, runs: int = 30, wipes: int = 5, concurrency: int = 70, seed: int = 1
) -> dict[str, Any]:
    """``jobs`` are all due each second; two workers take a good part of it to deliver them, so many wait."""
    findings, chance = Findings(), random.Random(seed)
    waits: list[float] = []
    queued_at_wipes: list[int] = []
    running_at_wipes: list[int] = []
    with Stage() as stage:
        client = stage.cast(concurrency=concurrency)
        load = schedule_load(client, stage.target.url + "/slow/200", jobs=jobs, step=1, runs=runs)
        link = stage.stand.link()
        wiped: list[tuple[float, set[int]]] = []
        every = (load.last - load.first) / (wipes + 0.5)
        with redis.Redis.from_url(stage.stand.redis_url) as valkey:
            for n in range(1, wipes + 1):
                # Soon after a full second, when most wait.
                moment = int(load.first + n * every) + chance.uniform(0.15, 0.4)
                pause(moment - time.time())
                running_at_wipes.append(stage.running())
                queued = {row[0] for row in link.execute(_QUEUED)}
                valkey.flushall()
                wiped.append((time.time(), queued))
                queued_at_wipes.append(len(queued))
        link.close()
        figures = account(stage, findings, load, within=60)
        arrived: dict[int, float] = {}
        for call in stage.calls():
            arrived.setdefault(call.execution, call.at)
        for at, queued in wiped:
            waits.append(max((arrived[i] - at for i in queued if i in arrived), default=0.0))
        refills = sum(stage.said("redis_refilled").values())
    findings.expect(max(waits) <= WITHIN, f"something waited for {max(waits):.1f} s after a wipe")
    findings.expect(figures["repeated_calls"] == 0, f"{figures['repeated_calls']} calls were repeated")
    findings.expect(max(queued_at_wipes) > 0, "nothing was queued at any wipe")
    findings.expect(refills > 0, "no poller has noticed a wipe")
    return told(
        findings,
        figures
        | {
            "wipes": wipes,
            "executions_a_second": jobs,
            "queued_at_wipes": queued_at_wipes,
            "running_at_wipes": running_at_wipes,
            "longest_wait_after_a_wipe_seconds": max(waits),
        },
    )

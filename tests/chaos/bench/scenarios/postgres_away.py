"""Postgres is away for 40 s with 200 calls in flight: they end as if nothing were, and all outcomes are recorded."""

import time
from collections import Counter
from typing import Any

from tests.chaos.bench.scenarios.stage import Findings, Stage, patiently, pause, run_at_once, told

_HISTORY = "SELECT id, state, attempt, finished_at FROM execution_history"
_WORKERS = "SELECT id, name, state FROM worker_process WHERE kind = 'worker' ORDER BY name"


def run(*, seconds: float = 40.0, calls: int = 200, longest: float = 50.0) -> dict[str, Any]:
    """The targets take from a few seconds up to ``longest``: some answer while Postgres is away, others later."""
    findings = Findings()
    with Stage() as stage:
        client = stage.cast(concurrency=calls * 5 // 4)
        shortest = min(6.0, longest / 4)
        answers = [shortest + (longest - shortest) * n / (calls - 1) for n in range(calls)]
        jobs = client.jobs.create_many(
            {
                "schedule": "@yearly",
                "api": f"{stage.target.url}/slow/{answer * 1000:.0f}",
                "timeout_seconds": longest + 20,
                "max_retry_count": 0,
                # Half of them may not be repeated: they would tell of a second call as a failure.
                "type": "AT_MOST_ONCE" if n % 2 else "AT_LEAST_ONCE",
            }
            for n, answer in enumerate(answers)
        )["ids"]
        slow = dict(zip(jobs, answers, strict=True))
        run_at_once(stage, jobs)
        stage.target.wait_for(calls, 20)
        patiently(lambda: stage.running() == calls, 3, "all are running")
        before = stage.stand.query(_WORKERS)
        began = {call.job: call.at for call in stage.calls()}
        gone = time.time()
        stage.stand.postgres.kill()
        pause(gone + seconds - time.time())
        findings.expect(
            stage.stand.postgres.start() == stage.stand.database_url, "Postgres is somewhere else"
        )
        back = time.time()
        ended_meanwhile = {
            job for job, answer in slow.items() if gone + 0.5 < began[job] + answer < back - 0.5
        }
        recorded = "SELECT count(*) FROM execution_history WHERE job_id = ANY(%s)"
        caught_up = None
        try:
            caught_up = patiently(
                lambda: stage.stand.query(recorded, (list(ended_meanwhile),))[0][0] == len(ended_meanwhile),
                20,
                "what ended during the outage is recorded",
            )
            patiently(lambda: len(stage.stand.query(_HISTORY)) == calls, longest + 20, "all is recorded")
        except RuntimeError as error:
            findings.append(str(error))
        rows = stage.stand.query(_HISTORY)
        counts = Counter(call.job for call in stage.calls())
        findings.none_of(stage.said("process_dead"), "pollers declared somebody dead")
        findings.none_of(stage.said("identity_given_up"), "workers gave themselves up")
        findings.expect(stage.stand.query(_WORKERS) == before, "the workers are not those from before")
    findings.none_of([job for job in jobs if counts[job] != 1], "executions not called exactly once")
    findings.none_of([row for row in rows if row[1:3] != ("succeeded", 1)], "executions that ended otherwise")
    findings.expect(0 < len(ended_meanwhile) < calls, f"{len(ended_meanwhile)} calls ended during the outage")
    return told(
        findings,
        {
            "away_seconds": back - gone,
            "calls_in_flight": calls,
            "ended_during_the_outage": len(ended_meanwhile),
            "recorded": len(rows),
            "those_recorded_after_its_return_seconds": caught_up,
        },
    )

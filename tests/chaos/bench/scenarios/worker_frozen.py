"""A worker stands still for a minute with calls in flight, and wakes up: others ran them, and it is not believed."""

import signal
import time
from collections import Counter
from typing import Any

from tests.chaos.bench.scenarios.stage import Findings, Stage, patiently, pause, run_at_once, told

_HISTORY = "SELECT id, state, attempt, worker FROM execution_history WHERE id = ANY(%s)"
_ALIVE = "SELECT name FROM worker_process WHERE kind = 'worker' AND state = 'alive'"


def run(*, seconds: float = 60.0, calls: int = 100, answer_seconds: float = 5.0) -> dict[str, Any]:
    """The target answers the frozen worker's calls after ``answer_seconds``; it reads that when it wakes up."""
    findings = Findings()
    with Stage() as stage:
        stage.api()
        stage.poller()
        stage.worker("frozen", concurrency=calls * 5 // 4)
        stage.wait_for_processes(2)
        client = stage.stand.client()
        url = f"{stage.target.url}/slow/{answer_seconds * 1000:.0f}"
        job = client.jobs.create(schedule="@yearly", api=url, timeout_seconds=30, max_retry_count=0)["id"]
        ids = run_at_once(stage, [job] * calls)
        stage.target.wait_for(calls, answer_seconds - 1)
        in_flight = stage.running()
        stage.stand.send("frozen", signal.SIGSTOP)
        frozen = time.time()
        stage.worker("other", concurrency=calls * 5 // 4)
        again: dict[int, float] = {}
        try:
            patiently(
                lambda: len(stage.stand.query(_HISTORY, (ids,))) == calls, seconds - 1, "others have run all"
            )
            again = {call.execution: call.at - frozen for call in stage.calls()[calls:]}
        except RuntimeError as error:
            findings.append(str(error))
        pause(frozen + seconds - time.time())
        stage.stand.send("frozen", signal.SIGCONT)
        woke = time.time()

        def is_back() -> bool:
            return ("frozen",) in stage.stand.query(_ALIVE) and "frozen" in stage.said("outcomes_fenced")

        try:
            patiently(
                is_back, 20, "the woken worker is registered anew and has been told that it is too late"
            )
        except RuntimeError as error:
            findings.append(str(error))
        back_after = time.time() - woke
        pause(2 * answer_seconds)
        rows = {row[0]: row[1:] for row in stage.stand.query(_HISTORY, (ids,))}
        counts = Counter(call.execution for call in stage.calls())
        given_up = stage.said("identity_given_up")
        # It is as good as any other now.
        stage.stand.stop("other")
        later = client.jobs.run(job)["id"]
        by = client.executions.wait(later, 30)["worker"]
    findings.expect(in_flight == calls, f"{in_flight} of {calls} were running")
    findings.none_of(set(ids) ^ again.keys(), "executions not run by the other")
    findings.none_of([i for i in ids if counts[i] != 2], "executions not called exactly twice")
    findings.none_of(
        [row for row in rows.items() if row[1] != ("succeeded", 2, "other")],
        "outcomes of the late worker were believed",
    )
    findings.expect(len(rows) == calls, f"{len(rows)} of {calls} are in the history")
    findings.expect("frozen" in given_up, "the woken worker has not given up its identity")
    findings.expect(by == "frozen", f"the next execution was run by {by}")
    return told(
        findings,
        {
            "frozen_seconds": woke - frozen,
            "in_flight_when_frozen": in_flight,
            "last_sent_again_after_seconds": max(again.values(), default=None),
            "registered_anew_after_seconds": back_after,
        },
    )

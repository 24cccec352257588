"""A worker with 200 calls in flight is killed: what may be repeated is sent again by another, the rest fails."""

import re
import time
from collections import Counter
from typing import Any

from tests.acceptance.accounts import calls_of
from tests.chaos.bench.scenarios.stage import Findings, Stage, patiently, run_at_once, told

#: Seconds after the death within which everything is sent again.
WITHIN = 30.0

_HISTORY = """
SELECT id, state, attempt, error_code, worker, attempts FROM execution_history WHERE id = ANY(%s)
"""


def run(*, at_least_once: int = 150, at_most_once: int = 50, answer_seconds: float = 12.0) -> dict[str, Any]:
    """The target takes ``answer_seconds``, so that all calls are in flight when their worker dies."""
    findings = Findings()
    total = at_least_once + at_most_once
    seats = total * 5 // 4  # a tenth of them is kept for what is urgent
    with Stage() as stage:
        stage.api()
        stage.poller()
        stage.worker("doomed", concurrency=seats)
        stage.wait_for_processes(2)
        client = stage.stand.client()
        url = f"{stage.target.url}/slow/{answer_seconds * 1000:.0f}"
        common = {"schedule": "@yearly", "api": url, "timeout_seconds": 60, "max_retry_count": 0}
        repeatable = client.jobs.create(common | {"type": "AT_LEAST_ONCE"})["id"]
        once = client.jobs.create(common | {"type": "AT_MOST_ONCE"})["id"]
        everything = run_at_once(stage, [repeatable] * at_least_once + [once] * at_most_once)
        # All are with the target before the first is answered, or the scenario proves nothing.
        stage.target.wait_for(total, answer_seconds - 1)
        first = stage.calls()
        ids = {
            "again": {call.execution for call in first if call.job == repeatable},
            "once": {call.execution for call in first if call.job == once},
        }
        in_flight = stage.running()
        stage.worker("other", concurrency=seats)
        patiently(lambda: "other" in _names(stage), 20, "the other worker is registered")
        findings.expect(in_flight == total, f"{in_flight} of {total} were running")
        killed = time.time()
        stage.kill("doomed")
        first_calls = {(call.execution, call.attempt) for call in stage.calls()}
        try:
            patiently(
                lambda: len(stage.stand.query(_HISTORY, (everything,))) == total,
                60 + answer_seconds,
                "all is over",
            )
        except RuntimeError as error:
            findings.append(str(error))
        rows = {row[0]: row[1:] for row in stage.stand.query(_HISTORY, (everything,))}
        calls = calls_of(stage.target.arrivals)
        events = stage.stand.log_of("p1")
    again = [call for call in calls if (call.execution, call.attempt) not in first_calls]
    findings.none_of(
        ids["again"] ^ {call.execution for call in again}, "executions sent again wrongly, or not at all"
    )
    counts = Counter(call.execution for call in calls)
    findings.none_of([i for i in ids["once"] if counts[i] != 1], "at most once, and not called once")
    findings.none_of([i for i in ids["again"] if counts[i] != 2], "at least once, and not called twice")
    waited = max((call.at - killed for call in again), default=0.0)
    findings.expect(waited <= WITHIN, f"the last was sent again after {waited:.1f} s")
    findings.none_of(
        [row for i, row in rows.items() if i in ids["again"] and not _is_told_as_sent_again(row)],
        "executions sent again are told otherwise",
    )
    findings.none_of(
        [
            row
            for i, row in rows.items()
            if i in ids["once"] and row[:4] != ("failed", 1, "worker_lost", "doomed")
        ],
        "executions that run at most once are told otherwise",
    )
    told_in_log = _recovered(events)
    findings.expect(
        told_in_log == (at_least_once, at_most_once),
        f"the log tells of {told_in_log} (retrying, failed) recovered",
    )
    return told(
        findings,
        {
            "in_flight_when_killed": in_flight,
            "sent_again": len(again),
            "failed_as_worker_lost": sum(row[2] == "worker_lost" for row in rows.values()),
            "first_sent_again_after_seconds": min((call.at - killed for call in again), default=None),
            "last_sent_again_after_seconds": waited,
        },
    )


def _is_told_as_sent_again(row: tuple[Any, ...]) -> bool:
    *ended, attempts = row
    lost = [(one["errorCode"], one["worker"]) for one in attempts]
    return ended == ["succeeded", 2, None, "other"] and lost == [("worker_lost", "doomed")]


def _names(stage: Stage) -> set[str]:
    return {row[0] for row in stage.stand.query("SELECT name FROM worker_process WHERE state = 'alive'")}


def _recovered(events: str) -> tuple[int, int]:
    """How many the poller has logged as retried and as failed because their worker was lost."""
    lines = [line for line in events.splitlines() if '"executions_recovered"' in line and '"doomed"' in line]
    numbers = [[int(n) for n in re.findall(r'"(?:retrying|failed)": ?(\d+)', line)] for line in lines]
    order = [re.findall(r'"(retrying|failed)"', line) for line in lines]
    sums: Counter[str] = Counter()
    for names, values in zip(order, numbers, strict=True):
        sums.update(dict(zip(names, values, strict=True)))
    return sums["retrying"], sums["failed"]

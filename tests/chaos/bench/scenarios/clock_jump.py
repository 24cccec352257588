"""The database's clock jumps an hour ahead and back, and swings by 30 s each way, with calls in flight.

Only the servers live by the clock that jumps; APIs, pollers and workers keep the right time.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from jobsched.client import Client
from tests.acceptance.accounts import every, stamp
from tests.chaos.bench.scenarios.stage import Findings, Stage, patiently, pause, run_at_once, told
from tests.chaos.clock import Clock, ClockedStand

HOUR = 3600.0

_WORKERS = "SELECT id, name, state FROM worker_process ORDER BY id"
_HISTORY = (
    "SELECT id, job_id, scheduled_for, state, attempt, skipped_count FROM execution_history ORDER BY id"
)
_SWING_EVERY = 0.2


def run(
    *, jobs: int = 20, step: int = 10, calls: int = 100, answer_seconds: float = 30.0, hold: float = 6.0
) -> dict[str, Any]:
    """``jobs`` run every ``step`` seconds with misfire policy fire_all, ``calls`` take ``answer_seconds``."""
    findings = Findings()
    with Clock() as clock:
        stand = ClockedStand(clock, processes=False, JOBSCHED_LOG_FORMAT="json", JOBSCHED_POLL_INTERVAL="1")
        with Stage(stand) as stage:
            client = stage.cast(concurrency=max(200, calls))
            start = clock.now() + timedelta(seconds=2)
            start -= timedelta(microseconds=start.microsecond)
            ticking = client.jobs.create_many(
                [
                    {
                        "schedule": f"@every {step}s",
                        "start_at": stamp(start),
                        "misfire_policy": "fire_all",
                        "api": stage.target.url + "/ok",
                    }
                ]
                * jobs
            )["ids"]
            common = {"schedule": "@yearly", "api": f"{stage.target.url}/slow/{answer_seconds * 1000:.0f}"}
            slow = [
                client.jobs.create(common | {"type": kind, "timeout_seconds": 2 * answer_seconds})["id"]
                for kind in ("AT_LEAST_ONCE", "AT_MOST_ONCE")
            ]
            flying = run_at_once(stage, [slow[n % 2] for n in range(calls)])
            by_hand = client.jobs.create(schedule="@yearly", api=stage.target.url + "/ok")["id"]
            patiently(
                lambda: sum(call.job in slow for call in stage.calls()) == calls,
                20,
                "the slow calls are in flight",
            )
            before = stand.query(_WORKERS)
            with _running_by_hand(stand.client(), by_hand) as asked:
                fired = [_fired(stage, ticking)]
                _swing(clock, 30.0, hold)
                for jump in (HOUR, -HOUR, HOUR):
                    clock.step(jump)
                    pause(hold)
                    fired.append(_fired(stage, ticking))
            for job in ticking:
                client.jobs.pause(job)
            try:
                patiently(
                    lambda: stand.query("SELECT count(*) FROM execution") == [(0,)],
                    answer_seconds + 60,
                    "all is over",
                    0.2,
                )
            except RuntimeError as error:
                findings.append(
                    f"{error}; left: {stand.query('SELECT state, count(*) FROM execution GROUP BY 1')}"
                )
            rows = stand.query(_HISTORY)
            arrived = Counter((call.execution, call.attempt) for call in stage.calls())
            findings.expect(stand.query(_WORKERS) == before, "the processes are not those from before")
            findings.none_of(stage.said("process_dead"), "pollers declared somebody dead")
            findings.none_of(stage.said("identity_given_up"), "workers gave themselves up")
            recovered = stage.said("executions_recovered")
    findings.none_of(recovered, "pollers took executions away")
    findings.none_of([row for row in rows if row[3:5] != ("succeeded", 1)], "executions that ended otherwise")
    findings.none_of([one for one, count in arrived.items() if count != 1], "attempts that arrived twice")
    findings.none_of(
        {row[0] for row in rows} ^ {one[0] for one in arrived}, "executions without a call, or calls without"
    )
    findings.none_of({*flying, *asked} - {row[0] for row in rows}, "executions lost")
    slots = defaultdict(list)
    for _id, job, slot, *_ in rows:
        slots[job].append(stamp(slot))
    for job in ticking:
        # In the order of their ids: none left out, none twice, and never one before another.
        expected = every(start, step, len(slots[job]))
        findings.expect(
            slots[job] == expected, f"job {job} ran {len(slots[job])} slots, not the first ones in order"
        )
    findings.expect(fired[1] > fired[0], "nothing fired after the jump ahead")
    findings.expect(fired[2] - fired[1] <= jobs, f"{fired[2] - fired[1]} slots fired after the jump back")
    return told(
        findings,
        {
            "calls_in_flight": calls,
            "executions": len(rows),
            "runs_by_hand_meanwhile": len(asked),
            "slots_fired_before_the_jumps": fired[0],
            "after_swinging_and_the_jump_ahead": fired[1],
            "after_the_jump_back": fired[2],
            "after_another_jump_ahead": fired[3],
        },
    )


def _swing(clock: Clock, by: float, seconds: float) -> None:
    """Put the clock ahead and back by ``by`` seconds, several times a second; it is right again afterwards."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for offset in (by, -by):
            clock.offset = offset
            pause(_SWING_EVERY)
    clock.offset = 0.0


def _fired(stage: Stage, jobs: list[int]) -> int:
    [(count,)] = stage.stand.query(
        "SELECT (SELECT count(*) FROM execution WHERE job_id = ANY(%(jobs)s))"
        " + (SELECT count(*) FROM execution_history WHERE job_id = ANY(%(jobs)s))",
        {"jobs": jobs},
    )
    return int(count)


@contextmanager
def _running_by_hand(client: Client, job: int) -> Iterator[list[int]]:
    """Run a job by hand again and again meanwhile; the ids of its executions."""
    ids: list[int] = []
    stopping = threading.Event()

    def run_again() -> None:
        while not stopping.wait(0.05):
            ids.append(client.jobs.run(job)["id"])

    thread = threading.Thread(target=run_again, daemon=True)
    thread.start()
    try:
        yield ids
    finally:
        stopping.set()
        thread.join(30)

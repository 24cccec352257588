"""Overlap policies under fire: schedules faster than their target, runs by hand without end, workers that die."""

import signal
import threading
from collections import Counter
from itertools import pairwise

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import by_job, calls_of
from tests.chaos.accounting import lasting, patiently

#: Seconds that the target takes for an answer.
SLOW = 3.0

_TOO_MANY = """
SELECT job_id, array_agg(state ORDER BY id) FROM execution WHERE state IN ('queued', 'running', 'retrying', 'blocked')
GROUP BY job_id HAVING count(*) FILTER (WHERE state <> 'blocked') > 1 OR count(*) FILTER (WHERE state = 'blocked') > 1
"""

_RUN_BY_W1 = (
    "SELECT e.job_id FROM execution e JOIN worker_process w ON w.id = e.worker_id WHERE w.name = 'w1'"
)


def test_never_two_at_once_and_nobody_blocked_for_ever(
    stand: Stand, client: Client, target: Target, full: bool
) -> None:
    number, seconds = (200, 30.0) if full else (40, 8.0)
    for name in ("p1", "p2"):
        stand.start(name, "poller")
    for name in ("w1", "w2", "w3"):
        stand.start(name, "worker", "--name", name, "--concurrency", "200")
    jobs = [
        client.jobs.create(
            schedule="@every 1s",
            api=f"{target.url}/slow/{SLOW * 1000:.0f}",
            overlap_policy="skip" if index % 2 else "queue",
        )["id"]
        for index in range(number)
    ]
    stopping = threading.Event()
    asked, faults = Counter[int](), list[object]()

    def run_by_hand(hand: Client, mine: list[int]) -> None:
        while not stopping.is_set():
            for job in mine:
                hand.jobs.run(job)
                asked[job] += 1
                if stopping.wait(0.005):
                    return

    def watch() -> None:
        link = stand.link()
        while not stopping.is_set():
            faults.extend(link.execute(_TOO_MANY))
        link.close()

    threads = [
        threading.Thread(target=run_by_hand, args=(stand.client(), jobs[: number // 2])),
        threading.Thread(target=run_by_hand, args=(stand.client(), jobs[number // 2 :])),
        threading.Thread(target=watch),
    ]
    for thread in threads:
        thread.start()
    lasting(seconds)
    stand.wait(f"SELECT count(*) > 0 FROM ({_RUN_BY_W1}) AS r", True)
    lost = {row[0] for row in stand.query(_RUN_BY_W1)}
    stand.stop("w1", signal.SIGKILL)
    lasting(1.0)
    stopping.set()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert set(asked) == set(jobs)
    before = len(target.arrivals)

    def every_job_is_called_again() -> None:
        called = {call.job for call in calls_of(target.arrivals[before:])}
        assert lost <= called

    # Its death is noticed after 20 s; then its executions are repeated, and what they had blocked follows.
    patiently(every_job_is_called_again, 60)
    for job in jobs:
        client.jobs.pause(job)
    patiently(lambda: _all_over(stand), 60)

    for job, calls in by_job(calls_of(target.arrivals)).items():
        gaps = [later.at - earlier.at for earlier, later in pairwise(calls)]
        # The target sees a request before its worker's clock does: a hair less than its own time of answering.
        assert min(gaps, default=SLOW) > SLOW - 0.05, (job, job in lost, sorted(gaps)[:3])
    reasons = stand.query(
        "SELECT state, trigger, error_code, sum(skipped_count) FROM execution_history GROUP BY 1, 2, 3"
    )
    ended = {(state, trigger): (code, count) for state, trigger, code, count in reasons}
    assert ended["skipped", "manual"][0] == ended["skipped", "schedule"][0] == "overlap"
    assert {state for state, _trigger in ended} == {"succeeded", "skipped"}
    # Every run that was asked for ended, one way or the other.
    manual = stand.query("SELECT job_id, count(*) FROM execution_history WHERE trigger = 'manual' GROUP BY 1")
    assert dict(manual) == dict(asked)


def _all_over(stand: Stand) -> None:
    assert stand.query("SELECT state, count(*) FROM execution GROUP BY 1") == []

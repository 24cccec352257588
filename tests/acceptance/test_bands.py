"""Priorities and pools: who is served first, and by whom."""

import time
from collections.abc import Iterator

import pytest

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import calls_of, seconds
from tests.conftest import eventually

#: A low-priority call takes so long, and so many of them wait.
SLOW, FLOOD = 0.2, 1500

_FLOOD = """
INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue)
SELECT 1, %s, 'manual', clock_timestamp(), clock_timestamp(), 'pending', 0, 'default', 'default.low'
FROM generate_series(1, %s) RETURNING 1
"""


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand(JOBSCHED_POLL_INTERVAL="1") as stand:
        stand.start_api()
        stand.start("p1", "poller")
        stand.start("w1", "worker", "--name", "w1", "--concurrency", "20")
        yield stand


def test_a_flood_of_low_priority_delays_the_others_by_no_more_than_one_batch(stand: Stand) -> None:
    client = stand.client()
    with Target() as target:
        low = client.jobs.create(schedule="@yearly", api=f"{target.url}/slow/{SLOW * 1000:.0f}", priority=0)[
            "id"
        ]
        normal, high = (
            client.jobs.create(schedule="@yearly", api=f"{target.url}/ok", priority=priority)["id"]
            for priority in (5, 9)
        )
        stand.query(_FLOOD, (low, FLOOD))
        target.wait_for(100, 30)
        asked = {}
        for _ in range(10):
            for job in (normal, high):
                execution = client.jobs.run(job)["id"]
                asked[execution] = job
                client.executions.wait(execution, 30)
        calls = [call for call in calls_of(target.arrivals) if call.execution in asked]
        delays = {
            job: sorted(call.at - seconds(call.slot) for call in calls if call.job == job)
            for job in (normal, high)
        }
        assert sum(call.job == low for call in calls_of(target.arrivals)) < FLOOD, (
            "the flood was over too early"
        )
        # A seat that serves the high band only is free; others become free when a batch of low calls is over.
        assert len(delays[normal]) == len(delays[high]) == 10
        assert delays[high][5] < SLOW
        assert delays[normal][-1] < 2 * SLOW + 0.5
        assert delays[high][-1] < SLOW + 0.5
        client.jobs.delete(low)


def test_a_job_is_run_by_the_workers_of_its_pool_and_waits_for_nobody_elses(stand: Stand) -> None:
    client = stand.client()
    with Target() as target:
        jobs = {
            pool: client.jobs.create(schedule="@yearly", api=f"{target.url}/ok?{pool}", pool=pool)["id"]
            for pool in ("default", "reports", "nobody")
        }
        stand.start("w2", "worker", "--name", "w2", "--pool", "reports")
        runs = {pool: client.jobs.run(job)["id"] for pool, job in jobs.items()}
        done = {pool: client.executions.wait(runs[pool], 30) for pool in ("default", "reports")}
        assert {pool: one["worker"] for pool, one in done.items()} == {"default": "w1", "reports": "w2"}

        def waits() -> None:
            assert client.executions.get(runs["nobody"])["state"] == "queued"

        eventually(waits, 10)
        stand.start("w3", "worker", "--name", "w3", "--pool", "nobody", "--pool", "reports")
        assert client.executions.wait(runs["nobody"], 30)["worker"] == "w3"
        stopped = time.monotonic()
        stand.stop("w2")
        assert client.executions.wait(client.jobs.run(jobs["reports"])["id"], 30)["worker"] == "w3"
        assert time.monotonic() - stopped < 10
        _only_known_targets(client, target, set(runs.values()))


def _only_known_targets(client: Client, target: Target, runs: set[int]) -> None:
    arrived = [call.execution for call in calls_of(target.arrivals)]
    assert runs <= set(arrived)
    assert len(arrived) == len(set(arrived))
    assert {client.executions.get(one)["attempt"] for one in arrived} == {1}

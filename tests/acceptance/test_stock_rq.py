"""RQ's own programs on our queues: a stock worker delivers, and ``rq info`` shows what is going on."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import assert_signed, calls_of
from tests.conftest import eventually

_RQ = Path(sys.executable).with_name("rq")
_QUEUE = re.compile(r"queue (\S+) (\d+), (\d+) executing, (\d+) finished, (\d+) failed")
_WORKER = re.compile(r"worker (\S+) \((\S+) (\S+) (\d+)\) (\S+) (.+)\. jobs: (\d+) finished, (\d+) failed")


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def stand() -> Iterator[Stand]:
    with Stand() as stand:
        stand.start("poller", "poller")
        stand.start_api()
        yield stand


def rq(stand: Stand, *arguments: str) -> str:
    """What one of RQ's programs prints, run with the environment of a worker of ours."""
    done = subprocess.run(
        [_RQ, *arguments, "--url", stand.redis_url],
        env=stand.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def queues(stand: Stand) -> dict[str, tuple[int, ...]]:
    """``rq info``'s numbers of each queue: waiting, executing, finished, failed."""
    return {
        name: tuple(map(int, numbers)) for name, *numbers in _QUEUE.findall(rq(stand, "info", "--raw", "-Q"))
    }


def run(client: Client, url: str, **fields: Any) -> int:
    """The id of an execution of a new job, run now."""
    job = client.jobs.create({"schedule": "@yearly", "api": url, "min_backoff_seconds": 0.5} | fields)
    return client.jobs.run(job["id"])["id"]


def test_a_stock_worker_delivers_and_retries_what_failed(stand: Stand, target: Target) -> None:
    client = stand.client()
    normal = run(client, target.url + "/ok", payload={"n": 1})
    high = run(client, target.url + "/ok", priority=9)
    failing = run(client, target.url + "/fail/1")
    stand.wait("SELECT count(*) FROM execution WHERE state = 'queued'", 3)
    burst = ("worker", "-S", "json", "default.high", "default", "--burst")
    rq(stand, *burst)
    states = {one: client.executions.get(one)["state"] for one in (normal, high, failing)}
    assert states == {normal: "succeeded", high: "succeeded", failing: states[failing]}
    assert states[failing] in {"retrying", "queued"}

    def delivered() -> None:
        rq(stand, *burst)
        assert client.executions.get(failing)["state"] == "succeeded"

    eventually(delivered, 30)
    told = [client.executions.get(one) for one in (normal, high, failing)]
    assert [(one["attempt"], one["responseStatus"]) for one in told] == [(1, 200), (1, 200), (2, 200)]
    assert all(str(one["worker"]).startswith("rq-") for one in told)
    calls = calls_of(target.arrivals)
    assert sorted((call.execution, call.attempt) for call in calls) == [
        (normal, 1),
        (high, 1),
        (failing, 1),
        (failing, 2),
    ]
    assert [call.arrival.body for call in calls if call.execution == normal] == [b'{"n":1}']
    assert_signed(client, calls)
    # Nothing of the stock worker is left behind.
    assert stand.query("SELECT count(*) FROM worker_process WHERE kind = 'worker'") == [(0,)]


def test_rq_info_shows_queues_and_jobs_as_they_are(stand: Stand, target: Target) -> None:
    stand.start("worker", "worker", "--name", "ours")
    client = stand.client()
    hanging = run(client, target.url + "/hang", timeout_seconds=120)
    dead = run(client, target.url + "/status/404", max_retry_count=0)
    waiting = run(client, target.url + "/status/500", min_backoff_seconds=600)
    for _ in range(3):
        run(client, target.url + "/ok")
    run(client, target.url + "/ok", priority=10)
    run(client, target.url + "/ok", pool="nobody")
    eventually(
        lambda: _equal(
            queues(stand), {"default": (0, 1, 3, 1), "default.high": (0, 0, 1, 0), "nobody": (1, 0, 0, 0)}
        ),
        20,
    )
    connection = redis.Redis.from_url(stand.redis_url)
    queue = Queue("default", connection=connection)
    assert queue.started_job_registry.get_job_ids() == [str(hanging)]
    assert queue.failed_job_registry.get_job_ids() == [str(dead)]
    assert queue.scheduled_job_registry.get_job_ids() == [str(waiting)]
    connection.close()


def test_rq_info_shows_our_worker_with_a_heartbeat(stand: Stand, target: Target) -> None:
    process = stand.start("worker", "worker", "--name", "ours")
    client = stand.client()

    def workers() -> list[tuple[str, ...]]:
        return [match.groups() for match in _WORKER.finditer(rq(stand, "info", "--raw", "-W"))]

    served = "default.high, default, default.low"
    run(client, target.url + "/hang", timeout_seconds=120)
    run(client, target.url + "/ok")
    run(client, target.url + "/status/404", max_retry_count=0)

    wanted = [("ours", str(process.pid), "busy", served, "1", "1")]
    eventually(lambda: _equal([(worker[0], *worker[3:]) for worker in workers()], wanted), 30)
    connection = redis.Redis.from_url(stand.redis_url)

    def heartbeat() -> str:
        return str(connection.hget("rq:worker:ours", "last_heartbeat"))

    before = heartbeat()
    eventually(lambda: _differs(heartbeat(), before), 20)
    connection.close()
    stand.processes["worker"].kill()
    stand.wait_for_end("worker")
    stand.start("worker", "worker", "--name", "theirs")
    eventually(lambda: _equal({worker[0] for worker in workers()} - {"ours"}, {"theirs"}), 20)
    assert stand.stop("worker") == 0
    assert {worker[0] for worker in workers()} <= {"ours"}


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def _differs(found: object, other: object) -> None:
    assert found != other

"""Kill, freeze and wipe each part under load: nothing is lost, and only what was in flight is called again."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import calls_of
from tests.chaos.accounting import Load, lasting, patiently

SEED = 20_261


def start(stand: Stand, *, pollers: int = 1, workers: int = 1, concurrency: int = 20) -> None:
    """Processes p1, p2 … and w1, w2 …, all of them at work when this returns."""
    for n in range(1, pollers + 1):
        stand.start(f"p{n}", "poller")
    for n in range(1, workers + 1):
        stand.start(f"w{n}", "worker", "--name", f"w{n}", "--concurrency", str(concurrency))
    stand.wait("SELECT count(*) FROM worker_process WHERE state <> 'dead'", pollers + workers, 30)


def test_a_killed_and_a_frozen_worker_lose_nothing_and_are_not_believed_afterwards(
    stand: Stand, client: Client, target: Target
) -> None:
    start(stand, workers=2, concurrency=3)
    job = client.jobs.create(schedule="@yearly", api=target.url + "/slow/2500", max_retry_count=0)["id"]
    ids = sorted(client.jobs.run(job)["id"] for _ in range(6))
    target.wait_for(6)
    stand.wait("SELECT count(DISTINCT worker_id) FROM execution WHERE state = 'running'", 2)
    broken = time.time()
    stand.send("w2", signal.SIGSTOP)
    stand.stop("w1", signal.SIGKILL)
    stand.start("w3", "worker", "--name", "w3")
    again = calls_of(target.wait_for(12, 40))[6:]
    assert sorted((call.execution, call.attempt) for call in again) == [(one, 2) for one in ids]
    assert max(call.at for call in again) - broken < 30
    keys = {(call.execution, call.key) for call in calls_of(target.arrivals)}
    assert len(keys) == len({key for _execution, key in keys}) == 6
    # The zombie wakes up with the answers of the first calls in its sockets.
    stand.send("w2", signal.SIGCONT)
    told = [client.executions.wait(one, 20) for one in ids]
    assert {(one["state"], one["attempt"], one["retryCount"], one["worker"]) for one in told} == {
        ("succeeded", 2, 0, "w3")
    }
    assert [[each["errorCode"] for each in one["attempts"]] for one in told] == [["worker_lost", None]] * 6
    assert {each["worker"] for one in told for each in one["attempts"]} == {"w1", "w2", "w3"}

    def noticed() -> None:
        said = stand.log_of("w2")
        assert "identity_given_up" in said
        assert "outcomes_fenced" in said

    patiently(noticed, 10)
    assert stand.query("SELECT count(*), count(DISTINCT id) FROM execution_history") == [(6, 6)]
    # It starts over under a new id, and is as good as any other.
    assert stand.stop("w3") == 0
    later = client.jobs.run(job)["id"]
    assert client.executions.wait(later, 20)["worker"] == "w2"
    assert stand.stop("w2") == 0


def test_a_poller_killed_under_load_loses_no_slot_and_doubles_none(
    stand: Stand, client: Client, target: Target
) -> None:
    start(stand, pollers=2, workers=2)
    load = Load(client, target.url + "/ok", jobs=60, runs=8)
    target.wait_for(120, 20)
    stand.stop("p1", signal.SIGKILL)
    target.wait_for(240, 20)
    stand.start("p3", "poller")
    stand.stop("p2", signal.SIGKILL)
    load.account(stand, target, repeats=0)


def test_a_wiped_redis_loses_nothing(
    stand: Stand, client: Client, target: Target, valkey: redis.Redis
) -> None:
    start(stand, pollers=2, workers=2)
    load = Load(client, target.url + "/slow/100", jobs=60, runs=8)
    chance = random.Random(SEED)
    for _ in range(5):
        lasting(chance.uniform(0.5, 1.5))
        valkey.flushall()
    load.account(stand, target, repeats=0)
    assert "redis_refilled" in stand.log_of("p1") + stand.log_of("p2")


def test_a_frozen_redis_delays_and_loses_nothing(stand: Stand, client: Client, target: Target) -> None:
    start(stand, pollers=2, workers=2)
    load = Load(client, target.url + "/slow/100", jobs=40, runs=8)
    target.wait_for(80, 20)
    assert stand.valkey.pid is not None
    os.kill(stand.valkey.pid, signal.SIGSTOP)
    try:
        lasting(5)
    finally:
        os.kill(stand.valkey.pid, signal.SIGCONT)
    load.account(stand, target, repeats=0)


def test_a_postgres_that_crashes_and_comes_back_loses_nothing(
    stand: Stand, client: Client, target: Target
) -> None:
    start(stand, pollers=2, workers=2)
    load = Load(client, target.url + "/slow/300", jobs=40, runs=10)
    target.wait_for(120, 20)
    in_flight = stand.query("SELECT count(*) FROM execution WHERE state = 'running'")[0][0]
    stand.postgres.kill()
    lasting(2)
    assert stand.postgres.start() == stand.database_url
    # A call in flight may be sent again only where its worker could not record it; both workers live.
    repeated = load.account(stand, target, repeats=2 * 20)
    assert repeated <= max(in_flight, 40)
    assert "process_dead" not in stand.log_of("p1") + stand.log_of("p2")


@pytest.fixture
def frozen_postgres(stand: Stand) -> Iterator[list[int]]:
    """Postgres' processes; they run again when the test is over."""
    found: list[int] = []
    yield found
    for pid in found:
        with_signal(pid, signal.SIGCONT)


def with_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def family(pid: int) -> list[int]:
    """A process and its children, the parent first."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [pid, *map(int, listed.stdout.split())]


def test_a_postgres_that_stands_still_makes_no_worker_dead(
    stand: Stand, client: Client, target: Target, frozen_postgres: list[int]
) -> None:
    start(stand, pollers=2, workers=2)
    load = Load(client, target.url + "/slow/300", jobs=40, runs=8)
    target.wait_for(80, 20)
    before = stand.query("SELECT id, name, state FROM worker_process ORDER BY name")
    assert stand.postgres.pid is not None
    frozen_postgres += family(stand.postgres.pid)
    for pid in frozen_postgres:
        with_signal(pid, signal.SIGSTOP)
    lasting(8)
    for pid in frozen_postgres:
        with_signal(pid, signal.SIGCONT)
    load.account(stand, target, repeats=0)
    assert stand.query("SELECT id, name, state FROM worker_process ORDER BY name") == before
    for name in ("w1", "w2"):
        assert "identity_given_up" not in stand.log_of(name)

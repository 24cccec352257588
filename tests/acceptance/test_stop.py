"""The stop protocol of a worker, with real signals: what is in flight, what is recorded, when the process ends."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import calls_of
from tests.conftest import eventually

#: Of these seconds the last five are kept for recording.
GRACE = 7
LEFT_FOR_CALLS = GRACE - 5


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand(JOBSCHED_SHUTDOWN_GRACE=str(GRACE)) as stand:
        stand.start("poller", "poller")
        stand.start_api()
        yield stand


@pytest.fixture
def client(stand: Stand, target: Target) -> Iterator[Client]:
    target.reset()
    yield stand.client()
    for name in [name for name in stand.processes if name.startswith("w")]:
        stand.stop(name, signal.SIGKILL)


def run(client: Client, url: str, **fields: Any) -> int:
    """The id of an execution of a new job, run now."""
    job = client.jobs.create({"schedule": "@yearly", "api": url, "timeout_seconds": 60} | fields)
    return client.jobs.run(job["id"])["id"]


def ended(stand: Stand, name: str) -> tuple[int, float]:
    """The exit code of a process and how many seconds it still took."""
    began = time.monotonic()
    code = stand.wait_for_end(name, 30)
    return code, time.monotonic() - began


def test_calls_that_end_within_the_grace_are_finished_and_recorded(
    stand: Stand, client: Client, target: Target
) -> None:
    stand.start("w1", "worker", "--name", "w1")
    ids = [run(client, target.url + "/slow/1200") for _ in range(5)]
    target.wait_for(5)
    stand.send("w1", signal.SIGTERM)
    late = run(client, target.url + "/ok")
    code, seconds = ended(stand, "w1")
    assert code == 0, stand.log_of("w1")
    assert seconds < LEFT_FOR_CALLS + 1, "it waited for more than its calls"
    told = [client.executions.get(one) for one in ids]
    assert {(one["state"], one["attempt"], one["errorCode"]) for one in told} == {("succeeded", 1, None)}
    # What was asked for after the signal is left to others.
    assert client.executions.get(late)["state"] in {"pending", "queued"}
    assert [call.execution for call in calls_of(target.arrivals)].count(late) == 0
    stand.start("w2", "worker", "--name", "w2")
    assert client.executions.wait(late, 30)["worker"] == "w2"
    assert stand.query("SELECT name FROM worker_process WHERE kind = 'worker'") == [("w2",)]


def test_calls_that_outlast_the_grace_are_interrupted_and_told_by_their_type(
    stand: Stand, client: Client, target: Target
) -> None:
    stand.start("w1", "worker", "--name", "w1")
    again = run(client, target.url + "/hang")
    once = run(client, target.url + "/hang", type="AT_MOST_ONCE")
    target.wait_for(2)
    stand.send("w1", signal.SIGTERM)
    code, seconds = ended(stand, "w1")
    assert code == 0, stand.log_of("w1")
    assert LEFT_FOR_CALLS - 0.5 < seconds < GRACE
    failed = client.executions.get(once)
    assert (failed["state"], failed["attempt"], failed["errorCode"]) == ("failed", 1, "worker_stopped")
    assert [letter["id"] for letter in client.dead_letters.list(job_id=failed["jobId"])] == [once]
    # Due now, by its right to be called at least once, and without a retry spent.
    waiting = client.executions.get(again)
    assert waiting["state"] in {"retrying", "queued"}
    assert (waiting["attempt"], waiting["retryCount"]) == (1, 0)
    assert [(one["worker"], one["errorCode"]) for one in waiting["attempts"]] == [("w1", "interrupted")]
    stand.start("w2", "worker", "--name", "w2")
    calls = calls_of(target.wait_for(3, 30))
    assert [(call.execution, call.attempt) for call in calls[2:]] == [(again, 2)]
    assert len({call.key for call in calls if call.execution == again}) == 1


def test_a_second_signal_a_second_later_ends_the_process_at_once(
    stand: Stand, client: Client, target: Target
) -> None:
    stand.start("w1", "worker", "--name", "w1")
    run(client, target.url + "/hang", type="AT_MOST_ONCE")
    target.wait_for(1)
    stand.send("w1", signal.SIGTERM)
    first = time.monotonic()
    eventually(lambda: _at_least(time.monotonic() - first, 1.1))
    stand.send("w1", signal.SIGTERM)
    code, seconds = ended(stand, "w1")
    assert (code, seconds < 0.5) == (130, True)


def test_signals_within_a_second_are_one_wish(stand: Stand, client: Client, target: Target) -> None:
    stand.start("w1", "worker", "--name", "w1")
    slow = run(client, target.url + "/slow/1000")
    target.wait_for(1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        stand.send("w1", number)
    code, _seconds = ended(stand, "w1")
    assert code == 0
    assert client.executions.get(slow)["state"] == "succeeded"


def test_an_idle_worker_and_the_poller_stop_at_once(stand: Stand, client: Client) -> None:
    stand.start("w-idle", "worker", "--name", "w-idle")
    stand.start("p2", "poller")
    stand.wait("SELECT count(*) FROM worker_process WHERE name = 'w-idle'", 1)
    eventually(lambda: _contains(stand.log_of("p2"), "poller_started"))
    began = time.monotonic()
    assert [stand.stop(name) for name in ("w-idle", "p2")] == [0, 0]
    assert time.monotonic() - began < 4


def _at_least(found: float, wanted: float) -> None:
    assert found >= wanted


def _contains(text: str, wanted: str) -> None:
    assert wanted in text

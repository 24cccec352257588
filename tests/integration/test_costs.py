"""What an execution costs, in things that can be counted: the same on every machine, however busy it is.

A change that makes the hot path dearer shows here, and not weeks later in a measurement. The bounds stand a little
above what is counted today. Whoever lowers a cost lowers its bound; whoever raises one says what it is good for.
"""

import sys
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from jobsched.config import load_settings
from jobsched.db import claims
from jobsched.db.session import Session
from jobsched.poller.process import Dispatch
from jobsched.queue.broker import Waker
from jobsched.queue.connection import connect
from jobsched.testing.target import Target
from jobsched.worker.process import Worker
from tests.conftest import eventually
from tests.integration.factories import make_job

#: Executions that are counted over: two batches of a worker's intake, one of the poller.
EXECUTIONS = 400

#: What each may be at most.
MOST = {
    # Exchanges with Postgres.
    "idle round of a poller": 6,
    "round of a poller that fires a batch": 12,
    "worker, for all executions": 32,
    # Commands that Redis carries out for one execution, those inside scripts counted one by one.
    "redis, pushed": 2.2,
    "redis, from push to the end": 5.6,
    # Functions of ours that start in Python.
    "python, fired": 30,
    "python, delivered": 75,
    "python, claimed and recorded": 7,
    # Characters of a statement up to which psycopg keeps what it has read in it; each time it costs 50 µs.
    "statement": 4096,
}


@pytest.fixture
def due(link):
    """Jobs that are all due now, and no worker yet."""
    with Target() as target:
        for n in range(EXECUTIONS):
            make_job(
                link, api=f"{target.url}/slow/300", payload={"n": n}, schedule=f"{n % 60} {n % 24} * * *"
            )
        yield


@pytest.fixture
def worker(database_url, redis_url):
    settings = load_settings(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JOBSCHED_ALLOW_TARGETS": "127.0.0.0/8",
            "JOBSCHED_CONCURRENCY": str(2 * EXECUTIONS),
            "JOBSCHED_SHUTDOWN_GRACE": "6",
        }
    )
    waker, clients = Waker(redis_url, settings.pools), []

    def client():
        clients.append(connect(redis_url))
        return clients[-1]

    def ignore(*_anything):
        pass

    worker = Worker(settings, client, waker, name="w1", on_retry=ignore, on_shutdown=ignore)
    worker.begin()
    for service in worker.services:
        service.start()
    yield worker
    clean = worker.finish()
    for service in worker.services:
        service.stop(5)
    worker.close(clean=clean)
    waker.close()
    for one in clients:
        one.close()


@pytest.fixture
def exchanges(monkeypatch):
    """Exchanges with Postgres so far, by the name of the thread that waited for them."""
    counted, wait = Counter(), Session.wait

    def counting(self, *args, **kwargs):
        counted[threading.current_thread().name] += 1
        return wait(self, *args, **kwargs)

    monkeypatch.setattr(Session, "wait", counting)
    return counted


@contextmanager
def calls_counted():
    """Starts of our own Python functions inside the block, in all threads, by module."""
    counted, monitoring = Counter(), sys.monitoring

    def started(code, _offset):
        _, ours, module = code.co_filename.rpartition("/jobsched/")
        if not ours or module.startswith("testing/"):
            return monitoring.DISABLE
        counted[module] += 1
        return None

    monitoring.use_tool_id(monitoring.PROFILER_ID, "costs")
    monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.PY_START, started)
    monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.PY_START)
    try:
        yield counted
    finally:
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.free_tool_id(monitoring.PROFILER_ID)


def commands(client):
    """Commands that Redis has carried out since the last reset, those of scripts among them."""
    stats = client.info("commandstats")
    ours = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    return Counter({name: calls for name, calls in ours.items() if name not in ("info", "config|resetstat")})


def within(cost, counted, detail=""):
    """Hold a cost against its bound; ``detail`` says where it comes from when it is too large."""
    assert counted <= MOST[cost], f"{cost}: {counted:.4g}, at most {MOST[cost]}. {detail}"


def delivered(link):
    def check():
        assert link.execute("SELECT count(*) FROM execution_history WHERE state = 'succeeded'") == [
            (EXECUTIONS,)
        ]

    return check


def test_rounds_of_a_poller(link, broker, due, exchanges):
    dispatch = Dispatch(link, broker, 10_000, 5.0)
    dispatch.run_once()
    assert link.execute("SELECT count(*) FROM execution") == [(EXECUTIONS,)]
    within("round of a poller that fires a batch", exchanges["MainThread"] - 1)
    exchanges.clear()
    dispatch.run_once()
    within("idle round of a poller", exchanges["MainThread"])


def test_an_execution_from_its_due_time_to_its_end(link, broker, redis_url, due, worker, exchanges):
    client = connect(redis_url)
    client.config_resetstat()
    Dispatch(link, broker, 10_000, 5.0).run_once()
    eventually(delivered(link), timeout=30)
    eventually(lambda: _shown(client), timeout=10)
    counted = commands(client)
    client.close()
    within("redis, from push to the end", sum(counted.values()) / EXECUTIONS, counted)
    of_worker = sum(n for thread, n in exchanges.items() if thread not in ("MainThread", "liveness"))
    assert of_worker > 0, exchanges
    within("worker, for all executions", of_worker, exchanges)


def test_a_push(broker, redis_url):
    client = connect(redis_url)
    broker.push([("default", 1)])  # the script is known from here on
    client.config_resetstat()
    broker.push([("default", execution) for execution in range(2, EXECUTIONS + 2)])
    counted = commands(client)
    client.close()
    within("redis, pushed", sum(counted.values()) / EXECUTIONS, counted)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_calls_of_python(link, broker, due, worker):
    with calls_counted() as fired:
        Dispatch(link, broker, 10_000, 5.0).run_once()
        # What the worker does meanwhile counts in its own modules.
        firing = sum(n for module, n in fired.items() if not module.startswith(("worker/", "callback/")))
        within("python, fired", firing / EXECUTIONS, fired.most_common(20))
        eventually(delivered(link), timeout=30)
    working = sum(n for module, n in fired.items() if module.startswith(("worker/", "callback/")))
    within("python, delivered", working / EXECUTIONS, fired.most_common(20))
    recording = sum(fired[f"db/{module}.py"] for module in ("claims", "ended", "arrays"))
    within("python, claimed and recorded", recording / EXECUTIONS, fired.most_common(20))


def test_statements_of_a_usual_call_are_read_once():
    for statement in (claims._CLAIM, claims._FINISH_GOOD):
        within("statement", len(statement))


def _shown(client):
    assert client.zcard("rq:finished:default") == EXECUTIONS

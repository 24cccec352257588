"""One stand for all faults of a module: the API lives through them, workers and pollers are started anew."""

import signal
from collections.abc import Iterator

import pytest
import redis

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target

_TABLES = "execution, execution_history, dead_letter, job_last, job_schedule, job, worker_process"


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand(JOBSCHED_POLL_INTERVAL="1") as stand:
        stand.start_api()
        yield stand


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def valkey(stand: Stand) -> Iterator[redis.Redis]:
    connection = redis.Redis.from_url(stand.redis_url, socket_timeout=5)
    yield connection
    connection.close()


@pytest.fixture
def client(stand: Stand) -> Iterator[Client]:
    """A client of the stand's API. Afterwards no process but the API runs, and nothing is in either server."""
    yield stand.client()
    for name in [name for name in stand.processes if name != "api"]:
        stand.stop(name, signal.SIGKILL)
    for path in stand.log_path("api").parent.glob("[pw]?.txt"):
        path.unlink()
    stand.query(f"TRUNCATE {_TABLES} CASCADE")
    with redis.Redis.from_url(stand.redis_url) as connection:
        connection.flushall()

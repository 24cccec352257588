from collections.abc import Iterator

import pytest

from jobsched.callback import Transport
from jobsched.db.connection import Link
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.testing.target import Target
from tests.integration import transports


@pytest.fixture
def link(database_url: str) -> Iterator[Link]:
    """A connection to this test's own database."""
    link = Link(database_url, "test")
    yield link
    link.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    """A broker of an empty Redis."""
    client = connect(redis_url)
    client.flushall()
    yield Broker(client)
    client.close()


@pytest.fixture(params=["wire", "libcurl"])
def both_carriers(request, monkeypatch):
    """Once with connections of the transport's own for plain HTTP, and once with libcurl for everything."""
    monkeypatch.setattr(transports, "own_wire", request.param == "wire")


@pytest.fixture(scope="module")
def target_of_module() -> Iterator[Target]:
    """A target that runs as long as its module: to start one for each test takes longer than most of them."""
    with Target() as running:
        yield running


@pytest.fixture
def target(target_of_module: Target) -> Target:
    """A target to which nothing has come."""
    target_of_module.reset()
    return target_of_module


@pytest.fixture
def transport(target: Target) -> Iterator[Transport]:
    """A transport that may call the target."""
    opened = transports.open_transport()
    yield opened
    opened.close()

"""What a worker shows RQ's tools of what it does, gathered into few exchanges."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from jobsched.db.claims import Claimed, Recorded
from jobsched.domain.outcome import Policy
from jobsched.errors import QueueUnavailable
from jobsched.queue.connection import connect
from jobsched.worker.seats import Seat
from jobsched.worker.show import Show
from tests.conftest import eventually


@pytest.fixture
def client(broker, redis_url):
    client = connect(redis_url)
    yield client
    client.close()


def seat(id):
    scheduled = datetime.now(UTC)
    claimed = Claimed(
        id,
        1,
        1,
        1,
        0,
        "schedule",
        "default",
        scheduled,
        None,
        "http://a/",
        "POST",
        0.0,
        {},
        30.0,
        False,
        Policy(),
    )
    return Seat(claimed, uuid4())


def members(client, registry):
    return sorted(member.decode() for member in client.zrange(f"rq:{registry}:default", 0, -1))


def test_only_where_an_execution_is_at_the_end_of_a_batch_is_shown(broker, client):
    queues = dict.fromkeys(range(1, 6), "default")
    broker.push([("default", id) for id in queues])
    show = Show(broker, "w1")
    show.started([seat(id) for id in queues])
    show.ended(
        queues, [Recorded(1, "succeeded"), Recorded(2, "retrying", 0.0), Recorded(3, "retrying", 60.0)]
    )
    show.ended(queues, [Recorded(4, "retrying", 60.0)])
    show.started([seat(4)])
    show.begin()
    show.end(10)
    assert members(client, "finished") == ["1"]
    assert members(client, "scheduled") == ["3"]
    assert members(client, "wip") == ["4:jobsched", "5:jobsched"]
    statuses = [client.hget(f"rq:job:{id}", "status").decode() for id in queues]
    assert statuses == ["finished", "queued", "scheduled", "started", "started"]


def test_what_was_shown_as_started_leaves_started_at_its_end(broker, client):
    broker.push([("default", 1)])
    broker.show_started([("default", 1, 2e9)], "w1")
    show = Show(broker, "w1")
    show.ended({1: "default"}, [Recorded(1, "failed"), Recorded(2, "succeeded")])
    show.begin()
    show.end(10)
    assert members(client, "wip") == []
    assert members(client, "failed") == ["1"]
    assert members(client, "finished") == []


def test_what_ends_while_redis_is_away_is_shown_once_it_is_back(broker, client, monkeypatch):
    """Its hash said "queued", for eight days, and stood in no list."""
    queues = dict.fromkeys(range(1, 4), "default")
    broker.push([("default", id) for id in queues])
    broker.take(["default"], 3)
    settle, failures = broker.settle, []

    def failing(entries):
        if len(failures) < 2:
            failures.append(entries)
            raise QueueUnavailable("away")
        settle(entries)

    monkeypatch.setattr(broker, "settle", failing)
    show = Show(broker, "w1")
    show.begin()
    show.ended(queues, [Recorded(1, "succeeded"), Recorded(2, "retrying", 60.0)])

    def tried():
        assert failures

    eventually(tried, 5)
    show.ended(queues, [Recorded(2, "succeeded")])

    def shown():
        assert members(client, "finished") == ["1", "2"]
        assert members(client, "scheduled") == []
        assert client.hget("rq:job:1", "status") == b"finished"

    eventually(shown, 5)
    show.end(10)


def test_a_stop_does_not_wait_for_redis(broker, monkeypatch):
    def away(_entries):
        raise QueueUnavailable("away")

    monkeypatch.setattr(broker, "settle", away)
    show = Show(broker, "w1")
    show.begin()
    show.ended({1: "default"}, [Recorded(1, "succeeded")])
    show.end(5)
    assert not show._thread.is_alive()

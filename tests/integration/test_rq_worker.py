"""Our worker in the eyes of RQ's tools, with Redis present, wiped and away."""

import threading
import time
from collections.abc import Iterator

import pytest
import redis
from click.testing import CliRunner
from rq.cli.cli import main as rq_command
from rq.command import send_command, send_kill_horse_command, send_shutdown_command
from rq.suspension import resume, suspend
from rq.worker import Worker

from jobsched.queue.connection import connect
from jobsched.worker.rq_worker import RqPresence
from tests.conftest import eventually


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def stopped() -> threading.Event:
    return threading.Event()


@pytest.fixture
def presence(client: redis.Redis, stopped: threading.Event) -> Iterator[RqPresence]:
    presence = RqPresence(name="host-1", pools=["default", "eu"], client=client, on_shutdown=stopped.set)
    yield presence
    presence.vanish()


def info(redis_url: str) -> str:
    result = CliRunner().invoke(
        rq_command, ["info", "--raw", "-W", "--url", redis_url], catch_exceptions=False
    )
    return str(result.output)


def listeners(client: redis.Redis) -> int:
    return int(client.pubsub_numsub("rq:pubsub:host-1")[0][1])


def test_rq_info_shows_the_worker_from_birth_to_death(presence: RqPresence, redis_url: str) -> None:
    assert "host-1" not in info(redis_url)
    presence.appear()
    assert "worker host-1 (" in info(redis_url)
    presence.beat(busy=True, succeeded=12, failed=3, in_flight=7)
    queues = "default.high, default, default.low, eu.high, eu, eu.low"
    assert f" busy {queues}. jobs: 12 finished, 3 failed" in info(redis_url)
    presence.beat(busy=False, succeeded=12, failed=3, in_flight=0)
    assert " idle " in info(redis_url)
    presence.vanish()
    assert "host-1" not in info(redis_url)


def test_rq_knows_where_the_worker_is_and_which_queues_it_serves(
    presence: RqPresence, client: redis.Redis
) -> None:
    presence.appear()
    presence.beat(busy=False, succeeded=0, failed=0, in_flight=0)
    (worker,) = Worker.all(connection=connect_like(client))
    assert worker.ip_address.startswith("127.0.0.1:")
    assert worker.queue_names()[:2] == ["default.high", "default"]
    assert worker.birth_date <= worker.last_heartbeat
    assert 30 < client.ttl(worker.key) <= 90


def test_a_wiped_redis_shows_the_worker_again_after_one_beat(
    presence: RqPresence, client: redis.Redis, redis_url: str
) -> None:
    presence.appear()
    client.flushall()
    assert "host-1" not in info(redis_url)
    presence.beat(busy=True, succeeded=1, failed=0, in_flight=1)
    assert "busy default.high" in info(redis_url)
    presence.vanish()
    assert client.smembers("rq:workers") == set()


def test_the_entry_of_a_killed_predecessor_is_taken_over(
    presence: RqPresence, client: redis.Redis, redis_url: str
) -> None:
    client.hset("rq:worker:host-1", mapping={"birth": "2020-01-01T00:00:00.000000Z", "state": "busy"})
    presence.appear()
    assert info(redis_url).count("host-1") == 1
    assert client.hget("rq:worker:host-1", "birth") != b"2020-01-01T00:00:00.000000Z"


def test_workers_that_died_without_a_word_are_swept_from_our_queues(
    presence: RqPresence, client: redis.Redis
) -> None:
    client.sadd("rq:workers", "rq:worker:gone")
    client.sadd("rq:workers:default", "rq:worker:gone")
    presence.appear()
    assert client.smembers("rq:workers") == client.smembers("rq:workers:default") == {b"rq:worker:host-1"}


def test_the_shutdown_command_reaches_us(
    presence: RqPresence, client: redis.Redis, stopped: threading.Event
) -> None:
    presence.appear()
    send_shutdown_command(client, "host-1")
    assert stopped.wait(5)


def test_commands_for_one_job_and_rubbish_are_ignored_and_we_listen_on(
    presence: RqPresence, client: redis.Redis, stopped: threading.Event
) -> None:
    presence.appear()
    send_kill_horse_command(client, "host-1")
    send_command(client, "host-1", "stop-job", job_id="1")
    for rubbish in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"command": ["x"]}', b'"shutdown"'):
        client.publish("rq:pubsub:host-1", rubbish)
    assert not stopped.is_set()
    send_shutdown_command(client, "host-1")
    assert stopped.wait(5)


def test_a_lost_subscription_comes_back(
    presence: RqPresence, client: redis.Redis, stopped: threading.Event
) -> None:
    presence.appear()
    eventually(lambda: _equal(listeners(client), 1))
    client.client_kill_filter(_type="pubsub")

    def again() -> None:
        presence.beat(busy=False, succeeded=0, failed=0, in_flight=0)
        assert listeners(client) == 1

    eventually(again)
    send_shutdown_command(client, "host-1")
    assert stopped.wait(5)


def test_rq_suspend_and_resume_are_seen(presence: RqPresence, client: redis.Redis, redis_url: str) -> None:
    presence.appear()
    assert not presence.suspended()
    suspend(client)
    assert presence.suspended()
    presence.beat(busy=False, succeeded=0, failed=0, in_flight=0)
    assert " suspended " in info(redis_url)
    resume(client)
    assert not presence.suspended()


def test_the_connection_keeps_its_short_timeouts(presence: RqPresence, client: redis.Redis) -> None:
    presence.appear()
    assert client.get_connection_kwargs()["socket_timeout"] == 2.0


def test_without_redis_everything_returns_at_once_and_quietly() -> None:
    away = connect("redis://127.0.0.1:1/0")
    presence = RqPresence(name="w", pools=["default"], client=away, on_shutdown=lambda: None)
    start = time.monotonic()
    presence.appear()
    presence.beat(busy=True, succeeded=1, failed=0, in_flight=1)
    assert not presence.suspended()
    presence.vanish()
    assert time.monotonic() - start < 1
    away.close()


def test_keys_of_the_wrong_type_are_no_reason_to_fail(presence: RqPresence, client: redis.Redis) -> None:
    client.set("rq:worker:host-1", "x")
    client.set("rq:workers", "x")
    presence.appear()
    presence.beat(busy=False, succeeded=0, failed=0, in_flight=0)
    assert not presence.suspended()


def connect_like(client: redis.Redis) -> redis.Redis:
    """Another client of the same server: RQ changes the timeouts of the one that it is given."""
    options = client.get_connection_kwargs()
    return redis.Redis(host=options["host"], port=options["port"], db=options["db"])


def _equal(left: object, right: object) -> None:
    assert left == right

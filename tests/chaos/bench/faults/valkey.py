"""Faults of Redis: it is wiped, away, still, full, read-only, or hangs up."""

import contextlib
from typing import Any

import redis

from jobsched.queue.rq_keys import EPOCH_KEY
from tests.chaos.bench.cluster import steady_port
from tests.chaos.bench.faults.base import REDIS_MISSED, Effect, Fault, Scene

#: Seconds within which pollers fill a Redis that came back empty.
_REFILL = 12.0


class RedisFault(Fault):
    """One server, one fault at a time."""

    parts = ("redis",)


class Wiped(RedisFault):
    """FLUSHALL."""

    kind, lasts = "redis_wiped", 4.0

    def hit(self, scene: Scene) -> Effect:
        with scene.cluster.valkey() as valkey:
            keys = valkey.dbsize()
            valkey.flushall()
        refilled = _await_epoch(scene)
        return Effect(
            keys > 0, f"{keys} keys wiped; {'filled again' if refilled else 'not filled again yet'}"
        )


class KilledEmpty(RedisFault):
    """``kill -9``, and a start without data."""

    kind, lasts = "redis_killed_empty", 6.0

    def hit(self, scene: Scene) -> Effect:
        before = _clients(scene)
        scene.cluster.stand.valkey.kill()
        try:
            scene.cluster.pause(scene.chance.uniform(0.1, 2.0))
        finally:
            scene.cluster.start_valkey()
        refilled = _await_epoch(scene)
        return Effect(
            before > 0,
            f"{before} connections broken; {scene.count(*REDIS_MISSED)}; "
            f"{'filled again' if refilled else 'not filled again yet'}",
        )


class Away(RedisFault):
    """Stopped in order, for some seconds."""

    kind, lasts = "redis_away", 11.0

    def hit(self, scene: Scene) -> Effect:
        scene.cluster.stand.valkey.stop()
        try:
            scene.cluster.pause(scene.chance.uniform(4, 8))
        finally:
            scene.cluster.start_valkey()
        missed = scene.events(*REDIS_MISSED)
        _await_epoch(scene)
        return Effect(bool(missed), scene.count(*REDIS_MISSED))


class Stalled(RedisFault):
    """It holds its connections and answers nothing."""

    kind, lasts = "redis_stalled", 8.0

    def hit(self, scene: Scene) -> Effect:
        pid = scene.cluster.stand.valkey.pid
        assert pid is not None, "Valkey does not run"
        scene.cluster.freeze_process(pid)
        try:
            scene.cluster.pause(scene.chance.uniform(3, 6))
            waiting = scene.unanswered(scene.cluster.stand.redis_url)
        finally:
            scene.cluster.thaw_process(pid)
        missed = scene.await_event(*REDIS_MISSED, seconds=1.0)
        return Effect(
            missed or waiting > 0, f"{waiting} connections waited for an answer; {scene.count(*REDIS_MISSED)}"
        )


class OutOfMemory(RedisFault):
    """Every write is refused; reads are answered."""

    kind, lasts = "redis_out_of_memory", 6.0

    def hit(self, scene: Scene) -> Effect:
        return _refusing_writes(
            scene,
            lambda valkey: valkey.config_set("maxmemory", "1"),
            lambda valkey: valkey.config_set("maxmemory", "0"),
        )


class ReadOnly(RedisFault):
    """A replica of nobody for some seconds, as in a failover that nobody has told us of."""

    kind, lasts = "redis_read_only", 6.0

    def hit(self, scene: Scene) -> Effect:
        # Nobody listens there, so no other data set ever replaces this one.
        return _refusing_writes(
            scene,
            lambda valkey: valkey.execute_command("REPLICAOF", "127.0.0.1", str(steady_port())),
            lambda valkey: valkey.execute_command("REPLICAOF", "NO", "ONE"),
        )


class ConnectionsCut(RedisFault):
    """All connections are closed, those that listen too."""

    kind, lasts = "redis_connections_cut", 4.0

    def hit(self, scene: Scene) -> Effect:
        with scene.cluster.valkey() as valkey:
            cut = sum(
                int(valkey.client_kill_filter(_type=kind, skipme=True)) for kind in ("normal", "pubsub")
            )
        back = scene.until(lambda: _clients(scene) >= cut // 2, 3.0)
        return Effect(cut > 0, f"{cut} connections cut; {'back' if back else 'most are not back yet'}")


def _refusing_writes(scene: Scene, begin: Any, end: Any) -> Effect:
    with scene.cluster.valkey() as valkey:
        keys = valkey.dbsize()
        begin(valkey)
        try:
            refused = "no write"
            try:
                valkey.set("bench:probe", "1", ex=1)
            except redis.ResponseError as error:
                refused = type(error).__name__
            scene.cluster.pause(4.0)
        finally:
            end(valkey)
        kept = valkey.dbsize()
    missed = scene.events(*REDIS_MISSED)
    return Effect(
        refused != "no write" and bool(missed),
        f"refused with {refused}; {scene.count(*REDIS_MISSED)}; {keys} keys before, {kept} after",
    )


def _await_epoch(scene: Scene) -> bool:
    def there() -> bool:
        with contextlib.suppress(redis.RedisError), scene.cluster.valkey() as valkey:
            return bool(valkey.exists(EPOCH_KEY))
        return False

    return scene.until(there, _REFILL)


def _clients(scene: Scene) -> int:
    """Connections of jobsched's processes."""
    with contextlib.suppress(redis.RedisError), scene.cluster.valkey() as valkey:
        return sum(str(client.get("name", "")) != "bench" for client in valkey.client_list())
    return 0


FAULTS = (Wiped(), KilledEmpty(), Away(), Stalled(), OutOfMemory(), ReadOnly(), ConnectionsCut())

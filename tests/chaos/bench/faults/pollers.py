"""Faults of pollers: killed at any moment or at a certain one, frozen with and without locks, stopped."""

import time
from pathlib import Path

from tests.chaos.bench.faults.base import Effect, Fault, Scene
from tests.chaos.bench.faults.points import FailPointFault

_LIVES = "SELECT count(*) FROM worker_process WHERE kind = 'poller' AND pid = %s AND state = 'alive'"
_LATEST = "SELECT last_value FROM execution_id_seq"


class PollerFault(Fault):
    """One poller at a time, so that another goes on."""

    parts = ("poller",)


class Killed(PollerFault):
    """``kill -9``."""

    kind, lasts = "poller_killed", 6.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["poller"]
        worked = _at_work(scene, slot)
        name = scene.cluster.kill(slot)
        return Effect(worked, f"{name} killed, {'at work' if worked else 'not registered yet'}")


class KilledAt(FailPointFault):
    """It ends itself between two steps that matter."""

    parts = ("poller",)
    slot_kind = "poller"
    most = 5


class KilledWriting(KilledAt):
    """Slots are written and not committed."""

    kind, point = "poller_killed_writing", "fire.writing"


class KilledCommitted(KilledAt):
    """Slots are committed and not pushed."""

    kind, point = "poller_killed_committed", "fire.committed"


class KilledReleased(KilledAt):
    """Executions that were due are queued and not pushed."""

    kind, point = "poller_killed_released", "release.committed"


class Frozen(PollerFault):
    """It stands still for so long that Postgres ends its transaction, if it was in one."""

    kind, lasts = "poller_frozen", 18.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["poller"]
        worked = _at_work(scene, slot)
        before = _latest(scene)
        name = scene.cluster.freeze(slot)
        seconds = scene.chance.uniform(12, 15)
        try:
            scene.cluster.pause(seconds)
        finally:
            scene.cluster.thaw(slot)
        fired = _latest(scene) - before
        return Effect(worked, f"{name} frozen for {seconds:.0f} s; {fired} executions were made meanwhile")


class FrozenWriting(PollerFault):
    """It stands still while it holds the locks of due schedules: Postgres takes them away after 10 s.

    What it then tries to commit must fail, and none of it may reach Redis.
    """

    kind, lasts = "poller_frozen_writing", 34.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["poller"]
        nth = scene.chance.randint(1, 5)
        name = scene.cluster.restart_with(slot, JOBSCHED_FAILPOINT=f"fire.writing:stop:{nth}")
        process = scene.cluster.process(slot)
        assert process is not None, f"{name} ended"
        came = scene.until(lambda: _stopped(process.pid), 25.0)
        seconds = scene.chance.uniform(12, 15)
        try:
            if came:
                scene.cluster.pause(seconds)
        finally:
            scene.cluster.thaw(slot)
        told = scene.await_event("service_failed:database_unavailable", of=name, seconds=6.0)
        # It is well, but its fail point would be there for ever.
        scene.cluster.terminate(slot)
        if not came:
            return Effect(False, f"{name} did not come to fire.writing {nth} times")
        reasons = [event["reason"] for event in scene.events("service_failed:database_unavailable", of=name)]
        return Effect(
            told,
            f"{name} frozen for {seconds:.0f} s inside its transaction; "
            f"then: {reasons[0] if reasons else 'nothing failed'}",
        )


class Stopped(PollerFault):
    """SIGTERM and a start, as each release of the software does."""

    kind, lasts = "poller_stopped", 8.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["poller"]
        worked = _at_work(scene, slot)
        began = time.monotonic()
        name = scene.cluster.terminate(slot)
        return Effect(worked, f"{name} stopped in {time.monotonic() - began:.1f} s")


class AllKilled(Fault):
    """``kill -9`` for all of them; nothing fires until they are back."""

    kind, parts, lasts = "pollers_all_killed", ("pollers",), 8.0

    def hit(self, scene: Scene) -> Effect:
        cluster = scene.cluster
        slots = cluster.slots("poller")
        worked = [slot for slot in slots if _at_work(scene, slot)]
        with cluster.holding(*slots):
            names = [cluster.kill(slot) for slot in slots]
            began = _latest(scene)
            seconds = scene.chance.uniform(1, 4)
            cluster.pause(seconds)
            fired = _latest(scene) - began
        return Effect(
            bool(worked), f"{' and '.join(names)} killed, back after {seconds:.1f} s; {fired} made meanwhile"
        )


def _at_work(scene: Scene, slot: str) -> bool:
    """Whether the slot's poller is registered; waits a little until it is."""

    def registered() -> bool:
        process = scene.cluster.process(slot)
        return process is not None and scene.cluster.ask(_LIVES, (process.pid,), within=2.0) == [(1,)]

    return scene.until(registered, 5.0)


def _latest(scene: Scene) -> int:
    rows = scene.cluster.ask(_LATEST, within=5.0)
    return int(rows[0][0]) if rows else 0


def _stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"


FAULTS = (
    Killed(),
    KilledWriting(),
    KilledCommitted(),
    KilledReleased(),
    Frozen(),
    FrozenWriting(),
    Stopped(),
    AllKilled(),
)

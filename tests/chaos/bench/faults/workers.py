"""Faults of workers: killed at any moment or at a certain one, frozen, paused, stopped in time and too late."""

import time
from typing import ClassVar

from tests.chaos.bench.faults.base import Effect, Fault, Scene
from tests.chaos.bench.faults.points import FailPointFault

_STATES = "SELECT state FROM worker_process WHERE name = %s ORDER BY started_at"


class WorkerFault(Fault):
    """One worker; others may be hit by other faults at the same time."""

    parts = ("worker",)


class Killed(WorkerFault):
    """``kill -9`` while calls are in flight."""

    kind, lasts = "worker_killed", 8.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["worker"]
        name = scene.cluster.process_name(slot)
        scene.await_in_flight(name)
        name = scene.cluster.kill(slot)
        # After its end: until recovery takes them, its rows say exactly what it ran.
        lost = scene.in_flight(name)
        return Effect(bool(lost), f"{name} killed with {len(lost)} in flight", name, lost)


class KilledAt(FailPointFault):
    """It ends itself between two steps that matter."""

    parts = ("worker",)
    slot_kind = "worker"
    #: Worker rounds are many: any of the first so many is taken.
    most = 40


class KilledTaken(KilledAt):
    """It has taken ids from Redis and has not claimed them."""

    kind, point = "worker_killed_taken", "worker.taken"


class KilledClaimed(KilledAt):
    """It has claimed executions and not sent them."""

    kind, point = "worker_killed_claimed", "worker.claimed"


class KilledAnswered(KilledAt):
    """Targets have answered, and it has not recorded that."""

    kind, point = "worker_killed_answered", "worker.answered"


class KilledRecorded(KilledAt):
    """It has recorded outcomes, and has not noticed that it has."""

    kind, point = "worker_killed_recorded", "worker.recorded"


class Frozen(WorkerFault):
    """It stands still until the others hold it for dead, and then goes on where it was."""

    kind, lasts = "worker_frozen", 38.0
    _dead_within: ClassVar[float] = 55.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["worker"]
        scene.await_in_flight(scene.cluster.process_name(slot))
        name = scene.cluster.freeze(slot)
        began = time.monotonic()
        try:
            held = scene.in_flight(name)
            dead = scene.until(lambda: _states(scene, name)[-1:] == ["dead"], self._dead_within, every=0.5)
            after = time.monotonic() - began
            scene.cluster.pause(scene.chance.uniform(2, 6))
        finally:
            scene.cluster.thaw(slot)
        gave_up = scene.await_event("identity_given_up", of=name, seconds=8.0)
        fenced = sum(int(event["count"]) for event in scene.events("outcomes_fenced", of=name))
        return Effect(
            bool(held) and dead and gave_up,
            f"{name} frozen with {len(held)} in flight, {'dead' if dead else 'not dead'} after {after:.0f} s; "
            f"{'it gave up its name' if gave_up else 'it did not notice'}, {fenced} late outcomes fenced",
            name,
            held,
        )


class Paused(WorkerFault):
    """It stands still, but not for long enough to be dead."""

    kind, lasts = "worker_paused", 14.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["worker"]
        scene.await_in_flight(scene.cluster.process_name(slot))
        # It may have died before under the same name, frozen for longer by another fault.
        deaths = _states(scene, scene.cluster.process_name(slot)).count("dead")
        name = scene.cluster.freeze(slot)
        seconds = scene.chance.uniform(3, 8)
        began = time.monotonic()
        try:
            held = scene.in_flight(name, within=2.0)
            scene.cluster.pause(seconds - (time.monotonic() - began))
        finally:
            scene.cluster.thaw(slot)
        assert not scene.events("process_dead", "identity_given_up", of=name), (
            f"{name} gave up after {seconds:g} s"
        )
        states = _states(scene, name)
        assert states.count("dead") <= deaths, f"{name} was declared dead after a pause of {seconds:.1f} s"
        return Effect(
            bool(held), f"{name} paused for {seconds:.1f} s with {len(held)} in flight; not dead", name
        )


class Stopped(WorkerFault):
    """SIGTERM and a start, as each release of the software does."""

    kind, lasts = "worker_stopped", 14.0

    def hit(self, scene: Scene) -> Effect:
        return _stopped(scene, "worker_stopped")


class StoppedLate(WorkerFault):
    """SIGTERM, with a grace that is over before the calls are."""

    kind, lasts = "worker_stopped_late", 24.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["worker"]
        # Of the grace 5 s are kept for recording: what is left is over at once.
        name = scene.cluster.restart_with(slot, JOBSCHED_SHUTDOWN_GRACE="5.2")
        scene.until(lambda: len(scene.in_flight(name, within=1.0)) > 0, 10.0)
        return _stopped(scene, "calls_interrupted")


def _stopped(scene: Scene, event: str) -> Effect:
    slot = scene.slots["worker"]
    name = scene.cluster.process_name(slot)
    scene.await_in_flight(name)
    held = scene.in_flight(name, within=2.0)
    began = time.monotonic()
    name = scene.cluster.terminate(slot)
    seconds = time.monotonic() - began
    interrupted = sum(int(each["count"]) for each in scene.events("calls_interrupted", of=name))
    return Effect(
        bool(held) and bool(scene.events(event, of=name)),
        f"{name} stopped in {seconds:.1f} s with {len(held)} in flight, {interrupted} interrupted",
        name,
        held,
    )


def _states(scene: Scene, name: str) -> list[str]:
    return [str(state) for (state,) in scene.cluster.ask(_STATES, (name,), within=5.0) or ()]


FAULTS = (
    Killed(),
    KilledTaken(),
    KilledClaimed(),
    KilledAnswered(),
    KilledRecorded(),
    Frozen(),
    Paused(),
    Stopped(),
    StoppedLate(),
)

"""Faults of the API: one of the two is killed, or restarted for a release."""

import time

from tests.chaos.bench.faults.base import Effect, Fault, Scene


class ApiFault(Fault):
    """One API at a time, so that clients find another."""

    parts = ("api",)


class Killed(ApiFault):
    """``kill -9`` for the arbiter and its serving process."""

    kind, lasts = "api_killed", 9.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["api"]
        ready = scene.until(lambda: scene.cluster.is_ready(slot), 5.0)
        name = scene.cluster.kill(slot)
        gone = not scene.cluster.is_ready(slot)
        back = scene.until(lambda: scene.cluster.is_ready(slot), 4.0)
        return Effect(ready and gone, f"{name} killed; {'ready again' if back else 'not ready again yet'}")


class Stopped(ApiFault):
    """SIGTERM and a start, as each release of the software does."""

    kind, lasts = "api_stopped", 8.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots["api"]
        ready = scene.until(lambda: scene.cluster.is_ready(slot), 5.0)
        began = time.monotonic()
        name = scene.cluster.terminate(slot)
        return Effect(ready, f"{name} stopped in {time.monotonic() - began:.1f} s")


FAULTS = (Killed(), Stopped())

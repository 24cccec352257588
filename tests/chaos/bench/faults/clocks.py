"""The wall clock of one process's host is wrong by hours, and is set right."""

from typing import ClassVar, Literal

from tests.chaos.bench.faults.base import Effect, Fault, Scene
from tests.chaos.clock import Clock, unavailable

_HOUR = 3600.0


class ClockStepped(Fault):
    """A process is started under a clock of its own, which jumps by hours, back and forth, and then is right.

    Postgres' clock stays as it is: it alone says what is due and who is late.
    """

    lasts = 22.0
    part: ClassVar[Literal["worker", "poller", "api"]]

    def hit(self, scene: Scene) -> Effect:
        if (reason := unavailable()) is not None:
            return Effect(False, reason)
        slot = scene.slots[self.part]
        cluster = scene.cluster
        with Clock() as clock:
            steps = [
                scene.chance.choice((-1, 1)) * scene.chance.uniform(0.5, 30) * _HOUR
                for _ in range(scene.chance.randint(2, 3))
            ]
            name = cluster.restart_with(slot, **clock.environment())
            if self.part == "api":
                there = scene.until(lambda: cluster.is_ready(slot), 20.0)
            else:
                started = "worker_registered" if self.part == "worker" else "poller_started"
                there = scene.await_event(started, of=name, seconds=20.0)
            for step in steps:
                clock.offset = step
                cluster.pause(scene.chance.uniform(1.5, 2.5))
            clock.offset = 0.0
            # Its log lines bear the wrong time for a moment more; the next process has the right clock anyway.
            code = cluster.process(slot)
            lives = code is not None and code.poll() is None and cluster.process_name(slot) == name
            cluster.terminate(slot)
        told = ", ".join(f"{step / _HOUR:+.1f} h" for step in steps)
        return Effect(there and lives, f"{name} at {told}; {'it went on' if lives else 'it ended'}")


class WorkerClock(ClockStepped):
    """A worker's: it says for how long calls took, never at what time."""

    kind, parts, part = "worker_clock_stepped", ("worker",), "worker"


class PollerClock(ClockStepped):
    """A poller's: what is due, Postgres says."""

    kind, parts, part = "poller_clock_stepped", ("poller",), "poller"


class ApiClock(ClockStepped):
    """An API's: next times of new schedules are counted from Postgres' clock."""

    kind, parts, part = "api_clock_stepped", ("api",), "api"


FAULTS = (WorkerClock(), PollerClock(), ApiClock())

"""A process that ends itself between two steps: what all faults at a fail point do."""

from typing import ClassVar

from tests.chaos.bench.faults.base import Effect, Fault, Scene


class FailPointFault(Fault):
    """The slot is restarted in order with the point armed; the process comes there, and another follows it."""

    lasts = 20.0
    slot_kind: ClassVar[str]
    point: ClassVar[str]
    #: The process ends when it passes the point for the n-th time, n up to this.
    most: ClassVar[int]
    #: Seconds within which it has to come there.
    within: ClassVar[float] = 25.0

    def hit(self, scene: Scene) -> Effect:
        slot = scene.slots[self.slot_kind]
        nth = scene.chance.randint(1, self.most)
        name = scene.cluster.restart_with(slot, JOBSCHED_FAILPOINT=f"{self.point}:exit:{nth}")
        came = scene.await_event("failpoint", of=name, seconds=self.within)
        if not came:
            scene.cluster.terminate(slot)
            return Effect(False, f"{name} did not pass {self.point} {nth} times within {self.within:g} s")
        worker = name if self.slot_kind == "worker" else None
        lost = scene.in_flight(name) if worker else ()
        running = f" with {len(lost)} in flight" if worker else ""
        return Effect(True, f"{name} ended at {self.point}, time {nth}{running}", worker, lost)

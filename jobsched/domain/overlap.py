"""Whether an execution may become queued beside the others of its job: the overlap policies."""

from dataclasses import dataclass, replace
from typing import Literal

OverlapPolicy = Literal["allow", "skip", "queue"]

Fate = Literal["queued", "blocked", "pending", "skipped"]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What a job has at the moment: seen, and acted upon, under the lock of its schedule row.

    ``occupied``: an execution that is queued, running or retrying, whatever its trigger. ``blocked``: one that
    waits for the job to be free. ``undecided``: a pending one whose time has come.
    """

    occupied: bool = False
    blocked: bool = False
    undecided: bool = False

    def after(self, fate: Fate) -> "Occupancy":
        """The same once another execution has met ``fate``."""
        return replace(
            self,
            occupied=self.occupied or fate == "queued",
            blocked=self.blocked or fate == "blocked",
        )


FREE = Occupancy()


def admit(policy: OverlapPolicy, occupancy: Occupancy) -> Fate:
    """What becomes of the execution whose turn it is."""
    if policy == "allow" or not occupancy.occupied:
        return "queued"
    return "blocked" if policy == "queue" and not occupancy.blocked else "skipped"


def admit_slots(policy: OverlapPolicy, occupancy: Occupancy, count: int, room: int) -> list[Fate]:
    """What becomes of ``count`` slots of one job that fire together, oldest first.

    ``room`` is how many more executions their queue takes: without it nothing would become queued, so nothing is
    decided yet. Where older executions of the job are undecided, the oldest slot lines up behind them.
    """
    if policy == "allow":
        return ["queued" if number < room else "pending" for number in range(count)]
    if room <= 0:
        return ["pending"] * count
    fates: list[Fate] = []
    fate: Fate
    # Undecided, or blocked by what has ended a moment ago: who came before goes first.
    behind = occupancy.undecided or (occupancy.blocked and not occupancy.occupied)
    for _ in range(count):
        fate = ("skipped" if fates else "pending") if behind else admit(policy, occupancy)
        fates.append(fate)
        occupancy = occupancy.after(fate)
    return fates


def reason(policy: OverlapPolicy) -> str:
    """Why an execution was skipped, as its history says."""
    if policy == "queue":
        return (
            "Another execution of the job was not over and one waited already; the overlap policy is queue."
        )
    return f"Another execution of the job was not over; the overlap policy is {policy}."

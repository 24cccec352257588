"""What becomes of due slots when the poller comes late: the misfire policies."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from jobsched.domain.schedule import Due

MisfirePolicy = Literal["fire_once", "fire_all", "skip"]

FIRE_ALL_LIMIT = 1000
"""One decision runs at most so many slots, whatever the policy: the newest."""

DUE_LIMIT = FIRE_ALL_LIMIT + 1
"""What callers of ``Schedule.due_slots`` pass as ``newest``: one more, to name the newest that is not run."""


@dataclass(frozen=True, slots=True)
class MisfireDecision:
    """Slots to run, oldest first; how many are not run; and the newest of those (None if there are none)."""

    run: tuple[datetime, ...]
    skipped: int
    skipped_newest: datetime | None


def decide(policy: MisfirePolicy, due: Due, now: datetime, grace_seconds: float) -> MisfireDecision:
    """Judge the due slots of one job at ``now``. A slot is missed when it is more than the grace late.

    ``fire_once`` folds all into one run of the newest if any was missed, and also when more are due than one
    decision may run; otherwise each runs. ``fire_all`` runs each, ``skip`` those within the grace; of more
    than FIRE_ALL_LIMIT both run the newest.

    Slots are nominal, but jitter is not lateness: for a job with jitter the caller adds it to
    ``grace_seconds`` and leaves out a newest slot whose effective time is still to come.
    """
    grace = timedelta(seconds=grace_seconds)
    slots = due.slots
    if policy == "skip":
        on_time = sum(now - slot <= grace for slot in slots)
    elif policy == "fire_once" and due.count > 1 and (due.count > FIRE_ALL_LIMIT or now - slots[0] > grace):
        on_time = 1
    else:
        on_time = len(slots)
    # Where slots are known only by number, the oldest known one is given up too: the skipped need a date.
    most = len(slots) - (due.count > len(slots))
    first = len(slots) - min(on_time, most, FIRE_ALL_LIMIT)
    return MisfireDecision(slots[first:], due.count - len(slots) + first, slots[first - 1] if first else None)

"""What only two looks can tell: whose counter stands still, and which messages are lost and not on their way."""

import threading
from dataclasses import dataclass, field
from datetime import datetime

from jobsched import clock
from jobsched.db import health, instance, workers
from jobsched.db.connection import Link
from jobsched.db.workers import Pulse
from jobsched.errors import DatabaseError, QueueUnavailable
from jobsched.queue.broker import Broker
from jobsched.queue.health import MOST_ENTRIES, Health

#: Seconds between two looks at the counters.
_LOOK_EVERY = 0.25


@dataclass(slots=True)
class OutOfStep:
    """Where queue and database differ.

    ``lost``: queued rows whose message is missing, with when they were queued; ``unknown``: entries of lists, by
    queue, that no queued execution has; ``other_epoch``: Redis is not the one that was filled.
    """

    lost: dict[int, datetime] = field(default_factory=dict)
    unknown: dict[str, set[str]] = field(default_factory=dict)
    other_epoch: bool = False

    def still(self, later: "OutOfStep") -> "OutOfStep":
        """What was so then and is so now: the rest was on its way."""
        return OutOfStep(
            {i: at for i, at in later.lost.items() if self.lost.get(i) == at},
            {
                queue: both
                for queue, values in later.unknown.items()
                if (both := values & self.unknown.get(queue, set()))
            },
            self.other_epoch and later.other_epoch,
        )


class Watch:
    """Two looks, ``seconds`` apart at most: fewer if by then everybody has beaten."""

    def __init__(self, link: Link, broker: Broker, queue: Health, seconds: float, lost_after: float) -> None:
        self._link = link
        self._broker = broker
        self._queue = queue
        self._seconds = seconds
        self._lost_after = lost_after
        self._began = 0.0
        self._first: dict[object, Pulse] | None = None
        self._step_before: OutOfStep | None = None
        self.beating: list[Pulse] = []
        self.still: list[Pulse] = []

    def begin(self) -> None:
        """The first look. What is away now is found to be away by its own check, or looked at there."""
        try:
            self._look()
            self._step_before = self.compare()
        except (DatabaseError, QueueUnavailable):
            return

    def wait(self) -> None:
        """Watch until every counter has moved, or the time is over. Sets ``beating`` and ``still``."""
        nap = threading.Event()
        first = self._look() if self._first is None else self._first
        while True:
            now = workers.pulses(self._link)
            self.still = [one for one in now if one.id in first and one.beat == first[one.id].beat]
            self.beating = [one for one in now if one not in self.still]
            if not self.still or clock.monotonic() - self._began >= self._seconds:
                return
            nap.wait(_LOOK_EVERY)

    def out_of_step(self) -> OutOfStep:
        """Where queue and database differ, now and at the first look; taken now, and waited for, if it failed."""
        if self._step_before is None:
            self._step_before = self.compare()
            threading.Event().wait(self._seconds)
        return self._step_before.still(self.compare())

    def _look(self) -> dict[object, Pulse]:
        self._first = {pulse.id: pulse for pulse in workers.pulses(self._link)}
        self._began = clock.monotonic()
        return self._first

    def compare(self) -> OutOfStep:
        """One look at all queues."""
        found = OutOfStep()
        with self._link.transaction() as cursor:
            expected = instance.read_epoch(cursor)
        found.other_epoch = expected is not None and self._broker.epoch() != expected
        for queue in health.queues(self._link):
            # Rows first: what is queued after this look has its message later, and is none that is lost.
            rows = health.queued(self._link, queue, self._lost_after, MOST_ENTRIES)
            entries = self._queue.entries(queue)
            listed = set(entries)
            if len(entries) < MOST_ENTRIES:
                found.lost |= {i: at for i, at in rows.items() if str(i) not in listed}
            unsure = {int(one): one for one in listed if is_id(one) and int(one) not in rows}
            queued = health.still_queued(self._link, list(unsure))
            unknown = {one for i, one in unsure.items() if i not in queued}
            unknown |= {one for one in listed if not is_id(one)}
            if unknown:
                found.unknown[queue] = unknown
        return found


def is_id(value: str) -> bool:
    """Whether an entry can be the id of an execution."""
    return len(value) <= 19 and value.isascii() and value.isdigit() and value[0] != "0" and int(value) < 2**63

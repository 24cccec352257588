"""The seats of a worker: one for each execution it has claimed, until its outcome is committed.

Seats bound everything: ids taken, calls in flight, results not yet recorded. One seat in ten serves the high
queues only, so that a flood of normal work never makes urgent work wait for a slow target.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from jobsched.db.claims import Claimed


class Seat(NamedTuple):
    """An execution that this worker runs, and the id under which it was claimed."""

    claimed: Claimed
    owner: UUID


class Seats:
    """Thread-safe. ``changed`` is notified whenever a seat becomes free, for who waits on another thread."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._reserved = concurrency // 10
        self._taken: dict[int, Seat] = {}
        self._high = 0
        self.changed = threading.Condition()
        self.on_release: Callable[[], None] = lambda: None
        """Called after seats became free."""

    def __len__(self) -> int:
        return len(self._taken)

    def free(self) -> tuple[int, bool]:
        """How many ids may be taken now, and whether from high queues only."""
        with self.changed:
            return self._free()

    def take(self, seat: Seat) -> bool:
        """Seat an execution. False if it sits already: an older attempt of it has not ended here."""
        with self.changed:
            if seat.claimed.id in self._taken:
                return False
            self._taken[seat.claimed.id] = seat
            self._high += _is_high(seat)
            return True

    def release(self, ids: list[int]) -> None:
        """Free the seats of ``ids``: their outcomes are committed, or somebody else's now."""
        with self.changed:
            for execution in ids:
                if (seat := self._taken.pop(execution, None)) is not None:
                    self._high -= _is_high(seat)
            self.changed.notify_all()
        self.on_release()

    def get(self, execution: int) -> Seat | None:
        """The seat of an execution."""
        return self._taken.get(execution)

    def all(self) -> list[Seat]:
        """Every seat that is taken."""
        with self.changed:
            return list(self._taken.values())

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the last outcome. Whether all seats are free."""
        with self.changed:
            return self.changed.wait_for(lambda: not self._taken, timeout)

    def _free(self) -> tuple[int, bool]:
        free = self.concurrency - len(self._taken)
        ordinary = self.concurrency - self._reserved - (len(self._taken) - self._high)
        if ordinary > 0:
            return min(free, ordinary), False
        return free, True


def _is_high(seat: Seat) -> bool:
    return seat.claimed.queue.endswith(".high")

"""Who this worker is, and for how long it may say so.

A worker that cannot commit beats will be declared dead after 20 s by those who watch it. It must notice by its
own monotonic clock before they do: it starts no call after 12 s.
"""

import threading
from uuid import UUID, uuid4

from jobsched import clock

#: Seconds without a committed beat after which no call is started.
HESITATE_AFTER = 12.0


class Identity:
    """The worker's present id in ``worker_process``; None between two lives. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._id: UUID | None = None
        self._proven_at = 0.0

    def reborn(self) -> UUID:
        """Take a new id; it counts only once ``prove`` was called for it."""
        with self._lock:
            self._id = uuid4()
            self._proven_at = float("-inf")
            return self._id

    def prove(self, id: UUID, at: float) -> None:
        """A beat for ``id`` was committed; ``at`` is the monotonic time at which it was begun."""
        with self._lock:
            if id == self._id:
                self._proven_at = max(self._proven_at, at)

    def give_up(self) -> None:
        """The row says dead: start nothing until reborn."""
        with self._lock:
            self._id = None

    @property
    def present(self) -> UUID | None:
        """The id, proven or not."""
        return self._id

    def for_new_calls(self) -> UUID | None:
        """The id under which a call may be started now."""
        with self._lock:
            fresh = clock.monotonic() - self._proven_at < HESITATE_AFTER
            return self._id if fresh else None

"""How many executions each queue still takes, without counting the queued ones for every batch."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobsched import clock
from jobsched.db import firing
from jobsched.db.connection import Cursor

#: Executions a second that others (pollers, the API) may add to one queue at most, generously.
_OTHERS = 100_000


@dataclass(slots=True)
class _Room:
    left: int
    counted_at: float


class Rooms:
    """What is left below the high-water mark of each queue, for one poller.

    To count costs 0.1 µs for each queued execution, which is more than to fire where many are. So a count is carried
    forward, less what was fired since, as long as half of the mark is left and others could not have used it up.
    Thread-safe: what one lane has promised to a transaction that is still open, the other does not see in its count.
    """

    def __init__(self, high_water: int) -> None:
        self._high_water = high_water
        self._lock = threading.Lock()
        self._known: dict[str, _Room] = {}
        self._promised: Counter[str] = Counter()

    @contextmanager
    def look(self, cursor: Cursor, queues: Iterable[str], promised: Counter[str]) -> Iterator[dict[str, int]]:
        """How many more executions each of ``queues`` takes, for the caller to take from.

        What it has taken at the end is added to ``promised``, which is to be settled when its transaction has ended.
        """
        with self._lock:
            before = self._left(cursor, set(queues))
            rooms = dict(before)
            yield rooms
            taken = Counter({queue: before[queue] - left for queue, left in rooms.items()})
            for queue, count in taken.items():
                self._known[queue].left -= count
            self._promised += taken
            promised += taken

    def settle(self, promised: Counter[str]) -> None:
        """The transaction has ended: counts see what it has queued."""
        with self._lock:
            self._promised -= promised

    def _left(self, cursor: Cursor, queues: set[str]) -> dict[str, int]:
        now = clock.monotonic()
        self._known = {queue: room for queue, room in self._known.items() if self._holds(room, now)}
        unknown = sorted(queues - self._known.keys())
        if unknown:
            for queue, left in firing.rooms(cursor, unknown, self._high_water).items():
                self._known[queue] = _Room(left - self._promised[queue], now)
        return {queue: self._known[queue].left for queue in queues}

    def _holds(self, room: _Room, now: float) -> bool:
        half = self._high_water / 2
        return room.left >= half and now - room.counted_at < half / _OTHERS

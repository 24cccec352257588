"""How many executions each queue still takes, without counting the queued ones for every batch."""

from collections.abc import Iterable
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
    """What is left below the high-water mark of each queue, for one loop.

    To count costs 0.1 µs for each queued execution, which is more than to fire where many are. So a count is carried
    forward, less what was fired since, as long as half of the mark is left and others could not have used it up.
    """

    def __init__(self, high_water: int) -> None:
        self._high_water = high_water
        self._known: dict[str, _Room] = {}

    def look(self, cursor: Cursor, queues: Iterable[str]) -> dict[str, int]:
        """How many more executions each of ``queues`` takes."""
        now = clock.monotonic()
        self._known = {queue: room for queue, room in self._known.items() if self._holds(room, now)}
        unknown = sorted(set(queues) - self._known.keys())
        if unknown:
            for queue, left in firing.rooms(cursor, unknown, self._high_water).items():
                self._known[queue] = _Room(left, now)
        return {queue: self._known[queue].left for queue in queues}

    def left(self, rooms: dict[str, int]) -> None:
        """What is left now of what the last look has given."""
        for queue, left in rooms.items():
            self._known[queue].left = left

    def _holds(self, room: _Room, now: float) -> bool:
        half = self._high_water / 2
        return room.left >= half and now - room.counted_at < half / _OTHERS

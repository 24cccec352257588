"""Release: hand to RQ what waits and is due, as far as its queue has room."""

from dataclasses import dataclass

from jobsched.db import firing
from jobsched.db.connection import Link
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker

#: Executions that one statement releases at most.
BATCH = 2000

#: A full queue is looked at again after this many seconds, twice as long each time nothing has moved.
_FULL_FIRST = 0.1

log = get_logger()


@dataclass(frozen=True, slots=True)
class Released:
    """What one round did. ``again_in``: seconds until a full queue deserves another look, None if none is full."""

    executions: int = 0
    again_in: float | None = None


class Release:
    """Releases pending and retrying executions, queue by queue, so that no queue holds up another."""

    def __init__(self, link: Link, broker: Broker, high_water: int, poll_interval: float) -> None:
        self._link = link
        self._broker = broker
        self._high_water = high_water
        self._poll_interval = poll_interval
        self._full_nap = _FULL_FIRST

    def run_once(self) -> Released:
        """One look at every queue in which something waits."""
        queues = firing.waiting_queues(self._link)
        if not queues:
            return Released()
        with self._link.transaction() as cursor:
            rooms = firing.rooms(cursor, queues, self._high_water)
        total = 0
        for queue in queues:
            total += self._release(queue, rooms[queue])
        if all(room > 0 for room in rooms.values()):
            self._full_nap = _FULL_FIRST
            return Released(total)
        self._full_nap = _FULL_FIRST if total else min(self._full_nap * 2, self._poll_interval)
        return Released(total, self._full_nap)

    def _release(self, queue: str, room: int) -> int:
        released = 0
        while room > released:
            ids = firing.release(self._link, queue, min(BATCH, room - released))
            if not ids:
                break
            released += len(ids)
            try:
                self._broker.push([(queue, i) for i in ids])
            except QueueUnavailable as error:
                # The rows say queued; reconcile pushes them when Redis is back.
                log.warning("push_failed", executions=len(ids), error=str(error))
                break
        return released

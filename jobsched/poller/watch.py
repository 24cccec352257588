"""Who is dead: decided by watching counters with a monotonic clock, never by comparing time stamps.

An outage of the database, a step of the clock or a closed laptop lid stops the watcher's own reads too. A gap
in the reads starts every watch again, so that none of these makes all workers look dead at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from jobsched.db.recovery import PastDeadline
from jobsched.db.workers import Pulse

#: Seconds without a beat, seen with one's own eyes, after which a process is dead.
DEAD_AFTER = 20.0

#: Two reads further apart than this many seconds prove nothing about the time between them.
LONGEST_GAP = 5.0


@dataclass(slots=True)
class _Seen:
    beat: int
    since: float


class Watch:
    """Remembers since when each process's counter has stood still. Pure: the caller gives the time."""

    def __init__(self) -> None:
        self._seen: dict[UUID, _Seen] = {}
        self._last_read: float | None = None

    def interrupted(self) -> None:
        """A read failed: whatever was seen before counts no longer."""
        self._last_read = None

    def look(self, pulses: Iterable[Pulse], now: float) -> list[Pulse]:
        """Take note of the counters read at ``now`` (monotonic seconds); return the processes that are dead."""
        unbroken = self._last_read is not None and now - self._last_read < LONGEST_GAP
        self._last_read = now
        known, self._seen = self._seen, {}
        dead = []
        for pulse in pulses:
            seen = known.get(pulse.id)
            if not unbroken or seen is None or seen.beat != pulse.beat:
                seen = _Seen(pulse.beat, now)
            self._seen[pulse.id] = seen
            if now - seen.since >= DEAD_AFTER:
                dead.append(pulse)
        return dead


class Overdue:
    """Which running executions have outstayed their time by our own clock as well. Pure: the caller gives the time.

    A deadline is a time stamp of the database. If its clock is set forward, the calls of every living worker
    look late at once, and taking them would send each a second time. So what is past its deadline is watched
    for as long again as it had been given; by then its call is over, however the clock was set. Only a worker
    that beats and yet never records can come to that.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def look(self, late: Iterable[PastDeadline], now: float) -> list[int]:
        """Take note of what is past its deadline at ``now`` (monotonic seconds); return the ids to take back."""
        known, self._since = self._since, {}
        overdue = []
        for one in late:
            since = self._since[one.id, one.attempt] = known.get((one.id, one.attempt), now)
            if now - since >= one.allowed:
                overdue.append(one.id)
        return overdue

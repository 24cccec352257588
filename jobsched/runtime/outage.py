"""A lasting trouble, told so that it can be read at night: that it began, that it goes on, that it is over.

A server that is away for an hour fails some thing of ours several times a second. A line for each would bury all
others, and the disk under them; silence would hide that it goes on.
"""

import threading
from typing import Any

from jobsched import clock
from jobsched.log import get_logger

#: Seconds between two lines about the same trouble.
TELL_EVERY = 10.0


class Outage:
    """One kind of trouble of one process, under the event ``event``; of one thing or of several ``part``s.

    The first failure is told at once, then at most one in ``TELL_EVERY`` seconds, with how many there were
    (``failures``) and since when (``for_seconds``). When no part fails any more, ``outage_over`` says so, once.
    Thread-safe. ``level``: warning or error. ``settle``: seconds without a failure before a success counts as its
    end, for what may fail and succeed by turns.
    """

    def __init__(self, event: str, *, level: str = "warning", settle: float = 0.0) -> None:
        self._event = event
        self._settle = settle
        self._level = level
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._began = self._told = self._last = 0.0
        self._failures = 0

    @property
    def lasting(self) -> bool:
        """Whether it has begun and is not over."""
        return bool(self._failing)

    def failed(self, part: str = "", **fields: Any) -> None:
        """Something failed; ``fields`` are the line's, if there is one."""
        now = clock.monotonic()
        with self._lock:
            first = not self._failing
            self._failing.add(part)
            if first:
                self._began, self._failures = now, 0
            self._failures += 1
            self._last = now
            if not first and now - self._told < TELL_EVERY:
                return
            self._told = now
            if not first:
                fields |= {"failures": self._failures, "for_seconds": round(now - self._began, 1)}
            if len(self._failing) > 1:
                fields["failing"] = sorted(self._failing)
        getattr(get_logger(), self._level)(self._event, **fields)

    def over(self, part: str = "") -> None:
        """The same succeeded. Costs next to nothing where nothing had failed."""
        if part not in self._failing:
            return
        now = clock.monotonic()
        with self._lock:
            if part not in self._failing or now - self._last < self._settle:
                return
            self._failing.discard(part)
            if self._failing:
                return
            lasted, failures = now - self._began, self._failures
        get_logger().warning("outage_over", of=self._event, seconds=round(lasted, 1), failures=failures)

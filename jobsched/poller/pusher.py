"""Pushing what is queued: what Redis does not take is remembered, and pushed as soon as it answers again."""

import threading
from collections.abc import Sequence

from jobsched import metrics
from jobsched.errors import QueueUnavailable
from jobsched.queue.broker import Broker
from jobsched.runtime.outage import Outage

#: Ids that are remembered at most. What is beyond is found by reconcile as lost, some 15 s later.
MOST = 100_000

#: Ids that one command carries at most.
_AT_ONCE = 1000


class Pusher:
    """Pushes for one poller process. Its memory may be lost: the rows say queued, and reconcile looks at them too.

    Without it, everything queued while Redis was away would come 15 s after its return, when it counts as lost.
    Thread-safe.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._outage = Outage("push_failed")
        self._lock = threading.Lock()
        self._paying = threading.Lock()
        self._owed: list[tuple[str, int]] = []

    def push(self, queued: Sequence[tuple[str, int]]) -> bool:
        """Push ``queued``, as (queue, id), or remember it. Whether Redis took it.

        It goes behind what is owed: behind a younger head of its list, what is owed would look lost to reconcile,
        and be pushed twice.
        """
        behind = self._remember(queued, only_behind=True)
        try:
            if behind:
                self.make_up()
            else:
                self._broker.push(queued)
        except QueueUnavailable as error:
            if not behind:
                self._remember(queued)
            self._outage.failed(executions=len(queued), error=str(error))
            metrics.push_failures.inc()
            return False
        if self._owed:
            return False  # another thread is pushing it
        self._outage.over()
        return True

    def make_up(self) -> int:
        """Push what Redis has not taken so far. Returns how many; raises QueueUnavailable while it is away.

        What has got further meanwhile is pushed too: a message for nothing is dropped at its claim.
        """
        if not self._paying.acquire(blocking=False):
            return 0
        try:
            pushed = 0
            while page := (owed := self._owed)[:_AT_ONCE]:
                self._broker.push(page)
                with self._lock:
                    del owed[: len(page)]
                pushed += len(page)
            return pushed
        finally:
            self._paying.release()

    def forget(self) -> None:
        """Owe nothing: everything queued has been pushed."""
        with self._lock:
            self._owed = []

    def _remember(self, queued: Sequence[tuple[str, int]], *, only_behind: bool = False) -> bool:
        """Owe ``queued``; ``only_behind``: if something is owed already. Whether it is owed now."""
        with self._lock:
            if only_behind and not self._owed:
                return False
            self._owed += queued[: MOST - len(self._owed)]
            return True

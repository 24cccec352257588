"""Taking: pop ids from RQ's lists, as far as seats are free, one batch ahead of their claim.

A strand of the delivering thread; Redis is asked on a thread beside. Whoever claims what was taken says so with
``seated``: until then the ids hold seats that are not free any more, though nobody sits in them yet.
"""

from collections.abc import Sequence
from typing import Protocol

from jobsched import clock, metrics
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker
from jobsched.runtime.outage import Outage
from jobsched.worker.identity import Identity
from jobsched.worker.seats import Seats
from jobsched.worker.strands import Bell, Handover, Strands

#: Ids taken and claimed at once at most.
BATCH = 256

#: Every so many takes look at the low queues first, so that they are never starved.
_LOW_EVERY = 8

#: While others are being claimed or called, fewer than an eighth of the seats wait so many seconds for company:
#: a claim costs the same for one as for thirty.
_GATHER = 0.003

#: Seconds until the next try where one has failed.
PAUSE = 0.5

_IDLE = 1.0

log = get_logger()


class Sleeper(Protocol):
    """What an idle worker sleeps on: jobsched.queue.waker.Waker."""

    def wait(self, timeout: float) -> bool: ...
    def wake(self) -> None: ...


class Suspension(Protocol):
    """Whether ``rq suspend`` holds all workers: jobsched.worker.rq_worker.RqPresence."""

    def suspended(self) -> bool: ...


class Taking:
    """Takes until it is told to stop. ``ids`` hands what was taken to the claims."""

    def __init__(
        self,
        broker: Broker,
        waker: Sleeper,
        pools: Sequence[str],
        seats: Seats,
        identity: Identity,
        suspension: Suspension,
        strands: Strands,
    ) -> None:
        self._broker = broker
        self._waker = waker
        self._pools = tuple(pools)
        self._seats = seats
        self._identity = identity
        self._suspension = suspension
        self._strands = strands
        self._suspension_read = 0.0
        self._suspended = False
        self._rests_until = float("-inf")
        self._unseated = 0
        self._takes = 0
        self._asleep = False
        self._queue_away = Outage("queue_away")
        self._failed = Outage("taking_failed", level="error")
        self._released, self._stop, self._stop_of_claims = Bell(strands), Bell(strands), Bell(strands)
        self._stopping = False
        self._strand = strands.add("take", self._run)
        seats.on_release = self._on_release
        self.ids: Handover[list[int]] = Handover(strands)

    def begin(self) -> None:
        """Start the strand."""
        self._strand.begin()

    @property
    def alive(self) -> bool:
        """Whether the strand runs."""
        return self._strand.alive

    def end(self, timeout: float) -> None:
        """Take nothing more. Waits up to ``timeout`` seconds for a take that is under way."""
        self._stopping = True
        for bell in (self._stop, self._stop_of_claims, self._released):
            bell.ring()
        self._waker.wake()
        self._strand.join(timeout)

    def rest(self, seconds: float) -> None:
        """Take nothing for a while: this process cannot call anybody at the moment. Thread-safe."""
        self._rests_until = clock.monotonic() + seconds

    def seated(self, count: int) -> None:
        """So many of the ids taken sit now, or never will."""
        self._unseated -= count
        self._released.ring()

    def stopped_within(self, seconds: float) -> bool:
        """Pause the strand that claims, until a stop at most; whether there was one."""
        if not self._stopping:
            self._stop_of_claims.wait(seconds)
        return self._stopping

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._take()
                self._failed.over()
            except QueueUnavailable as error:
                self._queue_away.failed(error=str(error))
                metrics.takes_failed.inc()
                self._stop.wait(PAUSE)
            except Exception as error:
                self._failed.failed(exc_info=error)
                self._stop.wait(PAUSE)
        self.ids.close()

    def _take(self) -> None:
        """One round: wait for seats, take, hand over."""
        free, high_only = self._free()
        if free <= 0:
            self._released.wait(_IDLE)
            free, high_only = self._free()
        if 0 < free < self._seats.concurrency // 8:
            self._stop.wait(_GATHER)
            free, high_only = self._free()
        owner = self._identity.for_new_calls()
        if free <= 0 or self._stopping:
            return
        if owner is None or self._held() or clock.monotonic() < self._rests_until:
            self._stop.wait(PAUSE)
            return
        self._takes += 1
        low_first = self._takes % _LOW_EVERY == 0
        ids = self._strands.elsewhere(
            lambda: self._broker.take(self._pools, min(free, BATCH), high_only=high_only, low_first=low_first)
        )
        self._queue_away.over()
        if ids:
            self._unseated += len(ids)
            self.ids.put(ids)
        else:
            self._sleep(high_only)

    def _free(self) -> tuple[int, bool]:
        free, high_only = self._seats.free()
        return free - self._unseated, high_only

    def _sleep(self, high_only: bool) -> None:
        """Sleep until something is pushed. With only reserved seats free, another seat is a reason too."""
        self._asleep = high_only
        if not (high_only and not self._seats.free()[1]):
            self._strands.elsewhere(lambda: self._waker.wait(_IDLE))
        self._asleep = False

    def _on_release(self) -> None:
        self._released.ring()
        if self._asleep:
            self._waker.wake()

    def _held(self) -> bool:
        now = clock.monotonic()
        if now - self._suspension_read > 1.0:
            self._suspended = self._strands.elsewhere(self._suspension.suspended)
            self._suspension_read = now
        return self._suspended

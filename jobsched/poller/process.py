"""The poller process: fires, releases, reconciles and keeps house until it is told to stop.

Any number of pollers run side by side; each row is locked by one of them at a time. The loop naps until the
next due time or the poll interval, whichever is sooner, and a NOTIFY ends the nap.
"""

import os
import socket
import uuid
from collections.abc import Callable

from jobsched import clock, metrics
from jobsched.db import firing, workers
from jobsched.db.connection import Link
from jobsched.db.notify import Listener
from jobsched.errors import DatabaseError, JobschedError
from jobsched.log import get_logger
from jobsched.poller.fire import Fire, Fired
from jobsched.poller.housekeeping import Housekeeping
from jobsched.poller.lanes import Lanes
from jobsched.poller.pusher import Pusher
from jobsched.poller.reconcile import DeathWatch, Reconcile
from jobsched.poller.release import Release, Released
from jobsched.poller.zones import ZoneRules
from jobsched.queue.broker import Broker
from jobsched.runtime.service import Failures, Service

#: Seconds between two beats of a poller, which looks for the dead as often, and between two rounds of reconciling.
BEAT_EVERY = 2.0
RECONCILE_EVERY = 2.0

#: A schedule that is due and that somebody else holds is looked at again after this many seconds, twice as long
#: each time it is still there: its holder may be about to leave it as it is.
_LOCKED_FIRST = 0.02

#: Seconds from the beginning of a round that has found something to the next one: what falls due meanwhile shares
#: its transaction, its push and its claim. What comes alone waits for nobody. With 500 executions a second, all
#: processes together need half as much as with rounds back to back, and the slowest calls come earlier.
_PACE = 0.015

#: Slots that come later than so many seconds are worth a line, at most one in so many seconds.
_LATE, _TELL_LATE_EVERY = 5.0, 10.0

log = get_logger()


class Dispatch:
    """Fire and release, in one loop: what makes jobs punctual."""

    def __init__(
        self,
        link: Link,
        broker: Broker,
        high_water: int,
        poll_interval: float,
        pusher: Pusher | None = None,
        beside: Link | None = None,
    ) -> None:
        """``beside``: a connection for a second lane of firing, where more is due than one takes."""
        self._link = link
        self._poll_interval = poll_interval
        pusher = pusher or Pusher(broker)
        self._fire: Fire | Lanes = Fire(link, broker, high_water, pusher)
        if beside is not None:
            self._fire = Lanes(link, beside, broker, high_water, pusher)
        self._release = Release(link, broker, high_water, poll_interval, pusher)
        self._locked_nap = _LOCKED_FIRST
        self._told_late_at = -_TELL_LATE_EVERY
        self.lag = 0.0

    def run_once(self) -> float:
        """Fire and release what is due; return the seconds until something else is."""
        started = clock.monotonic()
        fired = self._fire.run_once()
        ahead = firing.outlook(self._link, clock.monotonic() - started)
        looked = clock.monotonic()
        metrics.poller_clock_skew.set((ahead.clock - clock.utc_now()).total_seconds())
        released = self._release.run_once() if ahead.waiting else Released()
        self.lag = fired.lag
        metrics.lag.set(fired.lag)
        metrics.last_round.set_to_current_time()
        metrics.round_duration.observe(clock.monotonic() - started)
        if fired.executions or fired.skipped or released.executions or released.skipped or released.blocked:
            log.debug(
                "dispatched",
                fired=fired.executions,
                skipped=fired.skipped + released.skipped,
                blocked=released.blocked,
                released=released.executions,
                lag_seconds=round(fired.lag, 3),
            )
        if fired.lag > _LATE:
            self._tell_late(fired)
        if fired.more or released.again_in == 0.0:
            return 0.0
        naps = [self._poll_interval]
        if ahead.next_in is not None:
            naps.append(ahead.next_in - (clock.monotonic() - looked))
        if released.again_in is not None:
            naps.append(released.again_in)
        if ahead.overdue:
            naps.append(self._locked_nap)
            self._locked_nap = min(self._locked_nap * 2, self._poll_interval)
        else:
            self._locked_nap = _LOCKED_FIRST
        busy = fired.executions or released.executions
        return max(_PACE - (clock.monotonic() - started) if busy else 0.0, 0.0, min(naps))

    def _tell_late(self, fired: Fired) -> None:
        now = clock.monotonic()
        if now - self._told_late_at >= _TELL_LATE_EVERY:
            self._told_late_at = now
            log.warning(
                "slots_late",
                lag_seconds=round(fired.lag, 1),
                executions=fired.executions,
                skipped=fired.skipped,
            )


class Heartbeat:
    """This process's row: a beat every 2 s, and a new row where the old one was declared dead."""

    def __init__(self, link: Link, dispatch: Dispatch) -> None:
        self._link = link
        self._dispatch = dispatch
        self._id: uuid.UUID | None = None

    def run_once(self) -> float:
        """Beat once."""
        if self._id is None or not self._beat(self._id):
            self._id = uuid.uuid4()
            host = socket.gethostname()
            workers.register(
                self._link,
                id=self._id,
                kind="poller",
                name=f"poller-{host}-{os.getpid()}",
                host=host,
                pid=os.getpid(),
                pools=(),
                concurrency=0,
            )
            self._beat(self._id)
        return BEAT_EVERY

    def _beat(self, id: uuid.UUID) -> bool:
        return workers.beat(self._link, id, lag_seconds=self._dispatch.lag)

    def leave(self) -> None:
        """Remove the row."""
        if self._id is not None:
            workers.leave(self._link, self._id)


class Poller:
    """The services of one poller process, ready to be run."""

    def __init__(
        self, url: str, broker: Broker, *, high_water: int, poll_interval: float, history_days: int
    ) -> None:
        self._links = [
            Link(url, f"poller-{name}")
            for name in ("dispatch", "beside", "reconcile", "house", "beat", "zones")
        ]
        dispatching, beside, reconciling, keeping, beating, computing = self._links
        pusher = Pusher(broker)
        self.dispatch = Dispatch(dispatching, broker, high_water, poll_interval, pusher, beside)
        told = Failures()
        loop = _service("dispatch", self.dispatch.run_once, told)
        self._reconcile = Reconcile(reconciling, broker, loop.wake, pusher)
        self._heartbeat = Heartbeat(beating, self.dispatch)
        self._deaths = DeathWatch(beating)
        self._listener = Listener(url, "poller-listen")
        house = Housekeeping(keeping, broker, history_days)
        zones = ZoneRules(computing, loop.wake)
        self._wake = loop.wake
        reconcile = _service("reconcile", self._reconcile_once, told)
        self._wake_reconcile = reconcile.wake
        self.services = [
            _service("heartbeat", self._beat_once, told),
            _service("listen", self._listen_once, told),
            Service("housekeeping", _counted("housekeeping", house.run_once), failures=told),
            Service("zones", _counted("zones", zones.run_once), failures=told),
            reconcile,
            loop,
        ]

    def close(self) -> None:
        """Give everything back, after the services have stopped."""
        try:
            self._heartbeat.leave()
        except DatabaseError as error:
            log.warning("row_left_behind", error=str(error))
        self._listener.close()
        for link in self._links:
            link.close()

    def _listen_once(self) -> float:
        try:
            heard = self._listener.wait()
        except DatabaseError:
            self._wake()  # what was said while nobody listened is found by looking
            raise
        if heard:
            self._wake()
        return 0.0

    def _beat_once(self) -> float:
        """Beat, and look who else does: on one link, since neither waits for anything but Postgres."""
        nap = self._heartbeat.run_once()
        if self._deaths.run_once():
            self._wake_reconcile()
        return nap

    def _reconcile_once(self) -> float:
        began = clock.monotonic()
        self._reconcile.run_once()
        # Of the round, not after it: beside a Redis that stands still a round takes 4 s.
        return max(0.5, RECONCILE_EVERY - (clock.monotonic() - began))


def _service(name: str, run_once: Callable[[], float], told: Failures) -> Service:
    """A service that is back within 2 s of the end of an outage."""
    return Service(name, _counted(name, run_once), nap_on_error=0.5, longest_nap_on_error=2.0, failures=told)


def _counted(name: str, run_once: Callable[[], float]) -> Callable[[], float]:
    """``run_once``, whose failures are counted."""
    # Shown from the start: a series that begins at 1 has never increased, and no alarm would tell of a single bug.
    bugs = metrics.service_failures.labels(name, "bug")

    def run() -> float:
        try:
            return run_once()
        except JobschedError as error:
            metrics.service_failures.labels(name, error.code).inc()
            raise
        except Exception:
            bugs.inc()
            raise

    return run

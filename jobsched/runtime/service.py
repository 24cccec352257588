"""Background services: one function called again and again, with naps that end at once.

A service is a name and ``run_once``, which does one round of work and returns how many seconds it may nap.
An exception of a round is logged and the next round comes later; it never ends the service. Start, stop
and wake are legal in any order and from any thread.
"""

import threading
from collections.abc import Callable, Sequence

from jobsched import log
from jobsched.clock import monotonic
from jobsched.errors import ConfigError, JobschedError
from jobsched.runtime.outage import Outage
from jobsched.runtime.signals import StopSignal

_STOP_SECONDS = 15.0
_FIRST_LOOK_AGAIN = 0.1
_LONGEST_LOOK_AGAIN = 1.0


class Service:
    """One background service.

    ``nap_on_error`` is the pause after a failed round, in seconds; it doubles up to ``longest_nap_on_error``
    while rounds fail. What must be back at once after an outage keeps that short. Services that share ``failures``
    share the lines about what fails them all.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], float],
        *,
        nap_on_error: float = 1.0,
        longest_nap_on_error: float = 30.0,
        failures: "Failures | None" = None,
    ) -> None:
        self.name = name
        self._told = failures or Failures()
        self.last_error: BaseException | None = None
        self._run_once = run_once
        self._nap_on_error = nap_on_error
        self._longest_nap_on_error = longest_nap_on_error
        self._stopping = threading.Event()
        self._wakened = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Run in a thread of its own. Does nothing when it was started or stopped before."""
        with self._lock:
            if self._thread is not None or self._stopping.is_set():
                return
            # A daemon: a round that hangs in C code must not keep the process from ending.
            self._thread = threading.Thread(target=self.run_forever, name=self.name, daemon=True)
            self._thread.start()

    def ask_to_stop(self) -> None:
        """Let the present round be the last, without waiting for its end."""
        self._stopping.set()
        self._wakened.set()

    def stop(self, timeout: float = _STOP_SECONDS) -> bool:
        """Ask to stop and wait up to ``timeout`` seconds for the present round; whether it has ended."""
        self.ask_to_stop()
        with self._lock:  # a thread that is being started cannot be joined yet
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def wake(self) -> None:
        """End the present nap, or skip the next one if a round is under way. A pause after an error stays."""
        self._wakened.set()

    def run_forever(self) -> None:
        """Run in the calling thread until stopped. What is not an Exception (SystemExit) ends it, and passes."""
        failures = 0
        while not self._stopping.is_set():
            self._wakened.clear()
            if self._stopping.is_set():
                return  # set between the two lines above, so that clear() took its wake-up away
            try:
                nap = self._run_once()
            except Exception as error:
                self.last_error = error
                nap = min(self._nap_on_error * 2.0 ** min(failures, 20), self._longest_nap_on_error)
                failures += 1
                self._told.failed(self.name, error, nap)
                # Only a stop ends this nap: wake-ups that pour in must not make a failing round spin.
                self._stopping.wait(nap)
            except BaseException as error:
                self.last_error = error
                raise
            else:
                if failures:
                    self._told.over(self.name)
                failures, self.last_error = 0, None
                self._wakened.wait(min(max(nap, 0.0), threading.TIMEOUT_MAX))


class Failures:
    """What is said about rounds that fail: one line at once, then one in 10 s for each reason, and its end."""

    def __init__(self) -> None:
        self._by_code: dict[str, Outage] = {}

    def failed(self, service: str, error: Exception, nap: float) -> None:
        """A round of ``service`` has failed."""
        expected = isinstance(error, JobschedError)
        code = error.code if isinstance(error, JobschedError) else "bug"
        outage = self._by_code.setdefault(code, Outage("service_failed", level="error"))
        # Expected kinds of trouble, such as a server that is away: the reason says all.
        reason = str(error) if expected else repr(error)
        more = {} if expected else {"exc_info": error}
        outage.failed(service, service=service, code=code, reason=reason, again_in_seconds=nap, **more)

    def over(self, service: str) -> None:
        """A round of ``service`` was good again."""
        for outage in list(self._by_code.values()):
            outage.over(service)


class ServiceDied(JobschedError):
    """A service's thread has ended although nobody had asked it to."""

    code = "service_died"


def run(service_list: Sequence[Service], stop: StopSignal) -> None:
    """Start all services, wait until a stop is asked for, and stop them in reverse order, within 15 s in all.

    Raises ServiceDied when one ends by itself; the others are stopped before. A process that goes on
    without one of its services would look healthy and do half its work.
    """
    dead: Service | None = None
    try:
        for service in service_list:
            service.start()
        while not stop.event.wait(0.5):
            dead = next((service for service in service_list if not service.alive), None)
            if dead is not None:
                break
    finally:
        # All of them first: with a server that stands still each round takes long, and none may begin another.
        for service in reversed(service_list):
            service.ask_to_stop()
        end = monotonic() + _STOP_SECONDS
        for service in reversed(service_list):
            if not service.stop(max(0.0, end - monotonic())):
                log.get_logger(service=service.name).error("service_does_not_stop")
    if dead is not None:
        raise ServiceDied(f"The service {dead.name} has ended by itself: {dead.last_error!r}")


def wait_for(check: Callable[[], object], seconds: float, stop: StopSignal, what: str) -> bool:
    """Call ``check`` until it passes; for a process's start, when servers and schema may still be on their way.

    True when it passed, False when a stop was asked for meanwhile. When it still fails after ``seconds``,
    raises JobschedError with ``what`` and the last reason. A ConfigError is raised at once, and so is what
    is neither an error of ours nor of the operating system: waiting cannot help.
    """
    logger = log.get_logger(waiting_for=what)
    end = monotonic() + seconds
    nap = _FIRST_LOOK_AGAIN
    told = False
    while not stop.requested:
        try:
            check()
            return True
        except ConfigError:
            raise
        except (JobschedError, OSError) as error:
            reason = error
        if monotonic() >= end:
            raise JobschedError(f"{what}: not there after {seconds:g} s. {reason}") from reason
        if not told:
            logger.info("waiting", reason=str(reason), at_most_seconds=seconds)
            told = True
        stop.event.wait(min(nap, max(end - monotonic(), 0.0)))
        nap = min(nap * 1.5, _LONGEST_LOOK_AGAIN)
    return False

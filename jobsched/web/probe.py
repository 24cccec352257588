"""A check whose answer is waited for no longer than a probe is worth."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime

from jobsched.clock import monotonic
from jobsched.errors import DatabaseUnavailable


class Probe:
    """Runs ``check`` in a thread of its own, one at a time; who asks meanwhile waits for the same one.

    A database that stands still (a stalled disk, a paused machine) goes on acknowledging packets, so no timeout
    of its connection ends. Readiness probes that waited for it would take one request thread after the other,
    until ``/health`` had none.
    """

    def __init__(self, check: Callable[[], None], *, patience: float = 3.0) -> None:
        self._check = check
        self._patience = patience
        self._lock = threading.Lock()
        self._running: tuple[Future[None], float] | None = None

    def __call__(self) -> None:
        """Raises what ``check`` raised, or DatabaseUnavailable when it began over ``patience`` seconds ago."""
        with self._lock:
            if self._running is None or self._running[0].done():
                self._running = Future(), monotonic() + self._patience
                threading.Thread(
                    target=self._run, args=(self._running[0],), daemon=True, name="probe"
                ).start()
            result, deadline = self._running
        try:
            result.result(max(0.0, deadline - monotonic()))
        except NotInTime:
            raise DatabaseUnavailable("The database does not answer in time.") from None

    def _run(self, result: "Future[None]") -> None:
        try:
            self._check()
        except Exception as error:
            result.set_exception(error)
        else:
            result.set_result(None)

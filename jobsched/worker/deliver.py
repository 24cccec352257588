"""Deliver: the thread that owns the transport, and runs what each call needs besides (worker/strands.py).

It never stands still for Postgres or Redis. (A loop that was blocked for 3 s by a database turned 20 answers of 200
into 20 timeouts.)
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from jobsched import clock
from jobsched.callback.model import Call, Result
from jobsched.log import get_logger
from jobsched.worker.strands import Strands

#: Seconds that a turn may last when nothing happens: the beat goes on only while there are turns.
_LONGEST_WAIT = 1.0

log = get_logger()


class Carrier(Protocol):
    """What the thread drives: jobsched.callback.transport.Transport, or a stub with the same contract."""

    def start(self, call: Call) -> None: ...
    def abort(self, execution_id: int, error_code: str, message: str) -> bool: ...
    def turn(self, timeout: float) -> list[Result]: ...
    def listen(self, fd: int, wanted: int, on_ready: Callable[[int], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...


class Deliver:
    """Starts calls, aborts them, passes on how they ended, and lets ``strands`` run in between.

    ``make_carrier`` is called on the delivering thread, after any fork. ``on_end`` gets each turn's results
    with the monotonic time of their end. ``may_start`` is asked as late as can be whether a call is still this
    worker's: a process that was frozen since its claim must not start what others run by now.
    """

    def __init__(
        self,
        make_carrier: Callable[[], Carrier],
        on_end: Callable[[list[Result], float], None],
        may_start: Callable[[Call], bool] = lambda _call: True,
        strands: Strands | None = None,
    ) -> None:
        self._make_carrier = make_carrier
        self._on_end = on_end
        self._may_start = may_start
        self._strands = strands or Strands()
        self._inbox: deque[Call] = deque()
        self._aborts: deque[tuple[int, str, str]] = deque()
        self._stopping = False
        self._carrier: Carrier | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)
        self.turns = 0
        """Turns of the loop so far: it lives as long as this grows."""

    def begin(self) -> None:
        """Start the thread and wait until it can take calls."""
        self._thread.start()
        self._ready.wait()

    @property
    def alive(self) -> bool:
        """Whether the thread runs. It ends only when it is told to, or by a fault of ours."""
        return self._thread.is_alive()

    def start(self, calls: Sequence[Call]) -> None:
        """Begin ``calls`` on the delivering thread. Thread-safe."""
        self._inbox.extend(calls)
        self._wake()

    def abort(self, ids: Sequence[int], error_code: str, message: str) -> None:
        """End calls early, unless they have ended meanwhile; their results carry ``error_code``. Thread-safe."""
        self._aborts.extend((execution, error_code, message) for execution in ids)
        self._wake()

    def end(self, timeout: float) -> None:
        """Stop the thread; calls still in flight are dropped without a result."""
        self._stopping = True
        self._wake()
        self._thread.join(timeout)

    def _wake(self) -> None:
        if self._carrier is not None and threading.current_thread() is not self._thread:
            self._carrier.wake()

    def _run(self) -> None:
        try:
            carrier = self._make_carrier()
            self._strands.attach(carrier)
            self._carrier = carrier
        except Exception:
            log.exception("deliver_loop_broken")
            return
        finally:
            self._ready.set()
        try:
            while not self._stopping:
                self._turn(carrier)
        except Exception:
            # Without this thread the process is a shell that claims and never calls. Its beat stops with
            # it (worker/liveness.py), and the process ends and is started again.
            log.exception("deliver_loop_broken")
        finally:
            carrier.close()

    def _turn(self, carrier: Carrier) -> None:
        patience = min(self._strands.run(), _LONGEST_WAIT)
        while self._inbox:
            call = self._inbox.popleft()
            carrier.start(call)
            if not self._may_start(call):
                # Before a byte of it was sent, so it goes back to its queue.
                carrier.abort(
                    call.execution_id, "interrupted", "The worker stops, or lost touch with the database."
                )
        while self._aborts:
            carrier.abort(*self._aborts.popleft())
        results = carrier.turn(patience)
        if results:
            self._on_end(results, clock.monotonic())
        self.turns += 1

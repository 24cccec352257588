"""The stop protocol: the first signal asks, a later second one insists.

A handler must do next to nothing: it runs between any two instructions of the main thread, which may at
that moment hold the very lock that setting a ``threading.Event`` needs. So the interpreter itself writes
the signal's number into a pipe (``signal.set_wakeup_fd``), and a thread of ours reads it there. That also
works while the main thread sits in C code.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from jobsched.clock import monotonic

# A terminal's Ctrl-C, a supervisor and an orchestrator may each send one for the same wish.
TOGETHER_SECONDS = 1.0

FORCED_EXIT_CODE = 130

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Whether the process has been asked to stop.

    ``event`` is set by the first SIGTERM or SIGINT (or by ``request``). Signals less than a second after
    the first count as the same; a later one calls ``on_force`` and then ends the process at once with
    code 130. ``on_force`` runs on the watching thread and must not wait for the main one.
    """

    def __init__(self, on_force: Callable[[], None] | None = None) -> None:
        self.event = threading.Event()
        self._on_force = on_force
        self._first: float | None = None
        self._flag = False
        self._forced = False
        self._previous: dict[int, Any] = {}
        self._wakeup: tuple[int, int] | None = None

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._flag or self.event.is_set()

    @property
    def forced(self) -> bool:
        """Whether a later second signal has come: the process is about to end."""
        return self._forced

    def install(self, numbers: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        """Take over these signals; to be called once, in the main thread. An ignored SIGHUP stays ignored."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        wanted = {
            number
            for number in numbers
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        self._wakeup = (write, signal.set_wakeup_fd(write, warn_on_full_buffer=False))
        threading.Thread(target=self._watch, args=(read, wanted), name="signals", daemon=True).start()
        for number in wanted:
            self._previous[number] = signal.signal(number, self._handle)

    def uninstall(self) -> None:
        """Give the signals back to who had them before.

        Does not return once a second signal has come: what it kills looks to the main thread like an
        orderly end, and the exit code must still be 130.
        """
        if self._forced:
            threading.Event().wait()
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()
        if self._wakeup is not None:
            write, before = self._wakeup
            self._wakeup = None
            signal.set_wakeup_fd(before)
            # The watching thread sees the end of the pipe, closes its own end and is gone.
            os.close(write)

    def request(self) -> None:
        """Ask for a stop from inside, as a first signal would."""
        self._flag = True
        self.event.set()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._flag = True

    def _watch(self, pipe: int, wanted: set[signal.Signals]) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as numbers:
            # Python handlers of other signals write here too.
            while number := numbers.read(1):
                if number[0] in wanted:
                    self._arrived(monotonic())

    def _arrived(self, now: float) -> None:
        self._flag = True
        self.event.set()
        if self._first is None:
            self._first = now
        elif now - self._first >= TOGETHER_SECONDS:
            self._forced = True
            try:
                if self._on_force is not None:
                    self._on_force()
            finally:
                os._exit(FORCED_EXIT_CODE)

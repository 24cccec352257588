"""Whose turn it is to compute, among the threads of a busy worker.

The interpreter lets one thread run at a time. libcurl's binding gives that up and takes it back some twenty times for a
call, around every function of the library and every callback. Alone that costs nothing. With another thread waiting
for it, each time is a race with system calls and a change of the thread on the other core: a third of a worker's CPU
(measured). So those who have much to compute ask for a turn first. Whoever waits here does not wait there.

Nobody waits for a server, a target or a sleep during a turn, nor for a lock that another holds during one.
"""

from collections import deque
from threading import Lock
from types import TracebackType


class Turns:
    """A lock that is fair: a turn goes to whoever has waited longest. Use it as a context manager."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._taken = False
        self._waiting: deque[Lock] = deque()
        self.aside = _Aside(self)
        """A context manager: during a turn of one's own, let others have theirs inside the block."""

    def __enter__(self) -> None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            gate = Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            if self._waiting:
                # Handed over, not given up: else who gives it up takes it again before the other is awake.
                self._waiting.popleft().release()
            else:
                self._taken = False


class _Aside:
    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        self._turns.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.__enter__()

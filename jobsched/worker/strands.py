"""Strands: several lines of work on one thread, each written as if it waited for its servers by itself.

Threads that all need the interpreter cost more than the work they share out: libcurl's callbacks give it up some
sixteen times a call, whoever comes back from Postgres takes it, and all that one had in a core's cache the next one
fetches from another core's. So what a worker does for each call runs on the thread that sends the calls, in greenlets:
one that waits for Postgres lets the others go on, and the sockets of both are in one epoll. What can only block
(connecting, Redis) is done ``elsewhere``, on a thread beside.

A strand must never block: while it does, answers come late for all calls in flight.
"""

import threading
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from greenlet import getcurrent, greenlet

from jobsched.clock import monotonic
from jobsched.log import get_logger

T = TypeVar("T")

#: Seconds until a strand that waits for another looks by itself.
_A_WHILE = 1.0

log = get_logger()


class Loop(Protocol):
    """What watches the sockets: jobsched.callback.transport.Transport."""

    def listen(self, fd: int, wanted: int, on_ready: Callable[[int], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def wake(self) -> None: ...


class _Park:
    """One wait of one strand, ended once."""

    __slots__ = ("over", "strand", "value")

    def __init__(self, strand: greenlet) -> None:
        self.strand = strand
        self.over = False
        self.value: Any = None


class Bell:
    """Rung from anywhere, heard by the one strand that waits for it; a ring before the wait ends it at once."""

    def __init__(self, strands: "Strands") -> None:
        self._strands = strands
        self._rung = False
        self._park: _Park | None = None

    def ring(self) -> None:
        """End the present wait, or the next one. Thread-safe."""
        self._rung = True
        self._strands.call(self._heard)

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds, in a strand. Whether the bell was rung since the last wait."""
        if not self._rung:
            self._park = self._strands.new_park()
            self._strands.wait(self._park, monotonic() + timeout)
            self._park = None
        rung, self._rung = self._rung, False
        return rung

    def _heard(self) -> None:
        if self._park is not None:
            self._strands.resume(self._park, True)


class Handover(Generic[T]):
    """From one strand to another, one thing at a time: who gives waits until the one before is taken."""

    def __init__(self, strands: "Strands") -> None:
        self._given, self._taken = Bell(strands), Bell(strands)
        self._thing: T | None = None
        self._closed = False

    def put(self, thing: T) -> None:
        """Give ``thing``, as soon as there is room."""
        while self._thing is not None:
            self._taken.wait(_A_WHILE)
        self._thing = thing
        self._given.ring()

    def get(self) -> T | None:
        """Wait for the next thing. None: it was closed, and nothing is left."""
        while self._thing is None and not self._closed:
            self._given.wait(_A_WHILE)
        thing, self._thing = self._thing, None
        self._taken.ring()
        return thing

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._given.ring()


class Strand:
    """One line of work; ``run`` is over when it returns."""

    def __init__(self, strands: "Strands", name: str, run: Callable[[], None]) -> None:
        self.name = name
        self._strands = strands
        self._run = run
        self._over = threading.Event()
        # Held here, for a greenlet that nobody holds is ended where it stands.
        self._greenlet: greenlet | None = None
        self._beside: SimpleQueue[Callable[[], None] | None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended. It ends when it is told to, or by a fault of ours."""
        return not self._over.is_set()

    def begin(self) -> None:
        """Let it run, as soon as its thread turns. Thread-safe."""
        self._strands.call(self._begin)

    def join(self, timeout: float) -> bool:
        """Wait on another thread, up to ``timeout`` seconds, until it has ended; whether it has."""
        return self._over.wait(timeout)

    def elsewhere(self, act: Callable[[], T]) -> T:
        """What ``act`` returns or raises, on a thread of this strand's own; the strand waits for it."""
        strands, park, found = self._strands, self._strands.new_park(), _Found[T]()

        def run() -> None:
            found.fill(act)
            strands.call(lambda: strands.resume(park, True))

        if self._beside is None:
            work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
            self._beside = work
            threading.Thread(target=_serve, args=(work,), name=f"{self.name}-beside", daemon=True).start()
        self._beside.put(run)
        strands.wait(park, inf)
        return found.get()

    def _begin(self) -> None:
        self._greenlet = _Running(self, self._to_its_end)
        self._strands.resume(_Park(self._greenlet), None)

    def _to_its_end(self) -> None:
        try:
            self._run()
        except Exception:
            # Its process is of no use any more: whoever looks after it finds it ended.
            log.exception("strand_broken", strand=self.name)
        finally:
            if self._beside is not None:
                self._beside.put(None)
            self._over.set()


class _Running(greenlet):
    """The greenlet of a strand, by which code far below finds out where it runs."""

    def __init__(self, strand: Strand, run: Callable[[], None]) -> None:
        super().__init__(run)
        self.strand_of_work = strand


class _Found(Generic[T]):
    """What a function on another thread has returned or raised."""

    def fill(self, act: Callable[[], T]) -> None:
        self._error: BaseException | None = None
        try:
            self._value = act()
        except BaseException as error:
            self._error = error

    def get(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value


def _serve(work: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (act := work.get()) is not None:
        act()


class Strands:
    """The strands of one thread. All but ``add``, ``call`` and ``here`` belongs to that thread."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._thread = 0
        self._ready: deque[_Park] = deque()
        self._timers: list[tuple[float, int, _Park]] = []
        self._numbers = count()
        self._called: deque[Callable[[], None]] = deque()

    def add(self, name: str, run: Callable[[], None]) -> Strand:
        """A strand, not yet begun."""
        return Strand(self, name, run)

    def attach(self, loop: Loop) -> None:
        """Run on the present thread from now on, and wait for sockets by ``loop``."""
        self._loop = loop
        self._thread = threading.get_ident()

    def call(self, act: Callable[[], None]) -> None:
        """Run ``act``, which must be short, on the strands' thread when it turns next. Thread-safe."""
        self._called.append(act)
        if threading.get_ident() != self._thread and self._loop is not None:
            self._loop.wake()

    def run(self) -> float:
        """Let every strand go on that can, once. Returns the seconds until the next can, as far as is known."""
        called, ready, timers = self._called, self._ready, self._timers
        while called:
            called.popleft()()
        if timers:
            now = monotonic()
            while timers and (timers[0][0] <= now or timers[0][2].over):
                self.resume(heappop(timers)[2], None)
        # What they make ready waits for the next turn: sockets come first.
        for _ in range(len(ready)):
            ready.popleft().strand.switch()
        if ready or called:
            return 0.0
        return max(0.0, timers[0][0] - monotonic()) if timers else inf

    # -- in a strand --------------------------------------------------------------------------------------------

    def here(self) -> bool:
        """Whether the caller runs in a strand of these, and so may wait here."""
        return isinstance(getcurrent(), _Running)

    def pause(self, seconds: float) -> None:
        """Let the others go on for ``seconds``, one turn at least."""
        self.wait(self.new_park(), monotonic() + seconds)

    def until_ready(self, fd: int, wanted: int, deadline: float) -> int:
        """Wait until a socket can be read (1), written (2) or both (3), as ``wanted``; which of them. 0: too late."""
        assert self._loop is not None
        park = self.new_park()

        def ready(events: int) -> None:
            self.resume(park, (events & 2) | (1 if events & ~2 else 0))

        self._loop.listen(fd, wanted, ready)
        try:
            return self.wait(park, deadline) or 0
        finally:
            self._loop.unlisten(fd)

    def elsewhere(self, act: Callable[[], T]) -> T:
        """What ``act``, which may block, returns or raises; the present strand waits for it."""
        running = getcurrent()
        assert isinstance(running, _Running)
        return running.strand_of_work.elsewhere(act)

    # -- the waits themselves -----------------------------------------------------------------------------------

    def new_park(self) -> _Park:
        """A wait of the present strand."""
        return _Park(getcurrent())

    def wait(self, park: _Park, deadline: float) -> Any:
        """Let the others go on until the wait is ended: with the value it is ended with, or None at ``deadline``."""
        if deadline < inf:
            heappush(self._timers, (deadline, next(self._numbers), park))
        parent = park.strand.parent
        assert parent is not None, "only a strand can wait here"
        parent.switch()
        return park.value

    def resume(self, park: _Park, value: Any) -> None:
        """End a wait, unless it has ended."""
        if not park.over:
            park.over = True
            park.value = value
            self._ready.append(park)

"""Name lookups in threads of their own, because getaddrinfo cannot be given a deadline.

libcurl's own pool of resolver threads is starved by ten names that do not answer. Here one lookup is shared
by all who wait for the name, answers are kept for a while, and names whose last lookup failed may occupy
only a quarter of the threads, however many jobs call them.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jobsched.callback.failure import NO_DESCRIPTORS, out_of_descriptors
from jobsched.clock import monotonic

Addresses = tuple[str, ...]
Answer = Addresses | str
OnDone = Callable[[Answer], None]

_REMEMBERED = 10_000
_T = TypeVar("_T")


@dataclass(slots=True)
class _Lookup:
    host: str
    port: int
    waiters: list[OnDone] = field(default_factory=list)
    suspect: bool = False


class Resolver:
    """Looks names up in at most ``threads`` threads and keeps good answers for ``ttl`` seconds.

    Threads are made when needed, so a resolver may be built before a fork and used after it. Thread-safe.
    """

    def __init__(
        self, *, threads: int = 64, ttl: float = 30.0, lookup: Callable[..., Any] = socket.getaddrinfo
    ) -> None:
        self._threads = threads
        self._suspects_at_once = max(1, threads // 4)
        self._ttl = ttl
        self._lookup = lookup
        self._change = threading.Condition()
        self._answers: dict[str, tuple[float, Addresses]] = {}
        self._failed: dict[str, None] = {}
        self._running: dict[str, _Lookup] = {}
        self._fresh: deque[_Lookup] = deque()
        self._suspect: deque[_Lookup] = deque()
        self._started = 0
        self._idle = 0
        self._suspects_running = 0
        self._closed = False

    def cached(self, host: str) -> Addresses | None:
        """The addresses of ``host`` if they were looked up within the last ``ttl`` seconds; never waits."""
        known = self._answers.get(host)
        if known is None or monotonic() - known[0] > self._ttl:
            return None
        return known[1]

    def resolve(self, host: str, port: int, on_done: OnDone) -> None:
        """Look ``host`` up and call ``on_done`` once: with its addresses, or with a sentence why there are none.

        ``on_done`` is called in the caller's thread when the answer is known, otherwise in one of the
        resolver's; it must be quick and must not raise. There is no deadline: who waits watches its own.
        """
        if (addresses := self.cached(host)) is not None:
            on_done(addresses)
            return
        with self._change:
            if self._closed:
                answer: Answer = "The worker is stopping."
            else:
                self._join_or_begin(host, port, on_done)
                return
        on_done(answer)

    def close(self) -> None:
        """Stop taking lookups. Those that hang in the system's resolver end with the process."""
        with self._change:
            self._closed = True
            self._fresh.clear()
            self._suspect.clear()
            self._change.notify_all()

    def _join_or_begin(self, host: str, port: int, on_done: OnDone) -> None:
        lookup = self._running.get(host)
        if lookup is not None:
            lookup.waiters.append(on_done)
            return
        lookup = self._running[host] = _Lookup(host, port, [on_done], suspect=host in self._failed)
        (self._suspect if lookup.suspect else self._fresh).append(lookup)
        # An idle thread counts as idle until it has really woken, so it is set against all that is pending.
        if len(self._fresh) + len(self._suspect) <= self._idle or self._started == self._threads:
            self._change.notify()
        else:
            self._started += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        while (lookup := self._take()) is not None:
            answer = self._ask(lookup)
            for on_done in self._settle(lookup, answer):
                on_done(answer)

    def _take(self) -> _Lookup | None:
        with self._change:
            while not self._closed:
                if self._fresh:
                    return self._fresh.popleft()
                if self._suspect and self._suspects_running < self._suspects_at_once:
                    self._suspects_running += 1
                    return self._suspect.popleft()
                self._idle += 1
                self._change.wait()
                self._idle -= 1
            return None

    def _ask(self, lookup: _Lookup) -> Answer:
        try:
            found = self._lookup(lookup.host, lookup.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except Exception as error:
            if out_of_descriptors():
                return NO_DESCRIPTORS
            # OSError as a rule, UnicodeError for odd labels; whatever it is, the waiters need an answer.
            reason = getattr(error, "strerror", None) or "it is not a valid name"
            return f"The name {lookup.host} cannot be resolved: {reason}."
        # In the system's order (RFC 6724), each once.
        addresses = tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        return addresses or f"The name {lookup.host} has no addresses."

    def _settle(self, lookup: _Lookup, answer: Answer) -> list[OnDone]:
        with self._change:
            del self._running[lookup.host]
            if answer == NO_DESCRIPTORS:
                pass  # which says nothing of the name
            elif isinstance(answer, str):
                _remember(self._failed, lookup.host, None)
            else:
                self._failed.pop(lookup.host, None)
                _remember(self._answers, lookup.host, (monotonic(), answer))
            if lookup.suspect:
                self._suspects_running -= 1
                self._change.notify()
            return lookup.waiters


def _remember(memory: dict[str, _T], host: str, value: _T) -> None:
    memory.pop(host, None)
    if len(memory) >= _REMEMBERED:
        del memory[next(iter(memory))]
    memory[host] = value

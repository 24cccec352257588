"""The transport: thousands of calls at once from one thread, on one epoll.

Each hop of a call is carried by libcurl (``libcurl``) or, in plain HTTP, over connections of our own (``wire``). What
decides where calls go and how they end is here and in ``flight``, the same for both: name lookups (a pool of our own),
the guard, redirects, deadlines. What libcurl would decide by itself is taken from it where that has been seen to go
wrong: repeats on dying connections, proxies from the environment, waiting (``socket_action`` on epoll), and what
counts as a complete answer.

Its owner calls ``start``, ``turn`` and ``listen`` from one thread; only ``wake`` is for others.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from math import inf

import pycurl

from jobsched.callback.failure import NO_DESCRIPTORS, Failure, for_want_of_descriptors
from jobsched.callback.flight import Flight
from jobsched.callback.guard import Guard
from jobsched.callback.libcurl import Libcurl
from jobsched.callback.loop import Ready, Waker, best_watch
from jobsched.callback.model import Call, Result
from jobsched.callback.resolver import Addresses, Answer, Resolver
from jobsched.callback.wire import Wire
from jobsched.clock import monotonic
from jobsched.domain.targets import TargetUrl, parse_url

_REMEMBERED_PINS = 10_000


class Transport:
    """Sends calls and returns how they ended.

    ``concurrency`` bounds the connections that are kept, not the calls: the caller's seats do that. Soft
    descriptor limits are the caller's business too: up to two a call. ``capture_bytes`` of an answer are kept,
    reading stops after ``read_limit`` bytes. With a ``proxy``, names are left to it to resolve and only
    literal addresses are guarded here. ``ca_bundle`` is a PEM file; by default the system's. ``own_wire``: carry plain
    HTTP without libcurl.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        guard: Guard,
        resolver: Resolver,
        capture_bytes: int = 8192,
        read_limit: int = 1_048_576,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        own_wire: bool = True,
    ) -> None:
        self._guard = guard
        self._resolver = resolver
        self._proxied = proxy is not None
        self._flights: dict[int, Flight] = {}
        self._ended: list[Result] = []
        self._waiting: list[tuple[float, int, int]] = []
        self._resolved: deque[tuple[int, int, Answer]] = deque()
        self._pins: dict[tuple[str, int], tuple[Addresses, list[str] | str]] = {}
        self._waker = Waker()
        self._watch = best_watch()
        self._roused = False
        self._listeners: dict[int, Callable[[int], None]] = {}
        self.listen(self._waker.fd, 1, self._woken)
        self._own_wire = own_wire and not self._proxied
        self._wire = Wire(
            self,
            clock=monotonic,
            check=guard.check_address,
            on_end=self._go_on,
            capture_bytes=capture_bytes,
            read_limit=read_limit,
            most=concurrency,
        )
        self._libcurl = Libcurl(
            self._watch,
            clock=monotonic,
            # Behind a proxy every socket leads to it; the operator chose it, and it guards what lies beyond.
            check=_allow_all if self._proxied else guard.check_address,
            on_end=self._go_on,
            capture_bytes=capture_bytes,
            read_limit=read_limit,
            most=concurrency,
            proxy=proxy,
            ca_bundle=ca_bundle,
        )

    @property
    def in_flight(self) -> int:
        """How many calls were started and have not ended."""
        return len(self._flights)

    def start(self, call: Call) -> None:
        """Begin ``call`` now. Whatever is wrong with it comes back from ``turn`` as its Result.

        Raises ValueError if a call of the same execution is in flight.
        """
        if call.execution_id in self._flights:
            raise ValueError(f"execution {call.execution_id} is already in flight")
        now = monotonic()
        flight = Flight(call, now)
        self._flights[call.execution_id] = flight
        self._approach(flight, now)

    def abort(self, execution_id: int, error_code: str, message: str) -> bool:
        """End a call; its Result carries ``error_code`` and comes with the next turn. False: not in flight."""
        flight = self._flights.get(execution_id)
        if flight is None:
            return False
        sent = flight.carrier is not None and flight.carrier.drop(flight)
        self._end(flight, flight.result(Failure(error_code, message, not sent), monotonic()))
        return True

    def turn(self, timeout: float) -> list[Result]:
        """Move all calls on; wait up to ``timeout`` seconds for something to do. Returns the calls that ended."""
        self._admit()
        if self._run_timers():
            # A target nearby may have answered already, and no event will tell.
            self._libcurl.collect()
        ready = self._watch.wait(self._nap(timeout))
        self._act_on(ready)
        if self._run_timers() or ready:
            self._libcurl.collect()
        ended, self._ended = self._ended, []
        self._roused = False
        return ended

    def listen(self, fd: int, wanted: int, on_ready: Callable[[int], None]) -> None:
        """Watch a socket of somebody else's, too: ``on_ready`` is called within a turn, and at each until ``unlisten``.

        ``wanted``, and what it is called with: 1 to read, 2 to write, and 4 for an error.
        """
        self._listeners[fd] = on_ready
        self._watch.listen(fd, wanted)

    def unlisten(self, fd: int) -> None:
        """No longer watch ``fd``. Before it is closed, or its number may mean a call's socket."""
        if self._listeners.pop(fd, None) is not None:
            self._watch.unlisten(fd)

    def wake(self) -> None:
        """End the present wait of ``turn``, or the next one. Thread-safe."""
        self._waker.wake()

    def close(self) -> None:
        """Drop all calls without a Result and give the descriptors back. The resolver stays its owner's."""
        for flight in self._flights.values():
            if flight.carrier is not None:
                flight.carrier.drop(flight)
        self._flights.clear()
        self._wire.close()
        self._libcurl.close()
        self._watch.close()
        self._waker.close()

    # -- where a call goes --------------------------------------------------------------------------------------

    def _approach(self, flight: Flight, now: float) -> None:
        """Find out where the flight's request goes, ask the guard, and launch it or let it wait for a lookup."""
        try:
            target = parse_url(flight.request.url)
        except ValueError as error:
            self._end(flight, flight.result(Failure("invalid_job", str(error), True), now))
            return
        if target.address is not None:
            if reason := self._guard.check_address(target.host):
                self._end(flight, flight.result(Failure("target_refused", reason, True), now))
            else:
                self._launch(flight, target, (target.host,), None, now)
        elif self._proxied:
            self._launch(flight, target, (), None, now)
        elif (addresses := self._resolver.cached(target.host)) is not None:
            self._launch_to(flight, target, addresses, now)
        else:
            execution = flight.call.execution_id
            heappush(self._waiting, (flight.deadline, execution, flight.hop))
            # Numbers, not the flight: a lookup that hangs must not hold the bodies of all who have waited for it.
            self._resolver.resolve(target.host, target.port, partial(self._on_answer, execution, flight.hop))

    def _launch_to(self, flight: Flight, target: TargetUrl, addresses: Addresses, now: float) -> None:
        known = self._pins.get((target.host, target.port))
        if known is None or known[0] is not addresses:
            known = self._remember_pin(target, addresses)
        pin = known[1]
        if isinstance(pin, str):
            self._end(flight, flight.result(Failure("target_refused", pin, True), now))
        else:
            self._launch(flight, target, addresses, pin, now)

    def _remember_pin(self, target: TargetUrl, addresses: Addresses) -> tuple[Addresses, list[str] | str]:
        """The name's entry for libcurl, or why it is refused: one bad address among several is enough."""
        reasons = (self._guard.check_address(address) for address in addresses)
        reason = next((reason for reason in reasons if reason), None)
        pin: list[str] | str
        if reason is not None:
            pin = f"The name {target.host} leads to a refused address: {reason}"
        else:
            # The plus lets libcurl forget the entry; each call brings its own anyway, which replaces it.
            pin = [f"+{target.host}:{target.port}:{','.join(addresses)}"]
        if len(self._pins) >= _REMEMBERED_PINS:
            self._pins.clear()
        known = self._pins[target.host, target.port] = (addresses, pin)
        return known

    def _launch(
        self, flight: Flight, target: TargetUrl, addresses: Addresses, pin: list[str] | None, now: float
    ) -> None:
        """Send the present hop to one of ``addresses``, all of which have been checked."""
        if now >= flight.deadline:
            self._end(flight, flight.timed_out(flight.redirects > 0, now))
            return
        flight.aim(target, now)
        try:
            # An address with a zone (fe80::1%eth0) would be looked up again.
            plain = target.scheme == "http" and len(addresses) == 1 and "%" not in addresses[0]
            if self._own_wire and plain:
                self._wire.launch(flight, target, addresses[0])
            else:
                self._libcurl.launch(flight, target, pin, now)
        except (ValueError, pycurl.error):
            # The API refuses such jobs; a row that got past it must not hold up the others.
            message = "The request cannot be built: a header or the URL has characters that cannot be sent."
            self._end(flight, flight.result(Failure("invalid_job", message, True), now))

    def _on_answer(self, execution: int, hop: int, answer: Answer) -> None:
        """Called in a thread of the resolver."""
        self._resolved.append((execution, hop, answer))
        self._waker.wake()

    def _admit(self) -> None:
        """Launch the calls whose names have been looked up."""
        while self._resolved:
            execution, hop, answer = self._resolved.popleft()
            flight = self._flights.get(execution)
            if flight is None or flight.hop != hop or flight.waiting_since is None:
                continue  # the call ended while it waited
            now = monotonic()
            if answer == NO_DESCRIPTORS:
                self._end(flight, flight.result(for_want_of_descriptors(), now))
            elif isinstance(answer, str):
                self._end(flight, flight.result(Failure("dns_failed", answer, True), now))
            else:
                self._launch_to(flight, parse_url(flight.request.url), answer, now)

    # -- what a turn does ---------------------------------------------------------------------------------------

    def _run_timers(self) -> bool:
        """End lookups that are out of time and let the carriers do what is due; whether they were asked to."""
        now = monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, execution_id, hop = heappop(self._waiting)
            flight = self._flights.get(execution_id)
            if flight is not None and flight.hop == hop and flight.waiting_since is not None:
                self._end(flight, flight.timed_out(flight.redirects > 0, now))
        sends = self._wire.waiting
        if self._libcurl.due > now and self._wire.due > now and not sends:
            return False
        # What is sent now may go out on kept connections. Which of them have been closed, one look tells for all.
        self._act_on(self._watch.wait(0, everything=True))
        if sends:
            self._wire.flush(now)
        self._wire.run_timers(now)
        self._libcurl.run_timers(now)
        return True

    def _act_on(self, ready: Ready) -> None:
        act, listeners = self._libcurl.act, self._listeners
        for fd, events in ready:
            if fd in listeners:
                listeners[fd](events)
            else:
                act(fd, events)

    def _woken(self, _events: int) -> None:
        # Its cause may be the caller's business, who must not sleep on it: this may be a look before the wait.
        self._roused = True
        self._waker.hush()
        self._admit()

    def _nap(self, timeout: float) -> float:
        if self._ended or self._roused or self._wire.waiting:
            return 0.0
        due = min(self._libcurl.due, self._wire.due, self._waiting[0][0] if self._waiting else inf)
        return max(0.0, min(timeout, due - monotonic()))

    # -- how a call ends ----------------------------------------------------------------------------------------

    def _go_on(self, flight: Flight, result: Result | None, now: float) -> None:
        """A hop has ended by itself: so has its call, or the flight's next request is sent."""
        if result is not None:
            self._end(flight, result)
            return
        flight.enter_hop(now)
        self._approach(flight, now)

    def _end(self, flight: Flight, result: Result) -> None:
        """The call is over. Nothing carries it any more."""
        del self._flights[flight.call.execution_id]
        self._ended.append(result)


def _allow_all(_address: str) -> None:
    return None

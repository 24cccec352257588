"""Hops in plain HTTP/1.1, over connections of our own: half of what libcurl takes for one.

Carried here: requests to ``http://`` with one address. What needs more (TLS, a proxy, a choice between addresses) is
libcurl's. What both do is the same, and the same tests hold it: a request goes out once, on a connection that was
silent a moment before; only what its framing calls complete is an answer; whatever ends the hop is said in the same
words.
"""

import socket
from collections.abc import Callable
from errno import EINPROGRESS
from math import inf
from typing import Protocol

from jobsched import metrics
from jobsched.callback.connections import Connection, IdleConnections, Place
from jobsched.callback.failure import (
    RECEIVE_BROKE,
    SEND_BROKE,
    Failure,
    cannot_open,
    no_connection,
)
from jobsched.callback.flight import Flight
from jobsched.callback.header_lines import request_head
from jobsched.callback.model import Result
from jobsched.callback.reply import NotHttp, Reply
from jobsched.domain.targets import TargetUrl

_READ, _WRITE = 1, 2
_READ_BYTES = 16_384

#: Seconds by which a timeout may be late: with 20,000 calls that hang, a look at all deadlines takes a millisecond.
_GRAIN = 0.01


class Sockets(Protocol):
    """Who watches the sockets: jobsched.callback.transport.Transport."""

    def listen(self, fd: int, wanted: int, on_ready: Callable[[int], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...


class Wire:
    """Carries hops; belongs to one thread.

    ``launch`` queues a hop and ``flush`` sends what is queued: between the two its owner looks at all sockets, which
    tells of kept connections that are closed. ``on_end`` gets each flight whose hop has ended by itself, with the
    call's result, or None where its next request is to be sent. Connections are kept while there are not more than
    ``most``, busy ones among them.
    """

    def __init__(
        self,
        sockets: Sockets,
        *,
        clock: Callable[[], float],
        check: Callable[[str], str | None],
        on_end: Callable[[Flight, Result | None, float], None],
        capture_bytes: int,
        read_limit: int,
        most: int,
    ) -> None:
        self._sockets = sockets
        self._clock = clock
        self._check = check
        self._on_end = on_end
        self._capture = capture_bytes
        self._read_limit = read_limit
        self._most = most
        self._queued: dict[int, tuple[Flight, Place, bytes]] = {}
        self._busy: dict[int, Connection] = {}
        self._idle = IdleConnections(self._close)
        # No later than the first of all deadlines, but for a grain. To keep them in order would cost each call more
        # than to look at all of them now and then.
        self._look_at = inf
        self._no_look_before = 0.0

    @property
    def waiting(self) -> bool:
        """Whether there is something to flush."""
        return bool(self._queued)

    @property
    def due(self) -> float:
        """When ``run_timers`` wants to be called, on the monotonic clock."""
        return min(self._look_at, self._idle.sweep_at)

    def launch(self, flight: Flight, target: TargetUrl, address: str) -> None:
        """Carry the present hop of ``flight``. Raises ValueError for what cannot be sent."""
        request = flight.request
        data = request_head(request, target)
        if request.body and request.method != "HEAD":
            data += request.body
        flight.carrier = self
        self._queued[flight.call.execution_id] = (flight, (target.host, address, target.port), data)

    def flush(self, now: float) -> None:
        """Send what is queued."""
        queued, self._queued = self._queued, {}
        for flight, place, data in queued.values():
            connection = None if flight.on_new_connection else self._idle.take(place, now)
            if connection is None:
                connection = self._open(flight, place, now)
                if connection is None:
                    continue
                connection.until = min(flight.deadline, now + flight.call.connect_timeout_seconds)
            else:
                connection.until = flight.deadline
            connection.flight = flight
            connection.sent = connection.answered = False
            connection.out = data
            connection.began = now
            self._busy[flight.call.execution_id] = connection
            self._look_at = max(min(self._look_at, connection.until), self._no_look_before)
            if connection.connected:
                self._begin(connection, flight, now)

    def run_timers(self, now: float) -> None:
        """End what is out of time, and close what nobody has used for a while."""
        if now >= self._look_at:
            for connection in [one for one in self._busy.values() if one.until <= now]:
                self._out_of_time(connection, now)
            self._no_look_before = now + _GRAIN
            first = min((one.until for one in self._busy.values()), default=inf)
            self._look_at = max(first, self._no_look_before)
        if now >= self._idle.sweep_at:
            self._idle.sweep(now)

    def drop(self, flight: Flight) -> bool:
        """End the hop of ``flight``; whether any of its request may have been sent."""
        flight.carrier = None
        if self._queued.pop(flight.call.execution_id, None) is not None:
            return False
        connection = self._leave(flight)
        self._close(connection)
        return connection.sent

    def close(self) -> None:
        """Close all connections; hops under way are dropped without a word."""
        for connection in self._busy.values():
            self._close(connection)
        self._queued.clear()
        self._busy.clear()
        self._idle.clear()

    # -- connections --------------------------------------------------------------------------------------------

    def _close(self, connection: Connection) -> None:
        self._sockets.unlisten(connection.fd)
        connection.sock.close()

    def _open(self, flight: Flight, place: Place, now: float) -> Connection | None:
        """A connection under way; None where there is none and the flight's hop has ended."""
        _host, address, port = place
        # Checked before, as a literal or as what a name leads to. But nothing is dialled unasked.
        if (reason := self._check(address)) is not None:
            self._end(flight, flight.result(Failure("target_refused", reason, True), now), now)
            return None
        if len(self._idle) + len(self._busy) >= self._most:
            self._idle.close_oldest()  # a descriptor a call is what was reckoned with
        metrics.connections.inc()
        try:
            sock = self._new_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        except OSError as error:
            self._end(flight, flight.result(cannot_open(error), now), now)
            return None
        connection = Connection(sock, place, now)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = sock.connect_ex((address, port))
            if number not in {0, EINPROGRESS}:
                raise OSError(number, "connect")
            self._watch(connection, _WRITE)
        except OSError as error:
            self._close(connection)
            self._end(flight, flight.result(_not_connected(flight, error.errno or 0), now), now)
            return None
        return connection

    def _new_socket(self, family: int) -> socket.socket:
        try:
            return socket.socket(family)
        except OSError:
            # Kept ones are a convenience, and may be what it is wanting for.
            if not self._idle.clear():
                raise
        return socket.socket(family)

    def _watch(self, connection: Connection, wanted: int) -> None:
        self._sockets.listen(connection.fd, wanted, lambda events: self._on_ready(connection, events))

    # -- one hop ------------------------------------------------------------------------------------------------

    def _begin(self, connection: Connection, flight: Flight, now: float) -> None:
        """The connection is there: send."""
        connection.reply = Reply(
            bodyless=flight.request.method == "HEAD", capture=self._capture, limit=self._read_limit
        )
        connection.began = now
        self._write(connection, flight, now)

    def _on_ready(self, connection: Connection, events: int) -> None:
        flight, now = connection.flight, self._clock()
        if flight is None:
            self._idle.ended(connection, now)
        elif not connection.connected:
            self._on_connected(connection, flight, now)
        elif connection.answered or (connection.out and events & _WRITE):
            self._write(connection, flight, now)
        else:
            self._read(connection, flight, now)

    def _on_connected(self, connection: Connection, flight: Flight, now: float) -> None:
        number = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(connection, flight, _not_connected(flight, number), now)
            return
        connection.connected = True
        connection.until = flight.deadline
        flight.connect += now - connection.began
        self._watch(connection, _READ)
        self._begin(connection, flight, now)

    def _write(self, connection: Connection, flight: Flight, now: float) -> None:
        out = connection.out
        try:
            written = connection.sock.send(out)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self._on_write_broken(connection, flight, error, now)
            return
        left = len(out) - written
        if written:
            connection.sent = True
            connection.began = now
        if not left:
            if type(out) is memoryview:
                self._watch(connection, _READ)
            connection.out = b""
            if connection.answered:
                self._finish(connection, flight, now)
        else:
            if type(out) is bytes:
                self._watch(connection, _READ | _WRITE)
            connection.out = memoryview(out)[written:]

    def _on_write_broken(self, connection: Connection, flight: Flight, error: OSError, now: float) -> None:
        if not connection.sent and connection.used:
            # It was closed since the look before. Nothing has left: the same request on a new one.
            self._close(self._leave(flight))
            flight.fresh = True
            self._end(flight, None, now)
        elif not connection.sent:
            self._fail(connection, flight, _not_connected(flight, error.errno or 0), now)
        elif connection.answered:
            self._finish(connection, flight, now)
        else:
            # A target that has refused a large body has answered before it closed. What is left of the body stays where
            # it is, so that the connection is not kept.
            self._watch(connection, _READ)
            self._read(connection, flight, now, SEND_BROKE)

    def _read(self, connection: Connection, flight: Flight, now: float, broke: str = RECEIVE_BROKE) -> None:
        reply = connection.reply
        try:
            data = connection.sock.recv(_READ_BYTES)
            if not flight.answering and data:
                flight.answering = True
                flight.first_byte += now - connection.began
            if data:
                if not reply.feed(data):
                    return
            else:
                reply.end()
        except BlockingIOError:
            return
        except OSError:
            self._fail(connection, flight, Failure("protocol_error", broke, False), now)
            return
        except NotHttp as fault:
            self._fail(connection, flight, Failure("protocol_error", str(fault), False), now)
            return
        assert reply.head is not None
        if connection.out and reply.head.status < 300 and data:
            # It has said yes before it has read all, and may want the rest. Another answer says that it does not.
            connection.answered = True
            self._watch(connection, _WRITE)
        else:
            self._finish(connection, flight, now)

    def _finish(self, connection: Connection, flight: Flight, now: float) -> None:
        """The answer is complete."""
        head, reusable = connection.reply.head, connection.reply.reusable
        assert head is not None
        self._leave(flight)
        if reusable and not connection.out and not connection.answered:
            self._idle.keep(connection, now)
        else:
            self._close(connection)
        self._end(flight, flight.answered(head.status, head.headers, now), now)

    def _leave(self, flight: Flight) -> Connection:
        """The flight and its connection part; what was received stays with the flight."""
        connection = self._busy.pop(flight.call.execution_id)
        connection.flight = None
        if connection.connected:
            flight.body, flight.received = connection.reply.body, connection.reply.received
        return connection

    def _fail(self, connection: Connection, flight: Flight, failure: Failure, now: float) -> None:
        self._close(self._leave(flight))
        self._end(flight, flight.result(failure, now), now)

    def _out_of_time(self, connection: Connection, now: float) -> None:
        flight = connection.flight
        assert flight is not None
        sent = self.drop(flight)
        if connection.connected or now >= flight.deadline:
            self._end(flight, flight.timed_out(sent, now), now)
        else:
            self._end(flight, flight.not_connected_in_time(now), now)

    def _end(self, flight: Flight, result: Result | None, now: float) -> None:
        flight.carrier = None
        self._on_end(flight, result, now)


def _not_connected(flight: Flight, number: int) -> Failure:
    assert flight.target is not None
    return no_connection(flight.target.host, flight.target.port, number)

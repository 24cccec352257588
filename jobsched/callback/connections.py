"""Connections of our own, and those among them that are kept for the next call to the same place."""

import socket
from collections import OrderedDict
from collections.abc import Callable
from math import inf

from jobsched.callback.flight import Flight
from jobsched.callback.kept import MAX_IDLE_SECONDS, MAX_LIFETIME_SECONDS
from jobsched.callback.reply import Reply

#: A target that closes within so many seconds of its answer, without having said so, does it with each. A request that
#: crosses such an end has an unknown one: for some seconds its connections are not kept.
_AT_ONCE = 0.1
_UNKEPT_SECONDS = 10.0
_REMEMBERED = 1000

Place = tuple[str, str, int]
"""Host, address and port: what calls must share to share a connection."""


class Connection:
    """One connection, and the hop that it carries, if any. Times are monotonic."""

    __slots__ = (
        "answered",
        "began",
        "connected",
        "fd",
        "flight",
        "idle_since",
        "opened_at",
        "out",
        "place",
        "reply",
        "sent",
        "sock",
        "until",
        "used",
    )

    def __init__(self, sock: socket.socket, place: Place, now: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.place = place
        self.opened_at = now
        self.idle_since = now
        self.connected = False
        self.used = False
        """It has carried a hop before this one."""
        self.flight: Flight | None = None
        self.reply: Reply
        self.out: bytes | memoryview = b""
        """What of the request is still to be sent."""
        self.sent = False
        """Something of it has been."""
        self.answered = False
        """The answer is complete, the request is not."""
        self.began = self.until = now


class IdleConnections:
    """Those that are kept. ``close`` closes one for good."""

    def __init__(self, close: Callable[[Connection], None]) -> None:
        self._close = close
        # Both by descriptor, oldest first. The one that has been silent for longest is used first, too: an end that is
        # under way has had time to arrive.
        self._all: OrderedDict[int, Connection] = OrderedDict()
        self._by_place: dict[Place, OrderedDict[int, Connection]] = {}
        self._not_kept_until: dict[Place, float] = {}
        self.sweep_at = inf
        """When ``sweep`` is due."""

    def __len__(self) -> int:
        return len(self._all)

    def keep(self, connection: Connection, now: float) -> None:
        """Keep it for the next call, unless its target is known to close at once."""
        if self._not_kept_until and self._not_kept_until.get(connection.place, now) > now:
            self._close(connection)
            return
        connection.idle_since = now
        connection.used = True
        self._all[connection.fd] = connection
        self._by_place.setdefault(connection.place, OrderedDict())[connection.fd] = connection
        if self.sweep_at == inf:
            self.sweep_at = now + MAX_IDLE_SECONDS

    def take(self, place: Place, now: float) -> Connection | None:
        """One to ``place`` that is good. ``now``: from before the last look at all sockets."""
        while idle := self._by_place.get(place):
            connection = next(iter(idle.values()))
            self._leave(connection)
            fresh = (
                now - connection.idle_since <= MAX_IDLE_SECONDS
                and now - connection.opened_at <= MAX_LIFETIME_SECONDS
            )
            # Nobody has looked at one that was kept in the look itself.
            if fresh and (connection.idle_since < now or _is_silent(connection.sock)):
                return connection
            if fresh:
                self._remember_end(connection, now)
            self._close(connection)
        return None

    def ended(self, connection: Connection, now: float) -> None:
        """The target has closed it, or speaks unasked: it is of no use any more."""
        self._remember_end(connection, now)
        self._leave(connection)
        self._close(connection)

    def sweep(self, now: float) -> None:
        """Close what nobody has used for too long."""
        while self._all and now - next(iter(self._all.values())).idle_since >= MAX_IDLE_SECONDS:
            self.close_oldest()
        self.sweep_at = now + MAX_IDLE_SECONDS if self._all else inf

    def close_oldest(self) -> None:
        """Close the one that has been silent for longest, if there is any."""
        if self._all:
            connection = next(iter(self._all.values()))
            self._leave(connection)
            self._close(connection)

    def clear(self) -> int:
        """Close all. Returns how many there were."""
        count = len(self._all)
        while self._all:
            self.close_oldest()
        return count

    def _leave(self, connection: Connection) -> None:
        del self._all[connection.fd]
        of_place = self._by_place[connection.place]
        del of_place[connection.fd]
        if not of_place:
            del self._by_place[connection.place]

    def _remember_end(self, connection: Connection, now: float) -> None:
        if now - connection.idle_since < _AT_ONCE:
            if len(self._not_kept_until) >= _REMEMBERED:
                self._not_kept_until.clear()
            self._not_kept_until[connection.place] = now + _UNKEPT_SECONDS


def _is_silent(sock: socket.socket) -> bool:
    """Whether there is nothing to read, not even an end."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False

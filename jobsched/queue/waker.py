"""A worker's sleep, ended by a push: a subscription on the channels of its pools.

Pub/sub forgets whatever is said while nobody listens. So a wake-up only saves time, a worker looks again
after each timeout anyway, and a subscription that was made anew counts as a wake-up.
"""

import random
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from redis.client import PubSub
from redis.exceptions import RedisError

from jobsched.clock import monotonic
from jobsched.log import get_logger
from jobsched.queue import rq_keys
from jobsched.queue.connection import connect

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class Waker:
    """Sleeps until somebody pushes to one of ``pools``, or ``wake`` is called.

    ``wait`` belongs to one thread; ``wake`` may be called from any, and from signal handlers. Has a
    connection of its own and connects at the first ``wait``.
    """

    def __init__(self, url: str, pools: Sequence[str], *, tls_verify: bool = True) -> None:
        self._client = connect(url, tls_verify=tls_verify)
        self._channels = [rq_keys.channel(pool) for pool in pools]
        self._subscription: PubSub | None = None
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0
        self._log = get_logger(part="waker")
        # Sockets, since poll() can wait for them and for Redis at once, and sending is signal-safe. Not a pipe:
        # its bare number could mean somebody else's file once we have closed it.
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._closing = threading.Lock()
        self._closed = False

    def wait(self, timeout: float) -> bool:
        """Sleep at most ``timeout`` seconds. True if there may be work: look.

        That is: something was pushed since the last call, or ``wake`` was called, or a subscription was just
        made and pushes before it may have been missed. Never raises when Redis is away: sleeps, returns
        False; finding out that a server is frozen may take 4 s.
        """
        end = monotonic() + timeout
        while not self._closed:
            if self._rung() | self._heard():
                return True
            left = end - monotonic()
            if left <= 0:
                return False
            self._sleep(left)
        return False

    def wake(self) -> None:
        """End the present ``wait``, or the next one, with True."""
        with suppress(OSError):  # full: a wake-up is already under way; closed: nobody sleeps any more
            self._bell.send(b"!")

    def close(self) -> None:
        """Unsubscribe and give everything back. Call it from the thread that waits, or after it has ended."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._unsubscribe()
        self._client.close()
        self._bell.close()
        self._ear.close()

    def _rung(self) -> bool:
        try:
            return bool(self._ear.recv(4096))
        except BlockingIOError:
            return False

    def _heard(self) -> bool:
        """Whether Redis said something. Reads all there is, so that many pushes make one wake-up."""
        if self._subscription is None and not self._subscribe():
            return False
        heard = False
        try:
            while (message := self._next_message()) is not None:
                # "subscribe" confirms a subscription, also one that redis-py made anew after a reconnect.
                heard |= message["type"] in ("message", "subscribe")
        except (RedisError, OSError) as error:
            self._lost(error)
        return heard

    def _next_message(self) -> dict[str, object] | None:
        assert self._subscription is not None
        message: dict[str, object] | None = self._subscription.get_message(timeout=0)
        return message

    def _sleep(self, seconds: float) -> None:
        poll = select.poll()  # not select(): a worker has more than 1,023 descriptors
        poll.register(self._ear, select.POLLIN)
        sock = _socket_of(self._subscription)
        if sock is not None:
            poll.register(sock, select.POLLIN)
        else:
            seconds = min(seconds, max(0.0, self._next_try - monotonic()))
        poll.poll(seconds * 1000)

    def _subscribe(self) -> bool:
        if monotonic() < self._next_try:
            return False
        try:
            self._subscription = self._client.pubsub()  # type: ignore[no-untyped-call]
            self._subscription.subscribe(*self._channels)
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        self._pause = _FIRST_PAUSE
        return True

    def _lost(self, error: Exception) -> None:
        self._unsubscribe()
        # Jitter, or all workers of a fleet come back to a restarted server in the same instant.
        self._next_try = monotonic() + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._log.debug("subscription_lost", error=str(error))

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            with suppress(RedisError, OSError):
                self._subscription.close()
            self._subscription = None


def _socket_of(subscription: PubSub | None) -> int | None:
    """The descriptor that becomes readable when a message comes. redis-py has no public name for it."""
    connection = getattr(subscription, "connection", None)
    sock = getattr(connection, "_sock", None)
    return None if sock is None else int(sock.fileno())

"""The sockets of a transport, libcurl's and others, watched by epoll; and the wake-up from other threads.

Not ``CurlMulti.select()``: it hands every descriptor to the kernel at every turn (with 900 calls that hang,
1,006 calls/s instead of 19,800) and spins once a descriptor is above 1023.
"""

import os
import select
import selectors
import threading
from contextlib import suppress
from typing import Any, Protocol

import pycurl

_READ, _WRITE, _TROUBLE = pycurl.CSELECT_IN, pycurl.CSELECT_OUT, pycurl.CSELECT_ERR
_WANTED = {1: pycurl.POLL_IN, 2: pycurl.POLL_OUT, 3: pycurl.POLL_INOUT}
_EVENTS_A_TURN = 512

Ready = list[tuple[int, int]]
"""(descriptor, pycurl.CSELECT_* bits)"""


class Watch(Protocol):
    """Which sockets a transport waits for: libcurl's, which says so by ``on_socket``, and others."""

    def opened(self) -> None:
        """libcurl is about to open a socket, which may get the number of one that it has closed."""

    def on_socket(self, what: int, fd: int, multi: Any, data: Any) -> None:
        """libcurl's M_SOCKETFUNCTION: wait for ``what`` (pycurl.POLL_*) on ``fd``."""

    def listen(self, fd: int, wanted: int) -> None:
        """Wait for reading (1), writing (2) or both on a socket that is not libcurl's."""

    def unlisten(self, fd: int) -> None:
        """No longer wait for such a socket."""

    def wait(self, timeout: float, *, everything: bool = False) -> Ready:
        """What is ready, after at most ``timeout`` seconds: as much as a turn can bear, or ``everything``."""

    def is_silent(self, fd: int) -> bool:
        """True if ``fd``, on which nothing is under way, had not said anything at the last wait. False: not known."""

    def close(self) -> None:
        """Give the descriptors back."""


class EpollWatch:
    """The watch of Linux: the cost of a turn depends on what is ready, not on what waits.

    libcurl stops waiting for a socket at the end of each call and waits again as the next one begins. Told to the
    kernel, that is a quarter of all system calls. So a socket stays registered in between, parked: what it then says
    is not passed on. libcurl does not tell when it closes one. But until it opens another, a number that is parked
    can only mean the same socket.
    """

    _INTEREST = {
        pycurl.POLL_IN: getattr(select, "EPOLLIN", 0),
        pycurl.POLL_OUT: getattr(select, "EPOLLOUT", 0),
        pycurl.POLL_INOUT: getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLOUT", 0),
    }

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}
        self._parked: dict[int, tuple[int, int]] = {}
        self._sockets_opened = 0
        # EPOLLIN 1, EPOLLOUT 4, EPOLLERR 8, EPOLLHUP 16: every mix of them, looked up instead of computed.
        self._bits = [
            (_READ if mask & select.EPOLLIN else 0)
            | (_WRITE if mask & select.EPOLLOUT else 0)
            | (_TROUBLE if mask & (select.EPOLLERR | select.EPOLLHUP) else 0)
            for mask in range(32)
        ]

    def on_socket(self, what: int, fd: int, multi: Any, data: Any) -> None:
        interest = self._INTEREST.get(what)
        if interest is None:
            former = self._watched.pop(fd, None)
            if former is not None:
                self._parked[fd] = (former, self._sockets_opened)
            return
        former = self._watched.get(fd)
        if former is None:
            self._unpark(fd, interest)
        elif former != interest:
            self._epoll.modify(fd, interest)
        self._watched[fd] = interest

    def opened(self) -> None:
        self._sockets_opened += 1

    def listen(self, fd: int, wanted: int) -> None:
        # The number may have been one of libcurl's, which the kernel has forgotten with its end.
        self._parked.pop(fd, None)
        interest = self._watched[fd] = self._INTEREST[_WANTED[wanted]]
        try:
            self._epoll.register(fd, interest)
        except FileExistsError:
            self._epoll.modify(fd, interest)

    def unlisten(self, fd: int) -> None:
        self._watched.pop(fd, None)
        with suppress(OSError):  # closed meanwhile
            self._epoll.unregister(fd)

    def wait(self, timeout: float, *, everything: bool = False) -> Ready:
        bits, watched = self._bits, self._watched
        most = max(_EVENTS_A_TURN, len(watched) + len(self._parked)) if everything else _EVENTS_A_TURN
        ready = []
        for fd, mask in self._epoll.poll(timeout, most):
            if fd in watched:
                ready.append((fd, bits[mask & 31]))
            else:
                self._forget(fd)  # the target has closed an idle connection, or speaks without being asked
        return ready

    def is_silent(self, fd: int) -> bool:
        parked = self._parked.get(fd)
        return parked is not None and parked[1] == self._sockets_opened

    def close(self) -> None:
        self._epoll.close()

    def _unpark(self, fd: int, interest: int) -> None:
        parked = self._parked.pop(fd, None)
        if parked == (interest, self._sockets_opened):
            return
        if parked is not None:
            with suppress(FileNotFoundError):  # closed meanwhile: the kernel has forgotten it by itself
                self._epoll.modify(fd, interest)
                return
        self._epoll.register(fd, interest)

    def _forget(self, fd: int) -> None:
        self._parked.pop(fd, None)
        with suppress(OSError):
            self._epoll.unregister(fd)


class PortableWatch:
    """The watch of systems without epoll (macOS), by what the standard library finds there."""

    _INTEREST = {
        pycurl.POLL_IN: selectors.EVENT_READ,
        pycurl.POLL_OUT: selectors.EVENT_WRITE,
        pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
    }

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def opened(self) -> None:
        """Nothing: here sockets are not parked."""

    def is_silent(self, fd: int) -> bool:
        return False

    def listen(self, fd: int, wanted: int) -> None:
        self.on_socket(_WANTED[wanted], fd, None, None)

    def unlisten(self, fd: int) -> None:
        self.on_socket(pycurl.POLL_REMOVE, fd, None, None)

    def on_socket(self, what: int, fd: int, multi: Any, data: Any) -> None:
        interest = self._INTEREST.get(what)
        known = fd in self._selector.get_map()
        if interest is None:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, interest)
        else:
            self._selector.register(fd, interest)

    def wait(self, timeout: float, *, everything: bool = False) -> Ready:
        return [
            (
                key.fd,
                (_READ if mask & selectors.EVENT_READ else 0)
                | (_WRITE if mask & selectors.EVENT_WRITE else 0),
            )
            for key, mask in self._selector.select(timeout)
        ]

    def close(self) -> None:
        self._selector.close()


def best_watch() -> Watch:
    """Epoll where there is one."""
    return EpollWatch() if hasattr(select, "epoll") else PortableWatch()


class Waker:
    """A pipe that other threads write to, so that the loop's wait ends. Only ``wake`` is thread-safe."""

    def __init__(self) -> None:
        self.fd, self._end = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._end, False)
        self._ringing = False
        self._closing = threading.Lock()
        self._closed = False

    def wake(self) -> None:
        """End the present wait, or the next one. Many calls before it cost one write."""
        if self._ringing:
            return
        # Under the lock, or a late wake writes into whatever got the descriptor's number after close().
        with self._closing:
            if self._closed:
                return
            self._ringing = True
            with suppress(BlockingIOError):  # full: the loop is certain to wake
                os.write(self._end, b"!")

    def hush(self) -> None:
        """Empty the pipe. What was queued before a wake() must be looked at after this, not before."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)
        # After the read: a wake() in between writes nothing, and its cause is looked at right after this.
        self._ringing = False

    def close(self) -> None:
        """Give the descriptors back; later wakes do nothing."""
        with self._closing:
            self._closed = True
            os.close(self.fd)
            os.close(self._end)

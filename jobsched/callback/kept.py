"""Whether a connection that libcurl kept is still good, found out before a request goes out on it.

libcurl looks at a kept connection only when it has been idle for a second. Used again sooner, one that the target
has closed fails a call after it was sent, with an unknown end.
"""

import select
from collections.abc import Callable

# A connection idle for 2 s is not used again: targets close theirs after 2 s (gunicorn), 5 s (node) and more,
# and a request that crosses such a close has an unknown end. A lifetime bounds how long a busy one ignores
# that its name has moved to other addresses.
MAX_IDLE_SECONDS = 1
MAX_LIFETIME_SECONDS = 60

Path = tuple[str, str, int, int]
"""The target's address, ours, the target's port, ours: no two connections that are open share all four."""


class Kept:
    """The sockets of kept connections. ``is_silent`` is the watch's, and saves a look at each by itself.

    Nobody tells when libcurl closes one. An entry that outlived its connection is never asked for, and goes when
    its path or its descriptor's number is used anew: there are never more than numbers of descriptors.
    """

    def __init__(self, is_silent: Callable[[int], bool]) -> None:
        self._is_silent = is_silent
        self._fds: dict[Path, int] = {}
        self._paths: dict[int, Path] = {}
        self._poll = select.poll()

    def __len__(self) -> int:
        return len(self._fds)

    def forget(self, path: Path) -> None:
        """A new connection has this path: whatever had it before is closed."""
        fd = self._fds.pop(path, None)
        if fd is not None:
            del self._paths[fd]

    def remember(self, path: Path, fd: int) -> None:
        """libcurl keeps the connection with this path; its socket is ``fd``."""
        self.forget(path)
        former = self._paths.get(fd)
        if former is not None:
            del self._fds[former]
        self._fds[path] = fd
        self._paths[fd] = path

    def is_idle(self, path: Path) -> bool:
        """True if the connection is open and silent, as one between two calls must be.

        What can be read is an end, or an answer that nobody asked for. With TLS it may be a session ticket, too,
        that comes late; libcurl does not use such a connection either, and a handshake more does no harm.
        """
        fd = self._fds.get(path)
        if fd is None:
            return False
        if self._is_silent(fd):
            return True
        poll = self._poll
        poll.register(fd, select.POLLIN)
        idle = not poll.poll(0)
        poll.unregister(fd)
        return idle

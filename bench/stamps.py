"""A target that does nothing but note when each request's first byte came. About 10 µs a request.

    python -m bench.stamps FILE

It listens on all addresses of this machine; a request for ``/slow`` is answered after 2 s. Prints its port. At
SIGTERM it writes one line a request: its execution, its nominal due time, and when it came.
"""

import contextlib
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NamedTuple

_IDENTIFIED = re.compile(
    rb"\r\nJobsched-Execution-Id: (\d+)\r\n.*?\r\nJobsched-Scheduled-For: (\S+)\r\n", re.S
)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_EVENTS_AT_ONCE = 256

#: Where requests wait for their answer, and for how many seconds.
SLOW, SLOW_SECONDS = "/slow", 2.0
_SLOW_LINE = f"POST {SLOW} ".encode()


class Stamp(NamedTuple):
    """One request: nominal due time and arrival of the first byte, in Unix seconds."""

    execution_id: int
    due: float
    came: float


class StampingTarget:
    """The target in a process of its own. ``stop`` gives what it has noted."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "stamps.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.stamps", str(self._file)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process, for its share of the processors."""
        return self._process.pid

    def stop(self) -> list[Stamp]:
        """End it. Returns what came, in that order."""
        self._process.terminate()
        self._process.wait(30)
        rows = (line.split() for line in self._file.read_text().splitlines())
        return [Stamp(int(i), datetime.fromisoformat(due).timestamp(), float(came)) for i, due, came in rows]

    def kill(self) -> None:
        """End it, whatever it has noted."""
        self._process.kill()
        self._process.wait(30)


def serve(listener: socket.socket, noted: list[tuple[bytes, float]]) -> None:
    """Answer every request with 200 until interrupted, and note it."""
    epoll, connections = select.epoll(), {listener.fileno(): listener}
    unfinished: dict[int, tuple[bytes, float]] = {}
    slow: deque[tuple[float, socket.socket]] = deque()
    epoll.register(listener, select.EPOLLIN)
    while True:
        ready = epoll.poll(max(0.0, slow[0][0] - time.monotonic()) if slow else -1, _EVENTS_AT_ONCE)
        while slow and slow[0][0] <= time.monotonic():
            _answer(slow.popleft()[1])
        for fd, _events in ready:
            connection = connections[fd]
            if connection is listener:
                accepted, _address = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[accepted.fileno()] = accepted
                epoll.register(accepted, select.EPOLLIN)
                continue
            try:
                data = connection.recv(65_536)
            except ConnectionError:
                data = b""
            came = time.time()
            if fd in unfinished:
                earlier, came = unfinished.pop(fd)
                data = earlier + data if data else b""
            if not data:
                del connections[fd]
                connection.close()
            elif not _is_complete(data):
                unfinished[fd] = data, came
            else:
                noted.append((data, came))
                if data.startswith(_SLOW_LINE):
                    slow.append((time.monotonic() + SLOW_SECONDS, connection))
                else:
                    _answer(connection)


def _answer(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has gone
        connection.send(_OK)


def _is_complete(data: bytes) -> bool:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    start = data.find(b"Content-Length: ", 0, end)
    length = int(data[start + 16 : data.find(b"\r\n", start)]) if start >= 0 else 0
    return len(data) >= end + 4 + length


def _line(request: bytes, came: float) -> str:
    found = _IDENTIFIED.search(request)
    assert found is not None, request
    return f"{found[1].decode()} {found[2].decode()} {came!r}\n"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(file: str) -> None:
    """Serve, and write down what was noted at the end."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A worker raises its own soft limit, too: with 2,000 calls at once 1,024 would be the target's.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    noted: list[tuple[bytes, float]] = []
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listener:
        print(listener.getsockname()[1], flush=True)
        try:
            serve(listener, noted)
        except KeyboardInterrupt:
            Path(file).write_text("".join(_line(request, came) for request, came in noted))


if __name__ == "__main__":
    main(sys.argv[1])

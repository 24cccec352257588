"""A target for callbacks: an HTTP server that answers well, badly or never, and remembers what arrived.

``with Target() as target:`` runs it in a thread; ``python -m jobsched.testing.target`` runs it alone. The first
segment of a path says what happens:

    /ok                     200                        /status/503             that status
    /fail/3/…               500 three times, then 200  /fail-twice             the same with two
    /retry-after/7          429 with Retry-After: 7    /redirect?to=URL        302 (or &status=307)
    /slow/200               200 after 200 ms           /echo                   200 with the request as JSON
    /hang                   no answer, ever            /close  /reset          closes (FIN, RST) without an answer
    /drip?ms=100            a body, byte by byte       /drip-headers?ms=100    the headers, byte by byte
    /big  /big/10000000     5 MB, or so many bytes     /last-answer            200; the next request gets no answer
    /cut-status  /cut-headers  /cut-body  /cut-chunk   dies in the middle of that
    /raw?bytes=HTTP%2F1.1…  exactly these bytes, then closes (&keep=1: stays open)

``/fail`` counts per webhook-id, so that attempts of one execution belong together. ``GET /_arrivals`` (a JSON
list), ``GET /_count`` and ``POST /_reset`` are not recorded. One core serves more than 5,000 requests/s.
"""

import asyncio
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO
from urllib.parse import parse_qs, unquote_to_bytes

import click

_PIECE = b"x" * 65_536
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"


@dataclass(frozen=True)
class Arrival:
    """One request as it arrived. ``t`` is the wall clock in seconds, ``path`` includes the query."""

    t: float
    method: str
    path: str
    head: bytes
    body: bytes

    @cached_property
    def headers(self) -> dict[str, str]:
        """Names in lower case; the values of a repeated header are joined by a comma."""
        headers: dict[str, str] = {}
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    def as_json(self) -> dict[str, Any]:
        """As ``/_arrivals`` and the log show it; bytes outside UTF-8 are replaced."""
        return {
            "t": self.t,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body": self.body.decode("utf-8", "replace"),
        }


class Target:
    """The server. ``url`` is known once it runs; ``port`` 0 takes a free one.

    With ``record=False`` only ``count`` is kept, for long measurements. ``log`` gets one JSON line an arrival,
    written before the answer.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log: Path | None = None,
        record: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.count = 0
        self.url = ""
        self.port = port
        self.failures: Counter[str] = Counter()
        self.connections: set[_Connection] = set()
        self.connections_made = 0
        self._host = host
        self._tls = tls
        self._record = record
        self._log_path = log
        self._log: TextIO | None = None
        self._arrivals: list[Arrival] = []
        self._arrived = threading.Condition()
        self._waiters = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    @property
    def arrivals(self) -> list[Arrival]:
        """What has arrived so far, oldest first."""
        return list(self._arrivals)

    def wait_for(self, n: int, timeout: float = 10.0) -> list[Arrival]:
        """Wait until ``n`` requests have arrived; returns them all. AssertionError after ``timeout`` seconds."""
        with self._arrived:
            self._waiters += 1
            try:
                there = self._arrived.wait_for(lambda: self.count >= n, timeout)
            finally:
                self._waiters -= 1
        assert there, f"{self.count} of {n} requests arrived within {timeout:g} s"
        return self.arrivals

    def reset(self) -> None:
        """Forget all arrivals and the counts of ``/fail``."""
        self._arrivals.clear()
        self.failures.clear()
        self.count = 0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready.set)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the target did not start; is its port taken?")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self, on_ready: Callable[[], object]) -> None:
        """Serve until stopped or cancelled; ``on_ready`` is called once ``url`` is known."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Connection(self), self._host, self.port, backlog=4096, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http{'s' if self._tls else ''}://{host}:{self.port}"
        self._log = self._log_path.open("a", encoding="utf-8") if self._log_path else None
        try:
            on_ready()
            await self._stop.wait()
        finally:
            server.close()
            for connection in list(self.connections):
                connection.abort()
            # One more turn, in which the transports notice that they were aborted and close their sockets.
            await asyncio.sleep(0.01)
            if self._log is not None:
                self._log.close()

    def arrived(self, arrival: Arrival) -> None:
        """Remember a request, and tell those who wait for it."""
        self.count += 1
        if self._record:
            self._arrivals.append(arrival)
        if self._log is not None:
            self._log.write(json.dumps(arrival.as_json(), ensure_ascii=False) + "\n")
            self._log.flush()
        if self._waiters:
            with self._arrived:
                self._arrived.notify_all()


class _Connection(asyncio.Protocol):
    """One connection: takes requests apart, one after the other, and answers them."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffer = b""
        self._answering = False
        self._doomed = False
        self._left_to_send = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._target.connections.add(self)
        self._target.connections_made += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._target.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and not self._answering and self._take_request():
            pass

    def resume_writing(self) -> None:
        self._send_more()

    def _take_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end]
        length = _content_length(head)
        if len(self._buffer) < end + 4 + length:
            return False
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        line = head[: head.find(b"\r\n")].decode("latin-1").split(" ")
        if len(line) != 3:
            self._transport.close()
            return False
        self._answer(Arrival(time.time(), line[0], line[1], head, body))
        return True

    def _answer(self, arrival: Arrival) -> None:
        path, _, query = arrival.path.partition("?")
        _, first, *rest = path.split("/")
        if first in _ABOUT:
            _ABOUT[first](self, arrival)
            return
        self._target.arrived(arrival)
        if self._doomed:
            self._transport.close()
        elif first == "ok":
            self._transport.write(_OK if arrival.method != "HEAD" else _OK[:-3])
        else:
            _ANSWERS.get(first, _Connection._not_found)(self, arrival, rest, query)

    def _send(self, status: int, body: bytes = b"", *headers: str, head_only: bool = False) -> None:
        reason = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "Unknown"
        lines = [f"HTTP/1.1 {status} {reason}", *headers]
        if status >= 200 and status != 204:
            lines.append(f"Content-Length: {len(body)}")
        self._transport.write(
            "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head_only else body)
        )

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "Content-Type: application/json")

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        self._answering = True
        self._timer = asyncio.get_running_loop().call_later(seconds, step)

    def _done(self) -> None:
        self._answering = False
        self.data_received(b"")

    # The answers: (arrival, the path's further segments, the query).

    def _not_found(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._send(404, b"no such behaviour\n", head_only=arrival.method == "HEAD")

    def _status(self, arrival: Arrival, rest: list[str], query: str) -> None:
        status = int(rest[0])
        body = b"" if status in {204, 304} else f"{status}\n".encode()
        self._send(status, body, head_only=arrival.method == "HEAD")

    def _fail(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._fail_first(arrival, int(rest[0]))

    def _fail_twice(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._fail_first(arrival, 2)

    def _fail_first(self, arrival: Arrival, times: int) -> None:
        counted_as = arrival.headers.get("webhook-id", arrival.path)
        self._target.failures[counted_as] += 1
        failing = self._target.failures[counted_as] <= times
        self._send(500 if failing else 200, b"not yet\n" if failing else b"ok\n")

    def _retry_after(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._send(429, b"slow down\n", f"Retry-After: {rest[0]}")

    def _redirect(self, arrival: Arrival, rest: list[str], query: str) -> None:
        values = parse_qs(query)
        status = int(values.get("status", ["302"])[0])
        self._send(status, b"", f"Location: {values['to'][0]}")

    def _slow(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._later(int(rest[0]) / 1000, self._slow_end)

    def _slow_end(self) -> None:
        self._transport.write(_OK)
        self._done()

    def _echo(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._json(arrival.as_json())

    def _hang(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._answering = True

    def _close(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._transport.close()

    def _reset(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER, 0 s
        self._transport.abort()

    def _last_answer(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._doomed = True
        self._transport.write(_OK)

    def _drip(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        self._drip_on(b"x" * 1_000_000, _milliseconds(query))

    def _drip_headers(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._drip_on(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 10_000, _milliseconds(query))

    def _drip_on(self, data: bytes, seconds: float) -> None:
        self._transport.write(data[:1])
        self._later(seconds, lambda: self._drip_on(data[1:], seconds))

    def _big(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._left_to_send = int(rest[0]) if rest else 5_000_000
        self._answering = True
        self._transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {self._left_to_send}\r\n\r\n".encode())
        self._send_more()

    def _send_more(self) -> None:
        while self._left_to_send and self._transport.get_write_buffer_size() < len(_PIECE):
            piece = _PIECE[: self._left_to_send]
            self._left_to_send -= len(piece)
            self._transport.write(piece)
        if not self._left_to_send:
            self._done()

    def _cut(self, data: bytes) -> None:
        self._transport.write(data)
        self._transport.close()

    def _cut_status(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._cut(b"HTTP/1.1 200 O")

    def _cut_headers(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._cut(b"HTTP/1.1 200 OK\r\nX-A: b\r\nX-")

    def _cut_body(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._cut(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")

    def _cut_chunk(self, arrival: Arrival, rest: list[str], query: str) -> None:
        self._cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n20\r\nonly this")

    def _raw(self, arrival: Arrival, rest: list[str], query: str) -> None:
        values = dict(part.partition("=")[::2] for part in query.split("&"))
        self._transport.write(unquote_to_bytes(values["bytes"]))
        if "keep" not in values:
            self._transport.close()

    # About the target itself.

    def _show_arrivals(self, arrival: Arrival) -> None:
        self._json([each.as_json() for each in self._target.arrivals])

    def _show_count(self, arrival: Arrival) -> None:
        self._json({"count": self._target.count})

    def _forget(self, arrival: Arrival) -> None:
        self._target.reset()
        self._json({"count": 0})


_Answer = Callable[[_Connection, Arrival, list[str], str], None]
_ANSWERS: dict[str, _Answer] = {
    "status": _Connection._status,
    "fail": _Connection._fail,
    "fail-twice": _Connection._fail_twice,
    "retry-after": _Connection._retry_after,
    "redirect": _Connection._redirect,
    "slow": _Connection._slow,
    "echo": _Connection._echo,
    "hang": _Connection._hang,
    "close": _Connection._close,
    "reset": _Connection._reset,
    "last-answer": _Connection._last_answer,
    "drip": _Connection._drip,
    "drip-headers": _Connection._drip_headers,
    "big": _Connection._big,
    "cut-status": _Connection._cut_status,
    "cut-headers": _Connection._cut_headers,
    "cut-body": _Connection._cut_body,
    "cut-chunk": _Connection._cut_chunk,
    "raw": _Connection._raw,
}
_ABOUT: dict[str, Callable[[_Connection, Arrival], None]] = {
    "_arrivals": _Connection._show_arrivals,
    "_count": _Connection._show_count,
    "_reset": _Connection._forget,
}


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at + 2)
    return int(lower[at + 17 : end if end > 0 else None])


def _milliseconds(query: str) -> float:
    return int(parse_qs(query).get("ms", ["100"])[0]) / 1000


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0 takes a free one.")
@click.option("--log", type=click.Path(path_type=Path), help="One JSON line an arrival is appended here.")
@click.option("--no-record", is_flag=True, help="Keep no arrivals in memory, only their count.")
def main(host: str, port: int, log: Path | None, no_record: bool) -> None:
    """Serve as a target for callbacks until interrupted. The first line printed is the address."""
    target = Target(host=host, port=port, log=log, record=not no_record)
    try:
        asyncio.run(target.serve(lambda: print(target.url, flush=True)))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

"""What the test target does with a connection: takes requests apart and answers them by their paths.

jobsched.testing.target lists the paths.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote_to_bytes

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


class Recorder(Protocol):
    """What a connection needs of its target."""

    count: int
    failures: Counter[str]
    connections: set["Connection"]
    connections_made: int

    @property
    def arrivals(self) -> list[Arrival]:
        """What has arrived so far."""

    def arrived(self, arrival: Arrival) -> None:
        """Remember a request."""

    def reset(self) -> None:
        """Forget everything."""


class Connection(asyncio.Protocol):
    """One connection: takes requests apart, one after the other, and answers them."""

    def __init__(self, target: Recorder) -> None:
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
            _ANSWERS.get(first, Connection._not_found)(self, arrival, rest, query)

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
            if self._transport.is_closing():
                return  # it buffers nothing any more, and the loop would run through the whole size
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


_Answer = Callable[[Connection, Arrival, list[str], str], None]
_ANSWERS: dict[str, _Answer] = {
    "status": Connection._status,
    "fail": Connection._fail,
    "fail-twice": Connection._fail_twice,
    "retry-after": Connection._retry_after,
    "redirect": Connection._redirect,
    "slow": Connection._slow,
    "echo": Connection._echo,
    "hang": Connection._hang,
    "close": Connection._close,
    "reset": Connection._reset,
    "last-answer": Connection._last_answer,
    "drip": Connection._drip,
    "drip-headers": Connection._drip_headers,
    "big": Connection._big,
    "cut-status": Connection._cut_status,
    "cut-headers": Connection._cut_headers,
    "cut-body": Connection._cut_body,
    "cut-chunk": Connection._cut_chunk,
    "raw": Connection._raw,
}
_ABOUT: dict[str, Callable[[Connection, Arrival], None]] = {
    "_arrivals": Connection._show_arrivals,
    "_count": Connection._show_count,
    "_reset": Connection._forget,
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

"""One handle of libcurl, and the hop that it carries: what is told to it, and what it reports back.

A handle is used for many hops, one after the other. One that kept an option has sent one tenant's Authorization
with another tenant's call. So each hop sets every option that can differ between two calls of its kind, and where the
kind is another than before, begins with ``reset()``.
"""

import os
import socket
from collections.abc import Callable
from typing import Any

import pycurl

from jobsched import metrics
from jobsched.callback.answer import MAX_HEAD_BYTES, read_head
from jobsched.callback.failure import (
    Failure,
    cannot_open,
    classify,
    for_want_of_descriptors,
    out_of_descriptors,
)
from jobsched.callback.flight import Flight
from jobsched.callback.header_lines import UPLOADS, header_lines
from jobsched.callback.kept import MAX_IDLE_SECONDS, MAX_LIFETIME_SECONDS, Kept, Path
from jobsched.callback.model import Result
from jobsched.callback.reply import CUT_IN_HEAD, HEAD_LARGE
from jobsched.domain.targets import TargetUrl

#: Method, whether there is a body, and whether libcurl is told the addresses.
_Kind = tuple[str, bool, bool]

# What a write callback returns to make libcurl give up on the rest of a body (E_WRITE_ERROR).
_CUT = -1

_HEAD_CUT = Failure("protocol_error", CUT_IN_HEAD, False)
_HEAD_LARGE = Failure("protocol_error", HEAD_LARGE, False)


class Handle:
    """``check`` is the guard's; ``fixed`` are the options that are the same for every call; ``kept`` is shared.

    ``on_socket_opened`` is called before libcurl gets a new socket.
    """

    def __init__(
        self,
        multi: pycurl.CurlMulti,
        *,
        check: Callable[[str], str | None],
        fixed: tuple[tuple[int, Any], ...],
        kept: Kept,
        on_socket_opened: Callable[[], None],
        on_detached: "Callable[[Handle], None]",
        capture_bytes: int,
        read_limit: int,
    ) -> None:
        self.curl = pycurl.Curl()
        self.curl.handle = self
        self.flight: Flight
        self._multi = multi
        self._lines: list[bytes] = []
        self._check = check
        self._kept = kept
        self._on_socket_opened = on_socket_opened
        self._on_detached = on_detached
        self._capture = capture_bytes
        self._read_limit = read_limit
        # The handle keeps these for good, so that no method is bound anew for a call.
        self._options = (
            *fixed,
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),
            # Not HTTP/2: calls that share a connection share its end, and libcurl repeats refused streams.
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.HTTP09_ALLOWED, 0),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.MAXAGE_CONN, MAX_IDLE_SECONDS),
            (pycurl.MAXLIFETIME_CONN, MAX_LIFETIME_SECONDS),
            (pycurl.OPENSOCKETFUNCTION, self._on_open),
            (pycurl.PREREQFUNCTION, self._on_connection),
            (pycurl.WRITEFUNCTION, self._on_body),
            (pycurl.READFUNCTION, self._on_read),
            (pycurl.HEADERFUNCTION, self._lines.append),
        )
        self._kind: _Kind | None = None
        self._uploads = False

    def launch(self, flight: Flight, target: TargetUrl, pin: list[str] | None, now: float) -> None:
        """Carry the present hop of ``flight``. libcurl sends it when its owner turns next.

        ``pin`` is libcurl's RESOLVE. Raises ValueError (UnicodeError, pycurl.error) for what cannot be sent.
        """
        self.flight = flight
        self._lines.clear()
        self._position = 0
        self._refused: str | None = None
        self._trouble: Failure | None = None
        self._opened = False
        self._path: Path | None = None
        self._dead = False
        call, request = flight.call, flight.request
        left = max(1, round((flight.deadline - now) * 1000))
        kind = (request.method, request.body is not None, pin is not None)
        if kind != self._kind:
            self._become(kind)
        set_option = self.curl.setopt
        set_option(pycurl.URL, target.text)
        set_option(pycurl.HTTPHEADER, header_lines(request.headers, request.own_headers))
        set_option(pycurl.TIMEOUT_MS, left)
        set_option(pycurl.CONNECTTIMEOUT_MS, min(left, max(1, round(call.connect_timeout_seconds * 1000))))
        set_option(pycurl.FRESH_CONNECT, flight.on_new_connection)
        if pin is not None:
            set_option(pycurl.RESOLVE, pin)
        if self._uploads:
            set_option(pycurl.INFILESIZE_LARGE, len(request.body or b""))
        flight.carrier = self
        self._multi.add_handle(self.curl)

    def _become(self, kind: "_Kind") -> None:
        """Make the handle one for hops of ``kind``."""
        self._kind = None
        self.curl.reset()
        set_option = self.curl.setopt
        for option, value in self._options:
            set_option(option, value)
        method, has_body, _pinned = kind
        self._uploads = method != "HEAD" and (has_body or method in UPLOADS)
        if method == "HEAD":
            set_option(pycurl.NOBODY, 1)
        elif self._uploads:
            # UPLOAD adds no Content-Type of its own. Without a SEEKFUNCTION libcurl cannot rewind the body, and
            # so never repeats a request by itself: it fails with 65 instead.
            set_option(pycurl.UPLOAD, 1)
            set_option(pycurl.CUSTOMREQUEST, method)
        else:
            set_option(pycurl.HTTPGET, 1)
            set_option(pycurl.CUSTOMREQUEST, method)
        self._kind = kind

    def land(self, number: int, detail: str, now: float) -> Result | None:
        """libcurl is done, with its error ``number`` (0: none).

        None: the flight's request is to be sent. It is the next hop's, or the same, of which nothing was sent because
        the connection was dead.
        """
        flight = self.flight
        if self._dead and number == pycurl.E_ABORTED_BY_CALLBACK:
            flight.fresh = True
            return None
        path = self._path
        # Not ACTIVESOCKET, which the oldest pycurl of ours lacks.
        if path is not None and self._opened and (fd := self.curl.getinfo(pycurl.LASTSOCKET)) >= 0:
            self._kept.remember(path, fd)
        sent = self._measure()
        cut = number == pycurl.E_WRITE_ERROR and flight.received > self._read_limit
        if number and not cut:
            return self._failed(number, detail, sent, now)
        flight.sent_before = True
        if sum(map(len, self._lines)) > MAX_HEAD_BYTES:
            return flight.result(_HEAD_LARGE, now)
        headers = read_head(self._lines)
        if headers is None:
            # libcurl takes this end for a success and keeps the connection. With TLS the end may have been read
            # already, so that the socket is silent: what is not remembered counts as dead.
            if path is not None:
                self._kept.forget(path)
            return flight.result(_HEAD_CUT, now)
        return flight.answered(self.curl.getinfo(pycurl.RESPONSE_CODE), headers, now)

    def drop(self, flight: Flight) -> bool:
        """End the hop; whether any of its request may have been sent."""
        sent = self._measure()
        flight.answering = bool(self._lines)
        self.detach()
        return sent

    def detach(self) -> None:
        """Take the handle from libcurl, free for another hop."""
        self.flight.carrier = None
        self._multi.remove_handle(self.curl)
        self._on_detached(self)

    def close(self) -> None:
        """Give the handle back. It must not carry anything."""
        self.curl.handle = None
        self.curl.close()

    def _failed(self, number: int, detail: str, sent: bool, now: float) -> Result:
        flight = self.flight
        if self._refused is not None and not sent:
            return flight.result(Failure("target_refused", self._refused, True), now)
        if self._trouble is not None and not sent:
            return flight.result(self._trouble, now)
        assert flight.target is not None
        host, port = flight.target.host, flight.target.port
        if number == pycurl.E_OPERATION_TIMEDOUT:
            # libcurl has one number for both of its timeouts.
            if sent or now > flight.deadline - 0.01:
                flight.answering = bool(self._lines)
                return flight.timed_out(sent, now)
            return flight.not_connected_in_time(now)
        reason = self.curl.getinfo(pycurl.OS_ERRNO)
        failure = classify(number, detail, reason=reason, host=host, port=port)
        if failure.before_request and not sent and out_of_descriptors():
            failure = for_want_of_descriptors()  # as where libcurl could not open its certificates
        return flight.result(failure, now)

    def _measure(self) -> bool:
        """Add this hop's durations; True if any of the request may have been sent."""
        flight, getinfo = self.flight, self.curl.getinfo
        if not self._opened and self._lines:
            # An answer on a kept connection, where nothing was connected.
            flight.first_byte += max(
                0.0, getinfo(pycurl.STARTTRANSFER_TIME) - getinfo(pycurl.PRETRANSFER_TIME)
            )
            return True
        connect: float = getinfo(pycurl.CONNECT_TIME)
        tls: float = getinfo(pycurl.APPCONNECT_TIME)
        first_byte = getinfo(pycurl.STARTTRANSFER_TIME)
        if connect:
            flight.connect += max(0.0, connect - getinfo(pycurl.NAMELOOKUP_TIME))
        if tls:
            flight.tls += max(0.0, tls - connect)
        if first_byte:
            flight.first_byte += max(0.0, first_byte - getinfo(pycurl.PRETRANSFER_TIME))
        # Not PRETRANSFER_TIME: libcurl fills it in for calls that fail before it, too. On a new connection the
        # request follows its last handshake at once; on a kept one only the bytes sent tell.
        assert flight.target is not None
        ready = tls if flight.target.scheme == "https" else connect
        return ready > 0 or getinfo(pycurl.REQUEST_SIZE) > 0

    def _on_read(self, size: int) -> bytes:
        body = self.flight.request.body or b""
        begin = self._position
        self._position = begin + size
        return body[begin : begin + size]

    def _on_body(self, data: bytes) -> int | None:
        flight = self.flight
        room = self._capture - len(flight.body)
        if room > 0:
            flight.body = flight.body + data[:room] if flight.body else data[:room]
        flight.received += len(data)
        return _CUT if flight.received > self._read_limit else None

    def _on_open(self, _purpose: int, address: Any) -> Any:
        host = address.addr[0]
        reason = self._check(host.decode() if isinstance(host, bytes) else host)
        if reason is not None:
            self._refused = reason
            return pycurl.SOCKET_BAD
        self._opened = True
        metrics.connections.inc()
        self._on_socket_opened()
        try:
            lent = _Lent(socket.socket(address.family, address.socktype, address.protocol))
            os.close(os.dup(lent.fileno()))  # as pycurl will
        except OSError as error:
            # Above all EMFILE. An exception here would only be printed.
            self._trouble = cannot_open(error)
            return pycurl.SOCKET_BAD
        return lent

    def _on_connection(self, *path: Any) -> Any:
        """The request is about to be sent. Its connection is new or kept; a dead one is noticed here."""
        # libcurl cannot take a kept one for a call that asks for a fresh one. Were it ever to, this must not go
        # round for ever.
        if self._opened or self.flight.fresh:
            self._kept.forget(path)
        elif not self._kept.is_idle(path):
            self._dead = True
            return pycurl.PREREQFUNC_ABORT
        self._path = path
        return pycurl.PREREQFUNC_OK


class _Lent:
    """A socket for pycurl, which duplicates the descriptor and drops the object."""

    __slots__ = ("_socket",)

    def __init__(self, lent: socket.socket) -> None:
        self._socket = lent

    def fileno(self) -> int:
        return self._socket.fileno()

    def __del__(self) -> None:
        self._socket.close()

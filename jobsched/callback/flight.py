"""One call in flight: its libcurl handle, what is told to it, and what it reports back.

A flight is used for many calls, one after the other. A handle that kept an option has sent one tenant's Authorization
with another tenant's call. So each hop sets every option that can differ between two calls of its kind, and where the
kind is another than before, begins with ``reset()``.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pycurl

from jobsched import metrics
from jobsched.callback.answer import MAX_HEAD_BYTES, Headers, read_head
from jobsched.callback.failure import (
    OUT_OF_DESCRIPTORS,
    Failure,
    classify,
    for_want_of_descriptors,
    out_of_descriptors,
)
from jobsched.callback.header_lines import header_lines
from jobsched.callback.kept import Kept, Path
from jobsched.callback.model import Call, Phases, Result
from jobsched.callback.redirect import MAX_REDIRECTS, Request, location_of, next_request
from jobsched.domain.targets import TargetUrl

# A connection idle for 2 s is not used again: targets close theirs after 2 s (gunicorn), 5 s (node) and more,
# and a request that crosses such a close has an unknown end. A lifetime bounds how long a busy one ignores
# that its name has moved to other addresses.
_MAX_IDLE_SECONDS = 1
_MAX_LIFETIME_SECONDS = 60

#: Method, whether there is a body, and whether libcurl is told the addresses.
_Kind = tuple[str, bool, bool]

# What a write callback returns to make libcurl give up on the rest of a body (E_WRITE_ERROR).
_CUT = -1

_TOO_MANY = Failure("protocol_error", f"The target redirected more than {MAX_REDIRECTS} times.", False)
_HEAD_CUT = Failure(
    "protocol_error", "The answer was cut off inside its headers, or they are no HTTP.", False
)
_HEAD_LARGE = Failure(
    "protocol_error", f"The answer's headers are larger than {MAX_HEAD_BYTES // 1024} KiB.", False
)


class Flight:
    """``check`` is the guard's; ``fixed`` are the options that are the same for every call; ``kept`` is shared.

    ``on_socket_opened`` is called before libcurl gets a new socket.
    """

    def __init__(
        self,
        *,
        check: Callable[[str], str | None],
        fixed: tuple[tuple[int, Any], ...],
        kept: Kept,
        on_socket_opened: Callable[[], None],
        capture_bytes: int,
        read_limit: int,
    ) -> None:
        self.curl = pycurl.Curl()
        self.curl.flight = self
        self._lines: list[bytes] = []
        self._check = check
        self._kept = kept
        self._on_socket_opened = on_socket_opened
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
            (pycurl.MAXAGE_CONN, _MAX_IDLE_SECONDS),
            (pycurl.MAXLIFETIME_CONN, _MAX_LIFETIME_SECONDS),
            (pycurl.OPENSOCKETFUNCTION, self._on_open),
            (pycurl.PREREQFUNCTION, self._on_connection),
            (pycurl.WRITEFUNCTION, self._on_body),
            (pycurl.READFUNCTION, self._on_read),
            (pycurl.HEADERFUNCTION, self._lines.append),
        )
        self._kind: _Kind | None = None
        self._uploads = False
        self.serial = 0
        self.attached = False

    def begin(self, call: Call, now: float) -> None:
        """Take ``call`` on at ``now`` (monotonic)."""
        self.call = call
        self.request = Request(call.method, call.url, call.job_headers, call.own_headers, call.body)
        self.started = now
        self.deadline = now + call.timeout_seconds
        self.redirects = 0
        self._fresh = False
        self._sent_before = False
        self._dns = self._connect = self._tls = self._first_byte = 0.0
        self.enter_hop(now)

    def enter_hop(self, now: float) -> None:
        """Forget the answer of the hop before; ``request`` is what the next one sends."""
        self.serial += 1
        self.target: TargetUrl | None = None
        self.waiting_since: float | None = now
        self._lines.clear()
        self._body = b""
        self._received = 0
        self._position = 0
        self._refused: str | None = None
        self._trouble: Failure | None = None
        self._opened = False
        self._path: Path | None = None
        self._dead = False

    def arm(self, target: TargetUrl, pin: list[str] | None, now: float) -> None:
        """Set the handle up for this hop; the name lookup, if any, ended at ``now``.

        ``pin`` is libcurl's RESOLVE. Raises ValueError (UnicodeError, pycurl.error) for what cannot be sent.
        """
        self.target = target
        if self.waiting_since is not None:
            self._dns += now - self.waiting_since
            self.waiting_since = None
        call, request = self.call, self.request
        left = max(1, round((self.deadline - now) * 1000))
        kind = (request.method, request.body is not None, pin is not None)
        if kind != self._kind:
            self._become(kind)
        set_option = self.curl.setopt
        set_option(pycurl.URL, target.text)
        set_option(pycurl.HTTPHEADER, header_lines(request.headers, request.own_headers))
        set_option(pycurl.TIMEOUT_MS, left)
        set_option(pycurl.CONNECTTIMEOUT_MS, min(left, max(1, round(call.connect_timeout_seconds * 1000))))
        set_option(pycurl.FRESH_CONNECT, self._fresh or call.fresh_connection or not request.body)
        if pin is not None:
            set_option(pycurl.RESOLVE, pin)
        if self._uploads:
            set_option(pycurl.INFILESIZE_LARGE, len(request.body or b""))

    def _become(self, kind: "_Kind") -> None:
        """Make the handle one for hops of ``kind``."""
        self._kind = None
        self.curl.reset()
        set_option = self.curl.setopt
        for option, value in self._options:
            set_option(option, value)
        method, has_body, _pinned = kind
        self._uploads = method != "HEAD" and (has_body or method in {"POST", "PUT", "PATCH"})
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

        None: ``request`` is to be sent. It is the next hop's, or the same, of which nothing was sent because the
        connection was dead.
        """
        if self._dead and number == pycurl.E_ABORTED_BY_CALLBACK:
            self._fresh = True
            return None
        path = self._path
        # Not ACTIVESOCKET, which the oldest pycurl of ours lacks.
        if path is not None and self._opened and (fd := self.curl.getinfo(pycurl.LASTSOCKET)) >= 0:
            self._kept.remember(path, fd)
        sent = self._measure()
        cut = number == pycurl.E_WRITE_ERROR and self._received > self._read_limit
        if number and not cut:
            return self._failed(number, detail, sent, now)
        self._sent_before = True
        if sum(map(len, self._lines)) > MAX_HEAD_BYTES:
            return self.result(_HEAD_LARGE, now)
        headers = read_head(self._lines)
        if headers is None:
            # libcurl takes this end for a success and keeps the connection. With TLS the end may have been read
            # already, so that the socket is silent: what is not remembered counts as dead.
            if path is not None:
                self._kept.forget(path)
            return self.result(_HEAD_CUT, now)
        status: int = self.curl.getinfo(pycurl.RESPONSE_CODE)
        if self.call.follow_redirects and (location := location_of(status, headers)) is not None:
            if self.redirects == MAX_REDIRECTS:
                return self.result(_TOO_MANY, now)
            try:
                self.request = next_request(self.request, status, location)
            except ValueError as error:
                return self.result(Failure("target_refused", str(error), False), now)
            self.redirects += 1
            self._fresh = False
            return None
        return self._answered(status, headers, now)

    def result(self, failure: Failure, now: float) -> Result:
        """The call ended without an answer."""
        if failure.unfit and self._sent_before:
            # The target was called, so this is an attempt like others. As "interrupted" it would be repeated at once
            # and without end, and the first hop called each time.
            failure = replace(failure, code="connect_failed")
        return Result(
            call=self.call,
            status=None,
            headers=(),
            body=self._body,
            truncated=self._received > len(self._body),
            error_code=failure.code,
            error_message=failure.message,
            sent=self._sent_before or not failure.before_request,
            phases=self._phases(now),
            unfit=failure.unfit,
        )

    def abandoned(self, code: str, message: str, now: float) -> Result:
        """The call is ended from outside."""
        sent = self._measure() if self.attached else False
        return self.result(Failure(code, message, not sent), now)

    def timed_out(self, sent: bool, now: float) -> Result:
        """The whole call's time is over."""
        where = (
            "while its name was looked up"
            if self.waiting_since is not None
            else "before it was sent"
            if not sent
            else "inside its answer"
            if self._lines
            else "waiting for an answer"
        )
        message = f"The call ended after its timeout of {self.call.timeout_seconds:g} s, {where}."
        return self.result(Failure("timeout", message, not sent), now)

    def close(self) -> None:
        """Give the handle back. It must not be attached."""
        self.curl.flight = None
        self.curl.close()

    def _answered(self, status: int, headers: Headers, now: float) -> Result:
        truncated = self._received > len(self._body)
        return Result(self.call, status, headers, self._body, truncated, None, None, True, self._phases(now))

    def _failed(self, number: int, detail: str, sent: bool, now: float) -> Result:
        if self._refused is not None and not sent:
            return self.result(Failure("target_refused", self._refused, True), now)
        if self._trouble is not None and not sent:
            return self.result(self._trouble, now)
        assert self.target is not None
        host, port = self.target.host, self.target.port
        if number == pycurl.E_OPERATION_TIMEDOUT:
            # libcurl has one number for both of its timeouts.
            if sent or now > self.deadline - 0.01:
                return self.timed_out(sent, now)
            message = f"No connection to {host} port {port} within {self.call.connect_timeout_seconds:g} s."
            return self.result(Failure("connect_failed", message, True), now)
        reason = self.curl.getinfo(pycurl.OS_ERRNO)
        failure = classify(number, detail, reason=reason, host=host, port=port)
        if failure.before_request and not sent and out_of_descriptors():
            failure = for_want_of_descriptors()  # as where libcurl could not open its certificates
        return self.result(failure, now)

    def _measure(self) -> bool:
        """Add this hop's durations; True if any of the request may have been sent."""
        getinfo = self.curl.getinfo
        if not self._opened and self._lines:
            # An answer on a kept connection, where nothing was connected.
            self._first_byte += max(
                0.0, getinfo(pycurl.STARTTRANSFER_TIME) - getinfo(pycurl.PRETRANSFER_TIME)
            )
            return True
        connect: float = getinfo(pycurl.CONNECT_TIME)
        tls: float = getinfo(pycurl.APPCONNECT_TIME)
        first_byte = getinfo(pycurl.STARTTRANSFER_TIME)
        if connect:
            self._connect += max(0.0, connect - getinfo(pycurl.NAMELOOKUP_TIME))
        if tls:
            self._tls += max(0.0, tls - connect)
        if first_byte:
            self._first_byte += max(0.0, first_byte - getinfo(pycurl.PRETRANSFER_TIME))
        # Not PRETRANSFER_TIME: libcurl fills it in for calls that fail before it, too. On a new connection the
        # request follows its last handshake at once; on a kept one only the bytes sent tell.
        assert self.target is not None
        ready = tls if self.target.scheme == "https" else connect
        return ready > 0 or getinfo(pycurl.REQUEST_SIZE) > 0

    def _phases(self, now: float) -> Phases:
        if self.waiting_since is not None:
            self._dns += now - self.waiting_since
        return Phases(
            self._dns * 1000,
            self._connect * 1000,
            self._tls * 1000,
            self._first_byte * 1000,
            (now - self.started) * 1000,
        )

    def _on_read(self, size: int) -> bytes:
        body = self.request.body or b""
        begin = self._position
        self._position = begin + size
        return body[begin : begin + size]

    def _on_body(self, data: bytes) -> int | None:
        room = self._capture - len(self._body)
        if room > 0:
            self._body = self._body + data[:room] if self._body else data[:room]
        self._received += len(data)
        return _CUT if self._received > self._read_limit else None

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
            self._trouble = (
                for_want_of_descriptors()
                if error.errno in OUT_OF_DESCRIPTORS
                else Failure("connect_failed", f"This worker cannot open a socket: {error.strerror}.", True)
            )
            return pycurl.SOCKET_BAD
        return lent

    def _on_connection(self, *path: Any) -> Any:
        """The request is about to be sent. Its connection is new or kept; a dead one is noticed here."""
        # libcurl cannot take a kept one for a call that asks for a fresh one. Were it ever to, this must not go
        # round for ever.
        if self._opened or self._fresh:
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

"""What goes into the transport and what comes out of it.

Tuples, not dataclasses: there are several for each call, and a frozen dataclass takes four times as long to make. Where
it counts they are made without naming the fields, which would take three times as long.
"""

from typing import Final, NamedTuple

#: Seconds for TCP and TLS of one connection.
CONNECT_SECONDS: Final = 10.0


def pairs_of(lines: str) -> tuple[tuple[str, str], ...]:
    """Names and values of header lines."""
    pairs = (line.partition(": ") for line in lines.split("\r\n") if line)
    return tuple((name, value) for name, _, value in pairs)


class Call(NamedTuple):
    """One HTTP request, as ``request.build`` makes it: the transport adds only Host and Content-Length."""

    execution_id: int
    attempt: int
    method: str
    url: str
    job_headers: tuple[tuple[str, str], ...]
    """What the job says and what stands in for it where it says nothing: one object for many calls."""
    own_headers: str
    """What names this call: the lines ``Name: value``, with CRLF between, as they are sent."""
    body: bytes | None
    """None: no body, and no Content-Type either."""
    timeout_seconds: float
    """For the whole call: name lookup, connection, redirects and the answer's last byte."""
    connect_timeout_seconds: float = CONNECT_SECONDS
    """For TCP and TLS of one connection."""
    follow_redirects: bool = False
    fresh_connection: bool = False
    """Never on a kept connection, on which the client cannot tell a late close from a lost request."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """All of them, in the order in which they are sent but for those that libcurl wants first."""
        return self.job_headers + pairs_of(self.own_headers)


class Phases(NamedTuple):
    """Milliseconds. Each is a duration of its own; over redirects they add up. ``total_ms`` is the whole call."""

    dns_ms: float
    connect_ms: float
    tls_ms: float
    first_byte_ms: float
    total_ms: float


class Result(NamedTuple):
    """How a call ended. ``error_code`` is None when an answer was received, whatever its status."""

    call: Call
    status: int | None
    """The answer's status; None unless its headers were complete, and its body too or cut by our own limit."""
    headers: tuple[tuple[str, str], ...]
    """The answer's, names as sent, free of control characters."""
    body: bytes
    """The first bytes of the answer, as sent: never decoded or decompressed."""
    truncated: bool
    """The answer's body was longer than ``body``."""
    error_code: str | None
    error_message: str | None
    """One sentence for the user, without secrets."""
    sent: bool
    """False only if certainly no byte of the request left: then even an at-most-once call may be repeated."""
    phases: Phases
    unfit: bool = False
    """For want of descriptors this process could not call the target, or not the one that it redirects to."""

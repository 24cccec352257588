"""Reads one answer of HTTP/1 from what a connection gives, piece by piece (RFC 9112). Pure.

An answer is complete when its own framing says so: after its headers where it has no body, after so many bytes, after
the last chunk, or, where it says none of these, when the target closes. Whatever ends earlier was cut off.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from jobsched.callback.answer import MAX_HEAD_BYTES, Headers, header, read_head

#: The blank line that ends a head. A bare LF ends a line, too (section 2.2).
_BLANK_LINE = re.compile(rb"\n\r?\n")
_BEGIN = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?:[ \r\n])")
#: A field, or the continuation of the one before (sections 5 and 5.2). What two readers would read differently (a name
#: without a colon, a blank before it, a bare CR) may hide where an answer ends, and is refused.
_FIELD = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:|[ \t])[^\r\0]*\r?")
_LENGTH = re.compile(r"0*[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"0*[0-9A-Fa-f]{1,15}")
_CHUNK_LINE_BYTES = 4096
_SHORT = 1024
_WITHOUT_BODY = frozenset({204, 304})


class NotHttp(Exception):
    """What came is no answer, or no more of one will come. The text is one sentence for the user."""


CUT_IN_HEAD = "The answer was cut off inside its headers, or they are no HTTP."
CUT_IN_BODY = "The answer was cut off inside its body."
NO_ANSWER = "The target closed the connection without answering."
_OVERHEAD = "The answer is not valid HTTP: there is more between its chunks than in them."
HEAD_LARGE = f"The answer's headers are larger than {MAX_HEAD_BYTES // 1024} KiB."


class Head(NamedTuple):
    """Status and headers, and how the body ends."""

    status: int
    headers: Headers
    length: int | None
    """Bytes of the body; None: it ends with its last chunk or with the connection."""
    chunked: bool
    closes: bool
    """The target says that it closes the connection."""


class Reply:
    """The answer to one request.

    ``bodyless``: the request was a HEAD. Of the body ``capture`` bytes are kept, and after ``limit`` it counts as
    complete. ``feed`` and ``end`` raise NotHttp; then nothing more may be asked.
    """

    __slots__ = (
        "_after_chunk",
        "_bodyless",
        "_capture",
        "_captured",
        "_chunks_over",
        "_left",
        "_limit",
        "_looked",
        "_parts",
        "_pending",
        "_skipped",
        "head",
        "received",
        "reusable",
    )

    def __init__(self, *, bodyless: bool, capture: int, limit: int) -> None:
        self.head: Head | None = None
        self.received = 0
        self.reusable = False
        """The connection is as it was before the request."""
        self._bodyless = bodyless
        self._capture = capture
        self._limit = limit
        self._parts: list[bytes] = []
        self._captured = 0
        self._pending = b""
        self._looked = 0
        self._skipped = 0
        self._left = 0
        self._after_chunk = self._chunks_over = False

    @property
    def begun(self) -> bool:
        """Whether anything of it has come."""
        return self.head is not None or bool(self._pending) or self._skipped > 0

    @property
    def body(self) -> bytes:
        """What is kept of the body."""
        return b"".join(self._parts)

    def feed(self, data: bytes) -> bool:
        """Take what has come; whether the answer is complete."""
        head = self.head
        if head is None:
            if self._pending:
                data = self._pending + data
            head, data = self._read_heads(data)
            if head is None:
                return False
            self.head = head
            self._left = head.length or 0
        if head.chunked:
            return self._feed_chunks(data)
        if head.length is None:
            self._take(data)
            return self.received > self._limit
        over = len(data) - self._left
        if over > 0:
            data = data[: self._left]  # what nobody has asked for
        self._left -= len(data)
        self._take(data)
        if self._left:
            return self.received > self._limit
        self.reusable = over <= 0 and not head.closes
        return True

    def end(self) -> None:
        """The target has closed the connection. Returns where that completes the answer."""
        head = self.head
        if head is None:
            raise NotHttp(CUT_IN_HEAD if self.begun else NO_ANSWER)
        if head.chunked or head.length is not None:
            raise NotHttp(CUT_IN_BODY)

    def _read_heads(self, data: bytes) -> tuple[Head | None, bytes]:
        """The head of the final answer and what comes after it; interim answers (1xx) before it are skipped."""
        while True:
            if not (data.startswith(_BEGIN) or _BEGIN.startswith(data)):
                raise NotHttp(CUT_IN_HEAD)
            # From where the last look ended, but for a line's end: a head may come byte by byte.
            blank = _BLANK_LINE.search(data, max(0, self._looked - 2))
            if self._skipped + (len(data) if blank is None else blank.end()) > MAX_HEAD_BYTES:
                raise NotHttp(HEAD_LARGE)
            if blank is None:
                self._pending = data
                self._looked = len(data)
                return None, b""
            self._looked = 0
            text, data = data[: blank.start() + 1], data[blank.end() :]
            head = _known(text, self._bodyless) if len(text) <= _SHORT else _read(text, self._bodyless)
            if head.status >= 200 or head.status == 101:
                self._pending = b""
                return head, data
            self._skipped += len(text)

    def _take(self, data: bytes) -> None:
        room = self._capture - self._captured
        if room > 0 and data:
            self._parts.append(data[:room])
            self._captured += len(self._parts[-1])
        self.received += len(data)

    def _feed_chunks(self, data: bytes) -> bool:
        assert self.head is not None
        if self._pending:
            data = self._pending + data
            self._pending = b""
        at = 0
        while True:
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                self._take(part)
                if self.received > self._limit:
                    return True
                if self._left:
                    return False
                self._after_chunk = True
            end = data.find(b"\n", at)
            if (len(data) if end < 0 else end) - at > _CHUNK_LINE_BYTES:
                raise NotHttp("The answer is not valid HTTP: a line between its chunks is too long.")
            if end < 0:
                self._pending = data[at:]
                return False
            line = data[at:end].rstrip(b"\r")
            at = end + 1
            if self._is_last(line):
                self.reusable = at == len(data) and not self.head.closes
                return True

    def _is_last(self, line: bytes) -> bool:
        """Read a line that is no part of a chunk; whether it ends the body."""
        self._skipped += len(line)
        if self._skipped > MAX_HEAD_BYTES + self.received:
            raise NotHttp(_OVERHEAD)
        if self._after_chunk:
            if line:
                raise NotHttp("The answer is not valid HTTP: a chunk is longer than it says.")
            self._after_chunk = False
            return False
        if self._chunks_over:
            return not line  # what comes before it are trailers
        size = line.partition(b";")[0].rstrip(b" \t")
        if not _CHUNK_SIZE.fullmatch(size):
            raise NotHttp("The answer is not valid HTTP: a chunk does not begin with its size.")
        self._left = int(size, 16)
        self._chunks_over = self._left == 0
        return False


def _read(text: bytes, bodyless: bool) -> Head:
    status_line = _STATUS.match(text)
    first, *fields = text.split(b"\n")[:-1]
    if status_line is None or b"\0" in first:
        raise NotHttp(CUT_IN_HEAD)
    if not all(map(_FIELD.fullmatch, fields)):
        raise NotHttp("The answer is not valid HTTP: one of its headers is not of the form 'name: value'.")
    headers = read_head([first + b"\n", *(line + b"\n" for line in fields), b"\n"])
    if headers is None:
        raise NotHttp(CUT_IN_HEAD)
    status = int(status_line[1])
    closes = _closes(text, headers) or status == 101
    if bodyless or status < 200 or status in _WITHOUT_BODY:
        return Head(status, headers, 0, False, closes)
    if codings := _listed(headers, "transfer-encoding"):
        if codings != ["chunked"]:
            raise NotHttp("The answer is not valid HTTP: nobody has asked for its Transfer-Encoding.")
        # It overrides a length, which then may be an attack on somebody between; as may it in HTTP/1.0 (section 6.1).
        doubtful = text.startswith(b"HTTP/1.0") or header(headers, "content-length") is not None
        return Head(status, headers, None, True, closes or doubtful)
    return Head(status, headers, _length(headers), False, closes)


# The answers of a target differ in their Date, once a second. Bounded in heads and, by _SHORT, in bytes.
_known = lru_cache(maxsize=512)(_read)


def _closes(text: bytes, headers: Headers) -> bool:
    options = _listed(headers, "connection")
    return "close" in options or (text.startswith(b"HTTP/1.0") and "keep-alive" not in options)


def _length(headers: Headers) -> int | None:
    said = [value for name, value in headers if name.lower() == "content-length"]
    if not said:
        return None
    # The same one twice is one (section 6.3).
    lengths = {length.strip() for value in said for length in value.split(",")}
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise NotHttp("The answer is not valid HTTP: its Content-Length is no number, or more than one.")
    return int(length)


def _listed(headers: Headers, name: str) -> list[str]:
    """The members of all headers of ``name``, in lower case; empty ones do not count (RFC 9110, section 5.6.1)."""
    said = ",".join(value for key, value in headers if key.lower() == name).lower()
    return [member for part in said.split(",") if (member := part.strip())]

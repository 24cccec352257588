"""Reads the header lines of an answer as libcurl hands them over, one by one. Pure.

libcurl reports a status of 200 for a target that dies inside its headers. What tells a complete answer from
that is the blank line that ends the headers, so it is looked for here.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

Headers = tuple[tuple[str, str], ...]

MAX_HEAD_BYTES = 65_536

# Exactly three digits: libcurl reads "2000" as 200.
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? [1-9][0-9][0-9](?:[ \r\n]|$)")
_SHORT = 200
_SHORT_HEAD = 1024
_BLANK = (b"\r\n", b"\n")
_CONTROL = dict.fromkeys([*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0)])


def read_head(lines: Sequence[bytes]) -> Headers | None:
    """The headers of the final answer among ``lines``; None when the answer was cut before their end
    or does not begin as HTTP does.

    ``lines`` may also hold interim answers (1xx), a proxy's answer to CONNECT, and trailers; none of them is
    in the result. Names and values are decoded as Latin-1 (RFC 9110, section 5.5) without control characters,
    which neither Postgres nor a terminal should see.
    """
    head = tuple(lines)
    return _known_head(head) if sum(map(len, head)) <= _SHORT_HEAD else _read(head)


def _read(lines: tuple[bytes, ...]) -> Headers | None:
    begin = _last_status_line(lines)
    if begin is None or not _STATUS_LINE.match(lines[begin]):
        return None
    headers: list[tuple[str, str]] = []
    for line in lines[begin + 1 :]:
        if line in _BLANK:
            return tuple(headers)
        if line[0] in b" \t" and headers:
            # A folded line continues the value before it (RFC 9112, section 5.2).
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {_clean(line.decode('latin-1'))}".strip())
        elif len(line) <= _SHORT:
            headers.append(_known_field(line))
        else:
            headers.append(_field(line))
    return None


# The answers of a target differ in their Date, once a second. Bounded in heads and, by _SHORT_HEAD, in bytes.
_known_head = lru_cache(maxsize=512)(_read)


def header(headers: Headers, name: str) -> str | None:
    """The first value of ``name`` (in lower case); None when it is missing."""
    return next((value for key, value in headers if key.lower() == name), None)


def _last_status_line(lines: Sequence[bytes]) -> int | None:
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(b"HTTP/"):
            return index
    return None


def _field(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return _clean(name), _clean(value)


# A target answers with the same lines again and again. Bounded in lines and, by _SHORT, in bytes.
_known_field = lru_cache(maxsize=4096)(_field)


def _clean(text: str) -> str:
    text = text.strip()
    return text if text.isprintable() else text.translate(_CONTROL)

"""Reads the header lines of an answer as libcurl hands them over, one by one. Pure.

libcurl reports a status of 200 for a target that dies inside its headers. What tells a complete answer from
that is the blank line that ends the headers, so it is looked for here.
"""

from collections.abc import Sequence

Headers = tuple[tuple[str, str], ...]

MAX_HEAD_BYTES = 65_536

_BLANK = (b"\r\n", b"\n")
_CONTROL = dict.fromkeys([*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0)])


def read_head(lines: Sequence[bytes]) -> Headers | None:
    """The headers of the final answer among ``lines``; None when the answer was cut before their end.

    ``lines`` may also hold interim answers (1xx), a proxy's answer to CONNECT, and trailers; none of them is
    in the result. Names and values are decoded as Latin-1 (RFC 9110, section 5.5) without control characters,
    which neither Postgres nor a terminal should see.
    """
    begin = _last_status_line(lines)
    if begin is None:
        return None
    headers: list[tuple[str, str]] = []
    for line in lines[begin + 1 :]:
        if line in _BLANK:
            return tuple(headers)
        text = line.decode("latin-1")
        if text[0] in " \t" and headers:
            # A folded line continues the value before it (RFC 9112, section 5.2).
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {_clean(text)}")
            continue
        name, _, value = text.partition(":")
        headers.append((_clean(name), _clean(value)))
    return None


def header(headers: Headers, name: str) -> str | None:
    """The first value of ``name`` (in lower case); None when it is missing."""
    return next((value for key, value in headers if key.lower() == name), None)


def _last_status_line(lines: Sequence[bytes]) -> int | None:
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(b"HTTP/"):
            return index
    return None


def _clean(text: str) -> str:
    text = text.strip()
    return text if text.isprintable() else text.translate(_CONTROL)

"""Bodies that hold many items: a JSON array, or NDJSON (one JSON value a line), read as they arrive.

Neither the whole text nor all values are ever held: an item is handed on as soon as it is complete. The rules are
those of jobsched/web/body.py, an item may be as large as the body of a single call, and places in messages
count characters of the body.

One rule is left to whoever takes an item: that no name stands twice in an object. To ask for it while reading takes
as long as the rest, and who knows what an item may hold can tell sooner (jobsched/domain/quick.py). ``strict_item`` and
``strict_line`` read the text of an item by all rules.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from jobsched.domain.json_text import MAX_DEPTH, pointer
from jobsched.errors import Fault, InvalidInput
from jobsched.web.body import DECODER, LOOSE_DECODER, MAX_BODY_BYTES, not_json
from jobsched.web.errors import RequestRefused

_SPACE: Final = re.compile(r"[ \t\n\r]*")
# Of 64 MiB of line ends each would otherwise be looked at: 10 s.
_EMPTY_LINES: Final = re.compile(rb"\n[ \t\r\n]+")
_LINE_ENDS: Final = frozenset(("", "\r"))
_TO_NEXT_OBJECT: Final = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=\{)")
_BOM: Final = "\ufeff"
_READ: Final = DECODER.raw_decode
# As LOOSE_DECODER.raw_decode, but where nothing begins that is JSON it raises StopIteration.
_SCAN: Final[Callable[[str, int], tuple[Any, int]]] = LOOSE_DECODER.scan_once  # type: ignore[attr-defined]
# Of what is read at one blow: "-Infinity", "\\ud83d\\ude00".
_LONGEST_TOKEN: Final = 12


class Item(NamedTuple):
    """One value of the body and the JSON text that it was read from; ``fault``: why a line is no JSON.

    Of a name that stands twice in an object the value may have the last.
    """

    value: Any
    text: str
    fault: str | None = None


def array_items(chunks: Iterator[bytes]) -> Iterator[Item]:
    """The items of a JSON array. Raises RequestRefused (400) where it is no JSON, InvalidInput where no array."""
    window = _Window(chunks)
    window.skip_space()
    if not window.has(1):
        raise RequestRefused(400, "invalid_json", "The body is empty; JSON is expected.")
    if window.peek() == _BOM:
        raise not_json("it begins with a byte order mark")
    if window.peek() != "[":
        # Whether it is JSON at all is told for the beginning only.
        with suppress(InvalidInput):
            window.value(0)
        raise InvalidInput([Fault("", "must be a JSON array of jobs")])
    window.take()
    window.skip_space()
    index = 0
    closed = window.peek() == "]"
    while not closed:
        for item in window.plain_items():
            yield item
            index += 1
        yield window.value(index)
        index += 1
        window.skip_space()
        closed = window.peek() == "]"
        if not closed:
            if window.peek() != ",":
                raise window.expected("',' or ']'")
            window.take()
            window.skip_space()
    window.take()
    window.skip_space()
    if window.has(1):
        raise window.expected("the end")


def line_items(chunks: Iterator[bytes]) -> Iterator[Item]:
    """The items of NDJSON; empty lines are none. A line that is no JSON is an item with its ``fault``."""
    for line in _lines(chunks):
        if len(line) > MAX_BODY_BYTES:
            yield Item(None, "", f"is larger than {MAX_BODY_BYTES} bytes")
        elif line.strip(b" \t\r"):
            yield _line_item(line)


def strict_item(text: str) -> tuple[Any, None]:
    """The value of an array's item by all rules. Raises RequestRefused."""
    return DECODER.decode(text), None


def strict_line(text: str) -> tuple[Any, str | None]:
    """The value of a line by all rules, and why it is none."""
    item = _careful_line_item(text.encode())
    return item.value, item.fault


def _line_item(line: bytes) -> Item:
    try:
        text = line.decode()
        value, end = _SCAN(text, 0)
    except (ValueError, StopIteration, RecursionError, RequestRefused):
        pass
    else:
        if text[end:] in _LINE_ENDS:
            return Item(value, text[:end])
    return _careful_line_item(line)


def _careful_line_item(line: bytes) -> Item:
    try:
        text = line.decode().strip(" \t\r")
        value, end = _READ(text, 0)
        # What stands behind the value is told as json tells it.
        return Item(value if end == len(text) else DECODER.decode(text), text)
    except UnicodeDecodeError as error:
        return Item(None, "", f"is not JSON: byte {error.start} of the line is not UTF-8")
    except json.JSONDecodeError as error:
        return Item(None, "", f"is not JSON: {error.msg} at column {error.colno}")
    except RequestRefused as error:
        return Item(None, "", str(error).replace("The body is", "is", 1).rstrip("."))
    except RecursionError:
        return Item(None, "", _too_deep())
    except ValueError:
        return Item(None, "", "has a number with too many digits")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends; one that is too long is cut, but still longer than is allowed."""
    rest = b""
    for chunk in chunks:
        *whole, rest = _EMPTY_LINES.sub(b"\n", rest + chunk).split(b"\n")
        yield from whole
        rest = rest[: MAX_BODY_BYTES + 1]
    yield rest


def _too_deep() -> str:
    return f"is nested deeper than {MAX_DEPTH} levels"


class _Window:
    """A piece of the text, moved forward over it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0
        self._before = 0
        """Characters of the body that lie before the window."""
        self._ended = False

    def has(self, count: int) -> bool:
        """Whether there are so many more characters."""
        while len(self._text) - self._at < count and not self._ended:
            self._grow()
        return len(self._text) - self._at >= count

    def peek(self) -> str:
        """The next character, empty at the end."""
        return self._text[self._at] if self._at < len(self._text) or self.has(1) else ""

    def take(self) -> None:
        """Go on by one character."""
        self._at += 1

    def skip_space(self) -> None:
        """Go on to what is no white space."""
        while True:
            text, at = self._text, self._at
            if at < len(text) and text[at] > " ":
                return
            found = _SPACE.match(text, at)
            self._at = found.end() if found else at
            if self._at < len(text) or self._ended:
                return
            self._grow()

    def plain_items(self) -> Iterator[Item]:
        """The objects from this place on that are whole and followed by another; then this is the place of that one."""
        text, at = self._text, self._at
        while text.startswith("{", at):
            try:
                value, end = _SCAN(text, at)
            except (ValueError, StopIteration, RecursionError):
                return  # what is wrong, or only cut off, is told by ``value``
            if text.startswith(", {", end):
                self._at = end + 2
            elif (between := _TO_NEXT_OBJECT.match(text, end)) is not None:
                self._at = between.end()
            else:
                return
            yield Item(value, text[at:end])
            at = self._at

    def value(self, index: int) -> Item:
        """The JSON value at this place, item ``index`` of the array."""
        while True:
            try:
                value, end = _READ(self._text, self._at)
                # A number at the edge of the window may go on behind it ("1", "1.", "1e-").
                if end + 3 < len(self._text) or self._ended:
                    text = self._text[self._at : end]
                    self._at = end
                    return Item(value, text)
            except json.JSONDecodeError as error:
                if self._ended or _is_final(error):
                    raise not_json(f"{error.msg} at character {self._before + error.pos}") from None
                if len(self._text) - self._at > MAX_BODY_BYTES:
                    raise _item_fault(index, f"is larger than {MAX_BODY_BYTES} bytes, or not JSON") from None
            except RecursionError:
                raise _item_fault(index, _too_deep()) from None
            except ValueError:
                raise _item_fault(index, "has a number with too many digits") from None
            # At least as much again, so that a large item is not begun anew for each piece of it.
            wanted = 2 * (len(self._text) - self._at)
            self._grow()
            self.has(min(wanted, MAX_BODY_BYTES + 1))

    def expected(self, what: str) -> RequestRefused:
        """That something else stands here."""
        return not_json(f"expecting {what} at character {self._before + self._at}")

    def _grow(self) -> None:
        chunk = next(self._chunks, b"")
        self._ended = not chunk
        try:
            added = self._decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            raise not_json(f"it is not UTF-8: {error.reason}") from None
        self._before += self._at
        self._text = self._text[self._at :] + added
        self._at = 0


def _is_final(error: json.JSONDecodeError) -> bool:
    """Whether the text is no JSON whatever follows: it breaks before its end, where nothing can be cut off."""
    return error.pos + _LONGEST_TOKEN < len(error.doc) and not error.msg.startswith("Unterminated string")


def _item_fault(index: int, message: str) -> InvalidInput:
    return InvalidInput([Fault(pointer(index), message)])

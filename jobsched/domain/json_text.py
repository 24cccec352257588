"""What no JSON of ours may contain, wherever it stands: NUL, lone surrogates, numbers that are not numbers.

Postgres stores neither NUL nor a lone surrogate, and RFC 8259 knows no NaN; refused at the door, none of them
can fail a statement later. Nesting is bounded because everything that walks JSON walks it recursively.
"""

import json
import math
import re
from collections.abc import Callable
from json import encoder
from typing import Any

from jobsched.errors import Fault

MAX_DEPTH = 100

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # as object hooks use it
# What the encoder makes anew at each call, and takes half of the time of a small value: kept. None without C.
_WRITE: Callable[[Any, int], tuple[str, ...]] | None = encoder.c_make_encoder and encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, _ENCODER.default, encoder.encode_basestring, None, ":", ",", False, False, False
)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# The same in the text of an encoder that leaves all but control characters, quotes and backslashes as they are.
_SUSPECT = re.compile("\\\\u0000|[\ud800-\udfff]")


def unstorable(text: str) -> str | None:
    """Why ``text`` cannot be stored, or None."""
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    if found.group() == "\0":
        return "contains the character NUL (U+0000)"
    return f"contains a lone surrogate (U+{ord(found.group()):04X})"


def pointer(*parts: str | int) -> str:
    """The RFC 6901 pointer of a place in a document.

    >>> pointer("headers", "a/b", 0)
    '/headers/a~1b/0'
    """
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def json_faults(value: Any) -> list[Fault]:
    """Everything in ``value`` that may not be there, with its place. Deeper than 100 is a fault by itself."""
    if _is_plainly_storable(value):
        return []
    faults: list[Fault] = []
    if not _walk(value, (), 0, faults):
        faults.insert(0, Fault("", f"is nested deeper than {MAX_DEPTH} levels"))
    return faults


def compact(value: Any) -> str:
    """``value`` as JSON text without spaces, as it is stored and sent. Raises ValueError for NaN and infinity."""
    return _ENCODER.encode(value) if _WRITE is None else "".join(_WRITE(value, 0))


def parsed(text: str | bytes) -> Any:
    """The value of ``text``, which is JSON. Twice as fast as ``json.loads`` where nothing stands around the value."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value, end = _SCAN(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else json.loads(text)


def _is_plainly_storable(value: Any) -> bool:
    """Whether there is nothing to find; some of what may be stored is not that plain. Ten times as fast as to walk."""
    try:
        text = compact(value)
    except (ValueError, TypeError, RecursionError):
        return False
    return text.count("{") + text.count("[") <= MAX_DEPTH and _SUSPECT.search(text) is None


def _walk(value: Any, path: tuple[str | int, ...], depth: int, faults: list[Fault]) -> bool:
    if isinstance(value, str):
        if reason := unstorable(value):
            faults.append(Fault(pointer(*path), reason))
    elif isinstance(value, float):
        if not math.isfinite(value):
            faults.append(Fault(pointer(*path), "is not a finite number"))
    elif isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            return False
        if isinstance(value, list):
            return all(_walk(item, (*path, index), depth + 1, faults) for index, item in enumerate(value))
        return all(_walk_member(name, item, path, depth, faults) for name, item in value.items())
    return True


def _walk_member(name: str, item: Any, path: tuple[str | int, ...], depth: int, faults: list[Fault]) -> bool:
    if reason := unstorable(name):
        shown = "".join(
            character if _UNSTORABLE.fullmatch(character) is None else "\ufffd" for character in name
        )
        faults.append(Fault(pointer(*path, shown), f"its name {reason}"))
        return _walk(item, (*path, shown), depth + 1, faults)
    return _walk(item, (*path, name), depth + 1, faults)

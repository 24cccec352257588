"""Bodies of requests: bytes into JSON, strictly.

Refused with 400: bytes that are not UTF-8, a byte order mark, NaN and Infinity, a name that stands twice in
an object (readers disagree on which counts). What is JSON but cannot be stored (NUL, lone surrogates, deep
nesting) is found by jobsched.domain, with its place, and is 422.
"""

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import g, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from jobsched.domain.json_text import MAX_DEPTH
from jobsched.errors import Fault, InvalidInput
from jobsched.web.errors import RequestRefused

MAX_BODY_BYTES: Final = 1024 * 1024

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
NDJSON: Final = "application/x-ndjson"

_CHUNK: Final = 64 * 1024
_BROKEN: Final = (ParseException, ClientDisconnected, OSError)


def read_json(*types: str) -> Any:
    """The JSON value of the body, of one of the media ``types`` (application/json where none is named)."""
    check_type(types or (JSON,))
    raw = read_bytes()
    if not raw.strip():
        raise RequestRefused(400, "invalid_json", "The body is empty; JSON is expected.")
    return parse_json(raw)


def read_loosely() -> tuple[Any, str]:
    """The JSON value of the body and its text; of a name that stands twice in an object the value may have the last.

    ``strictly`` reads the text by all rules.
    """
    check_type((JSON,))
    raw = read_bytes()
    try:
        text = raw.decode()
        return LOOSE_DECODER.decode(text), text
    except (ValueError, RecursionError, RequestRefused):
        pass
    value = read_json()  # which tells what is wrong
    return value, raw.decode()


def strictly(text: str) -> tuple[Any, None]:
    """The value of a body's text by all rules. Raises as ``read_json``."""
    return parse_json(text.encode()), None


def read_optional_json() -> Any:
    """As ``read_json``, but None where no body was sent; a body that says null is refused."""
    if not read_bytes():
        return None
    value = read_json()
    if value is None:
        raise InvalidInput([Fault("", "An object is expected.")])
    return value


def parse_json(raw: bytes) -> Any:
    """``raw`` as JSON. Raises RequestRefused (400) or InvalidInput."""
    if raw.startswith(codecs.BOM_UTF8):
        raise not_json("it begins with a byte order mark")
    try:
        return DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise not_json(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise not_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise InvalidInput([Fault("", f"is nested deeper than {MAX_DEPTH} levels")]) from None
    except ValueError:
        # Python reads no integer of more than 4,300 digits (it would take quadratic time).
        raise InvalidInput([Fault("", "has a number with too many digits")]) from None


def check_type(types: tuple[str, ...]) -> None:
    """Refuse a body that is of none of the media ``types``, not in UTF-8, or compressed (415)."""
    environ = request.environ
    if environ.get("CONTENT_TYPE") in types and "HTTP_CONTENT_ENCODING" not in environ:
        return
    expected = " or ".join(types)
    if not request.content_type:
        raise RequestRefused(415, "unsupported_media_type", f"Content-Type is missing; send {expected}.")
    if request.mimetype not in types:
        detail = f"The body is of type {request.mimetype or request.content_type}; send {expected}."
        raise RequestRefused(415, "unsupported_media_type", detail)
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise RequestRefused(415, "unsupported_media_type", "The body must be UTF-8.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RequestRefused(415, "unsupported_media_type", "The body must not be compressed.")


def read_bytes(limit: int = MAX_BODY_BYTES) -> bytes:
    """The body as it was sent, kept with the request: whoever asks again gets the same bytes, not a copy.

    Raises RequestRefused: 413 above ``limit`` bytes, 400 where the body ended early.
    """
    known: bytes | None = g.get("body")
    if known is not None:
        if len(known) > limit:
            raise _too_large(limit)
        return known
    try:
        environ = request.environ
        if (length := _told_length(environ)) is not None and length <= limit:
            # What werkzeug puts around the stream bounds it, which its length does as well.
            raw = g.body = environ["wsgi.input"].read(length) if length else b""
            if len(raw) < length:
                raise _ended_early()
            return raw
        # One byte more than is allowed: of a longer body without a Content-Length werkzeug gives what fits.
        request.max_content_length = limit + 1
        raw = request.get_data()
    except RequestEntityTooLarge:
        raise _too_large(limit) from None
    except _BROKEN:
        raise _ended_early() from None
    if len(raw) > limit:
        raise _too_large(limit)
    _check_whole(len(raw))
    g.body = raw
    return raw


def read_chunks(limit: int) -> Iterator[bytes]:
    """The body piece by piece, without keeping it. Raises as ``read_bytes`` does, as soon as it is known."""
    if (known := g.get("body")) is not None:
        for start in range(0, len(known), _CHUNK):
            yield known[start : start + _CHUNK]
        return
    size = 0
    try:
        request.max_content_length = limit + 1
        while chunk := request.stream.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            yield chunk
        _check_whole(size)
    except RequestEntityTooLarge:
        raise _too_large(limit) from None
    except _BROKEN:
        raise _ended_early() from None


def _told_length(environ: Mapping[str, Any]) -> int | None:
    """How many bytes the server will give; None where only the end of the stream tells."""
    told = environ.get("CONTENT_LENGTH", "")
    return (
        int(told) if told.isascii() and told.isdecimal() and "HTTP_TRANSFER_ENCODING" not in environ else None
    )


def _check_whole(size: int) -> None:
    """Refuse a body shorter than its Content-Length: gunicorn takes a connection that ended or stalls for its end."""
    if request.content_length is not None and size < request.content_length:
        raise _ended_early()


def _ended_early() -> RequestRefused:
    return RequestRefused(400, "invalid_body", "The body ended early or its chunks are broken.")


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(413, "body_too_large", f"The body is larger than {limit} bytes.")


def not_json(reason: str) -> RequestRefused:
    """The refusal of a body that is not JSON."""
    return RequestRefused(400, "invalid_json", f"The body is not JSON: {reason}.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        [(twice, _times)] = Counter(name for name, _ in pairs).most_common(1)
        raise not_json(f"the name {json.dumps(twice[:100])} stands twice in one object")
    return result


def _constant(name: str) -> float:
    raise not_json(f"{name} is not a number in JSON")


#: Reads JSON by the rules above. Raises RequestRefused, JSONDecodeError, RecursionError or ValueError.
DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
#: As DECODER in half the time, but of a name that stands twice in an object it takes the last.
LOOSE_DECODER: Final = json.JSONDecoder(parse_constant=_constant)

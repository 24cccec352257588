"""Columns of many rows as Postgres' binary arrays, for ``unnest`` and ``ANY``. One row: jobsched.db.text_format.

psycopg dumps a list element by element in Python, 1.5 µs each, and JSON costs 5 µs a row here and 3 µs there. A
column that is packed as a whole costs 0.05 to 0.3 µs an element, and Postgres has nothing to parse.

The format is that of ``array_recv``: dimensions, whether there are NULLs, the elements' type, their number, the lower
bound; then each element's length, -1 for NULL, and its bytes. None is NULL. UnicodeEncodeError for what is no text,
struct.error for a number that its type has no room for.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from struct import calcsize, pack
from typing import TypeVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

T = TypeVar("T")

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of Postgres
_MICROSECOND = timedelta(microseconds=1)
_NULL = pack(">i", -1)


class Bigints(bytes):
    """``bigint[]``."""


class Integers(bytes):
    """``integer[]``."""


class Floats(bytes):
    """``double precision[]``."""


class Booleans(bytes):
    """``boolean[]``."""


class Instants(bytes):
    """``timestamptz[]``."""


class Texts(bytes):
    """``text[]``."""


class Jsons(bytes):
    """``jsonb[]``."""


class Blobs(bytes):
    """``bytea[]``."""


def bigints(values: Sequence[int]) -> Bigints:
    """``values`` as ``bigint[]``."""
    return Bigints(_fixed("int8", "q", values))


def integers(values: Sequence[int | None]) -> Integers:
    """``values`` as ``integer[]``."""
    return Integers(_fixed("int4", "i", values))


def floats(values: Sequence[float | None]) -> Floats:
    """``values`` as ``double precision[]``."""
    return Floats(_fixed("float8", "d", values))


def booleans(values: Sequence[bool]) -> Booleans:
    """``values`` as ``boolean[]``."""
    return Booleans(_fixed("bool", "?", values))


def instants(values: Sequence[datetime | None]) -> Instants:
    """Aware instants as ``timestamptz[]``."""
    passed = [None if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    return Instants(_fixed("timestamptz", "q", passed))


def texts(values: Sequence[str | None]) -> Texts:
    """``values`` as ``text[]``. Few different ones are cheapest."""
    return Texts(_varied("text", values, str.encode))


def jsons(values: Sequence[str | None]) -> Jsons:
    """JSON texts as ``jsonb[]``. Postgres parses each, at some 2 µs: let a row name one that many share."""
    return Jsons(_varied("jsonb", values, _jsonb))


def blobs(values: Sequence[bytes | None]) -> Blobs:
    """``values`` as ``bytea[]``."""
    return Blobs(_varied("bytea", values, bytes))


def _fixed(element: str, code: str, values: Sequence[float | None]) -> bytes:
    """Elements of one size, which struct calls ``code``."""
    size = calcsize(f">{code}")
    head = _head(element, len(values))
    if None in values:
        return head + b"".join(
            [_NULL if value is None else pack(f">i{code}", size, value) for value in values]
        )
    flat: list[float | None] = [size] * (2 * len(values))
    flat[1::2] = values
    return head + pack(">" + f"i{code}" * len(values), *flat)


def _varied(element: str, values: Sequence[T | None], encode: Callable[[T], bytes]) -> bytes:
    known: dict[T | None, bytes] = {}
    for value in set(values):
        encoded = b"" if value is None else encode(value)
        known[value] = _NULL if value is None else pack(">i", len(encoded)) + encoded
    return _head(element, len(values)) + b"".join([known[value] for value in values])


def _jsonb(text: str) -> bytes:
    return b"\1" + text.encode()  # the version of its binary format


def _head(element: str, count: int) -> bytes:
    oid = psycopg.postgres.types[element].oid
    return pack(">iiIii", 1, 0, oid, count, 1) if count else pack(">iiI", 0, 0, oid)


def _register(kind: type[bytes], element: str) -> None:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = psycopg.postgres.types[element].array_oid

        def dump(self, obj: bytes) -> bytes:
            return obj

    psycopg.adapters.register_dumper(kind, ArrayDumper)


for _kind, _element in (
    (Bigints, "int8"),
    (Integers, "int4"),
    (Floats, "float8"),
    (Booleans, "bool"),
    (Instants, "timestamptz"),
    (Texts, "text"),
    (Jsons, "jsonb"),
    (Blobs, "bytea"),
):
    _register(_kind, _element)

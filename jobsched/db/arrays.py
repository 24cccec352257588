"""Columns of values as Postgres' binary arrays, for statements that write thousands of rows with ``unnest``.

psycopg dumps a list element by element in Python, 1.5 µs each, and JSON costs 5 µs a row here and 3 µs there. A
column that is packed as a whole costs 0.05 to 0.3 µs an element, and Postgres has nothing to parse.

The format is that of ``array_recv``: dimensions, whether there are NULLs, the elements' type, their number, the lower
bound; then each element's length, -1 for NULL, and its bytes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import pack

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of Postgres
_MICROSECOND = timedelta(microseconds=1)
_NULL = pack(">i", -1)


class Bigints(bytes):
    """``bigint[]``."""


class Instants(bytes):
    """``timestamptz[]``."""


class Texts(bytes):
    """``text[]``."""


def bigints(values: Sequence[int]) -> Bigints:
    """``values`` as ``bigint[]``; struct.error for one that is none."""
    return Bigints(_head("int8", len(values)) + _numbers(values))


def instants(values: Sequence[datetime | None]) -> Instants:
    """Aware instants as ``timestamptz[]``; None is NULL."""
    head = _head("timestamptz", len(values))
    passed = [None if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    present = [each for each in passed if each is not None]
    if len(present) == len(passed):
        return Instants(head + _numbers(present))
    return Instants(head + b"".join(_NULL if each is None else pack(">iq", 8, each) for each in passed))


def texts(values: Sequence[str]) -> Texts:
    """``values`` as ``text[]``; UnicodeEncodeError for what is no text. Few different ones are cheapest."""
    known = {value: _text(value) for value in set(values)}
    return Texts(_head("text", len(values)) + b"".join([known[value] for value in values]))


def _text(value: str) -> bytes:
    encoded = value.encode()
    return pack(">i", len(encoded)) + encoded


def _numbers(values: Sequence[int]) -> bytes:
    flat = [8] * (2 * len(values))
    flat[1::2] = values
    return pack(">" + "iq" * len(values), *flat)


def _head(element: str, count: int) -> bytes:
    oid = psycopg.postgres.types[element].oid
    return pack(">iiIii", 1, 0, oid, count, 1) if count else pack(">iiI", 0, 0, oid)


def _register(kind: type[bytes], element: str) -> None:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = psycopg.postgres.types[element].array_oid

        def dump(self, obj: bytes) -> bytes:
            return bytes(obj)

    psycopg.adapters.register_dumper(kind, ArrayDumper)


for _kind, _element in ((Bigints, "int8"), (Instants, "timestamptz"), (Texts, "text")):
    _register(_kind, _element)

"""Columns that are packed here are what Postgres reads."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobsched.db import arrays
from jobsched.errors import DatabaseRefused

EDGES = [0, 1, -1, 2**31, -(2**63), 2**63 - 1]
INSTANTS = [
    datetime(2026, 11, 21, 12, 30, 15, 123456, UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime(2026, 3, 29, 3, tzinfo=timezone(timedelta(hours=2))),
]


def back(link, packed):
    """The type that Postgres sees, and the elements as they come back."""
    rows = link.execute("SELECT pg_typeof(%s)::text, a FROM unnest(%s) AS a", (packed, packed))
    [kind] = {kind for kind, _value in rows}
    return kind, [value for _kind, value in rows]


def test_numbers_and_texts_arrive_as_they_are(link):
    assert back(link, arrays.bigints(EDGES)) == ("bigint[]", EDGES)
    texts = ["", "a", "default.high", '{,"\\', "äöü€😀", "NULL", "a"]
    assert back(link, arrays.texts(texts)) == ("text[]", texts)


def test_instants_arrive_to_the_microsecond_and_none_as_null(link):
    kind = "timestamp with time zone[]"
    assert back(link, arrays.instants(INSTANTS)) == (kind, INSTANTS)
    some = [None, INSTANTS[0], None]
    assert back(link, arrays.instants(some)) == (kind, some)


@pytest.mark.parametrize(
    ("pack", "kind", "values"),
    [
        (arrays.integers, "integer[]", [0, -1, 2**31 - 1, -(2**31)]),
        (arrays.floats, "double precision[]", [0.0, -0.1, 1e300, 5e-324, float("inf"), 7]),
        (arrays.booleans, "boolean[]", [True, False, True]),
        (arrays.texts, "text[]", ["", "NULL", "ä", "ä"]),
        (arrays.jsons, "jsonb[]", ['{"a": [1.500, null]}', '"{\\\\"', "null"]),
        (arrays.blobs, "bytea[]", [b"", b"\0\xff\\x", b"ok"]),
    ],
)
def test_columns_of_every_kind_arrive_with_and_without_null(link, pack, kind, values):
    expected = [json.loads(text) for text in values] if pack is arrays.jsons else values
    assert back(link, pack(values)) == (kind, expected)
    if pack is not arrays.booleans:
        assert back(link, pack([None, *values, None])) == (kind, [None, *expected, None])
        assert back(link, pack([None])) == (kind, [None])


@pytest.mark.parametrize(
    "pack",
    [
        arrays.bigints,
        arrays.integers,
        arrays.floats,
        arrays.booleans,
        arrays.instants,
        arrays.texts,
        arrays.jsons,
        arrays.blobs,
    ],
)
def test_nothing_is_an_empty_array(link, pack):
    assert link.execute("SELECT cardinality(%s)", (pack([]),)) == [(0,)]


def test_what_is_no_text_is_refused_as_the_databases_refusals_are(link):
    with pytest.raises(DatabaseRefused), link.transaction() as cursor:
        cursor.execute("SELECT %s", (arrays.texts(["\ud800"]),))
    with pytest.raises(DatabaseRefused):
        link.execute("SELECT %s", (arrays.texts(["a\0b"]),))

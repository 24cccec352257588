"""Columns that are packed here are what Postgres reads."""

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


@pytest.mark.parametrize("packed", [arrays.bigints([]), arrays.texts([]), arrays.instants([])])
def test_nothing_is_an_empty_array(link, packed):
    assert link.execute("SELECT cardinality(%s)", (packed,)) == [(0,)]


def test_what_is_no_text_is_refused_as_the_databases_refusals_are(link):
    with pytest.raises(DatabaseRefused), link.transaction() as cursor:
        cursor.execute("SELECT %s", (arrays.texts(["\ud800"]),))
    with pytest.raises(DatabaseRefused):
        link.execute("SELECT %s", (arrays.texts(["a\0b"]),))

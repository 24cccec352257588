import random
from concurrent.futures import ThreadPoolExecutor

import peewee
import pytest

from jobsched.clock import rfc3339
from jobsched.db.connection import Link, converted, open_pool
from jobsched.db.numbered import Numbered
from jobsched.db.session import Pool, show_instants
from jobsched.errors import DatabaseRefused, DatabaseUnavailable, SchemaMismatch


@pytest.fixture
def pool(database_url):
    database = open_pool(database_url, "test", 2)
    yield database
    database.close_all()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT * FROM no_such_table", SchemaMismatch),
        ("SELECT 1/0", DatabaseRefused),
        ("SET TRANSACTION READ ONLY; DELETE FROM job", DatabaseUnavailable),
    ],
)
def test_errors_mean_the_same_through_a_link_and_through_peewee(link, pool, statement, error):
    def through_the_link():
        with link.transaction() as cursor:
            for part in statement.split("; "):
                cursor.execute(part)

    def through_peewee():
        with converted(), pool.atomic():
            for part in statement.split("; "):
                pool.execute_sql(part)

    for way in (through_the_link, through_peewee):
        with pytest.raises(error):
            way()


def test_a_link_by_index_plans_for_a_full_table_while_it_is_empty(database_url):
    wanted = "EXPLAIN SELECT * FROM execution WHERE id = ANY('{1,2,3}'::bigint[]) AND worker_id IS NULL"
    for by_index in (False, True):
        link = Link(database_url, "test", by_index=by_index)
        link.execute("TRUNCATE execution")
        link.execute("VACUUM ANALYZE execution")
        plan = "\n".join(line for (line,) in link.execute(wanted))
        assert ("Seq Scan" in plan) is not by_index, plan
        link.close()


def test_a_link_connects_again_after_its_session_was_ended(link, database_url):
    [(pid,)] = link.execute("SELECT pg_backend_pid()")
    other = Link(database_url, "other")
    other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    other.close()
    with pytest.raises(DatabaseUnavailable):
        link.execute("SELECT 1")
    assert link.execute("SELECT 1") == [(1,)]


def test_a_session_that_dies_inside_a_transaction_says_why(pool, database_url):
    def die() -> None:
        with converted(), pool.atomic():
            pid = pool.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
            other = Link(database_url, "other")
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
            other.close()
            pool.execute_sql("SELECT 1")

    with pytest.raises(DatabaseUnavailable, match="administrator"):
        die()


def test_an_unreachable_server_is_unavailable():
    with pytest.raises(DatabaseUnavailable):
        Link("postgresql://x@127.0.0.1:1/x", "test").execute("SELECT 1")


def test_errors_of_ours_and_of_others_pass_unchanged():
    with pytest.raises(KeyError), converted():
        raise KeyError("x")
    with pytest.raises(DatabaseUnavailable), converted():
        raise peewee.OperationalError("gone")


def test_an_instant_is_read_as_text_as_its_datetime_would_be_shown(pool):
    chance = random.Random(5)
    fractions = ["", ".000001", ".1", ".12", ".123", ".1234", ".12345", ".123456", ".999999"]
    given = ["infinity", "-infinity", "0044-03-15 12:00:00 BC", "12026-03-15 12:00:00.123456+00"]
    given += [
        f"{year:04}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02} {chance.randint(0, 23):02}:59:01{fraction}+00"
        for year in (1, 99, 999, 1969, 2026, 9999)
        for fraction in fractions
    ]
    statement = "SELECT unnest(%s::text[])::timestamptz"
    plain = pool.cursor().execute(statement, (given,)).fetchall()
    cursor = pool.cursor()
    show_instants(cursor)
    shown = cursor.execute(statement, (given,)).fetchall()
    assert [text for (text,) in shown] == [rfc3339(instant) for (instant,) in plain]
    assert shown[0] == ("9999-12-31T23:59:59.999Z",)
    # Where the session's time zone is another, too.
    pool.execute_sql("SET timezone = 'Asia/Kathmandu'")
    cursor = pool.cursor()
    show_instants(cursor)
    assert cursor.execute(statement, (given[-1:],)).fetchall() == shown[-1:]
    pool.execute_sql("RESET timezone")


def test_a_numbered_statement_is_prepared_and_answers_as_one_with_names(link):
    named = "SELECT %(a)s::int + 1, %(b)s::text, %(a)s::int %% 2"
    for _ in range(10):
        assert link.execute(Numbered(named), {"a": 3, "b": "x"}) == link.execute(named, {"a": 3, "b": "x"})
    prepared = link.execute("SELECT statement FROM pg_prepared_statements")
    assert prepared == [("SELECT $1::int + 1, $2::text, $1::int % 2",)]


def _backend(pool: Pool) -> int:
    number: int = pool.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
    return number


def test_the_connection_that_was_used_last_is_used_next_by_whichever_thread(database_url):
    pool = open_pool(database_url, "test", 3, may_keep=True)

    def use(meanwhile=lambda: None):
        with pool.kept():
            meanwhile()
            return _backend(pool)

    with ThreadPoolExecutor(1) as other:
        others = []
        first = use(lambda: others.append(other.submit(use).result()))
        assert others != [first], "one for each at the same time"
        assert other.submit(use).result() == first == use()
        assert pool.is_closed(), "outside of a block nobody has one"
        assert other.submit(pool.is_closed).result()
    assert len(pool._in_use) == 2
    pool.close_all()
    assert use() not in (first, *others), "none is used that was closed meanwhile"
    pool.close_all()


def test_where_there_are_few_connections_none_is_kept_from_others(database_url):
    pool = open_pool(database_url, "test", 1)
    with pool.kept():
        first = _backend(pool)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(_backend, pool).result() == first
        other.submit(pool.close).result()
    pool.close_all()


@pytest.mark.parametrize(
    ("spoil", "fresh"),
    [
        ("ended", True),
        ("ended", False),
        ("closed", True),
        ("spoilt", True),
        ("in a transaction", True),
        ("idle", False),
        ("old", False),
    ],
)
def test_a_kept_connection_is_looked_at_before_it_is_used_again(
    database_url, link, monkeypatch, spoil, fresh
):
    pool = open_pool(database_url, "test", 3, may_keep=True)
    with pool.kept():
        first = _backend(pool)
        session = pool.connection()
        if spoil == "closed":
            session.close()
        elif spoil == "spoilt":
            session.spoilt = True
        elif spoil == "in a transaction":
            session.execute("BEGIN")
    if spoil == "ended":
        link.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    if not fresh:
        monkeypatch.setattr(
            "jobsched.db.session.KEEP" if spoil == "old" else "jobsched.db.session.FRESH", 0.0
        )
    with pool.kept():
        # One that has only been idle for a while goes through the pool, which asks it for a sign of life.
        assert (_backend(pool) == first) is (spoil in ("idle", "old", "in a transaction"))
        assert pool.execute_sql("SELECT 1").fetchone() == (1,)
    assert len(pool._in_use) == 1
    pool.close_all()

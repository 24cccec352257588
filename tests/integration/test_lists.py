"""A list reads a page, not all there is: whatever its filter, and with one plan for all values as for each alone."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from jobsched.db import job_list
from jobsched.db.connection import open_pool
from jobsched.db.executions import Executions
from jobsched.db.jobs import Jobs
from jobsched.db.migrate import migrate
from tests.conftest import with_database

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

MANY = 40_000
PAGE = 20
#: A page and one more row, in up to five tables, from a few walks; and some rows that are read and left out.
FEW = 300

# The first job has run all the time: of its runs one in 1000 failed, and one in two was skipped. The
# oldest runs were made by hand.
_MANY = f"""
INSERT INTO job (id, project_id, schedule, is_recurring, api, tags)
SELECT n, 1, '@daily', true, 'http://127.0.0.1:1/',
    CASE WHEN n <= 30 THEN '{{old}}' WHEN n % 2 = 0 THEN '{{even}}' ELSE '{{}}' END::text[]
FROM generate_series(1, {MANY}) AS n;
INSERT INTO job_schedule (job_id, anchor) SELECT id, now() FROM job;
INSERT INTO job_last (job_id, last_execution_time, last_state)
SELECT id, now(), CASE WHEN id % 50 = 0 THEN 'failed' WHEN id % 3 = 0 THEN 'skipped' ELSE 'succeeded' END FROM job;
INSERT INTO execution_history (id, project_id, job_id, trigger, scheduled_for, finished_at, state, attempt, retry_count,
    max_retry_count, attempts)
SELECT n, 1, CASE WHEN n % 2 = 0 THEN 1 ELSE n END, CASE WHEN n <= 40 THEN 'manual' ELSE 'schedule' END, now(), now(),
    CASE WHEN n % 2000 = 0 THEN 'failed' WHEN n % 4 = 0 THEN 'skipped' ELSE 'succeeded' END, 1, 0, 3, '[]'
FROM generate_series(1, {MANY}) AS n;
INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, error_code, queue,
    payload, failed_at)
SELECT n, 1, CASE WHEN n > 30 THEN 1 ELSE 2 END, 'schedule', now(), 1, 0,
    CASE WHEN n > 25 THEN 'http_status' ELSE 'timeout' END, 'default', 'null', now()
FROM generate_series(1, {MANY}) AS n;
ANALYZE job, job_schedule, job_last, execution_history, dead_letter
"""
_READ = """
SELECT COALESCE(sum(GREATEST(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0)), 0)::int FROM pg_stat_xact_user_tables
"""


_OF_DAYS = f"""
INSERT INTO execution_history (id, project_id, job_id, trigger, scheduled_for, finished_at, state, attempt, retry_count,
    max_retry_count, attempts, error_message)
SELECT n, 1, 1, 'schedule', slot, slot + CASE WHEN n BETWEEN 9000 AND 9009 THEN interval '2 days'
        ELSE interval '1 s' END,
    CASE WHEN n % 40 = 0 THEN 'failed' ELSE 'succeeded' END, 1, 0, 3, '[]', repeat('x', 500)
FROM (SELECT n, now() - ({MANY} - n) * interval '8.64 s' AS slot FROM generate_series(1, {MANY}) AS n) AS s;
VACUUM ANALYZE execution_history
"""


@pytest.fixture(scope="module")
def days_url(postgres_url):
    """A database with 10,000 executions a day; some were over two days late."""
    yield from made(postgres_url, f"days_{os.getpid()}", _OF_DAYS)


@pytest.fixture(scope="module")
def many_url(postgres_url):
    """A database that these tests only read."""
    yield from made(postgres_url, f"many_{os.getpid()}", _MANY)


def made(postgres_url, name, statements):
    url = with_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        migrate(url, history_days=30)
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements.split(";\n"):
                connection.execute(statement)
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pool(many_url):
    pool = open_pool(many_url, "test", 2)
    yield pool
    pool.close_all()


def rows_read(pool, plans, page):
    """How many rows of tables the server looks at for ``page()``, and the ids that it finds.

    ``plans``: one for all values, one for each, or what the server decides after some calls.
    """
    with pool.connection_context(), pool.atomic():
        pool.execute_sql(f"SET LOCAL plan_cache_mode = {plans}")
        for _ in range(8 if plans == "auto" else 0):
            page()
        before = pool.execute_sql(_READ).fetchone()[0]
        found = page()
        after = pool.execute_sql(_READ).fetchone()[0]
    return after - before, [item.id for item in found.items]


@pytest.mark.parametrize("plans", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"job_id": 1}, list(range(MANY, MANY - 2 * PAGE, -2))),
        ({"job_id": 1, "before_id": 2001}, list(range(2000, 2000 - 2 * PAGE, -2))),
        ({"job_id": 1, "states": ["failed"]}, list(range(MANY, 0, -2000))),
        ({"job_id": 1, "states": ["failed", "cancelled"]}, list(range(MANY, 0, -2000))),
        ({"job_id": 3}, [3]),
        ({"job_id": 3, "states": ["failed"]}, []),
        ({"states": ["failed"]}, list(range(MANY, 0, -2000))),
        ({"states": ["running"]}, []),
        ({"before_id": 1000}, list(range(999, 999 - PAGE, -1))),
        ({"trigger": "manual"}, list(range(40, 0, -1))[:PAGE]),
        ({"trigger": "redrive"}, []),
        ({"trigger": "redrive", "job_id": 1}, []),
    ],
)
def test_a_page_of_executions_reads_a_page(pool, plans, filters, expected):
    count, found = rows_read(pool, plans, lambda: Executions(pool).page(1, limit=PAGE, **filters))
    assert found == expected
    assert count < FEW


def test_deep_pages_keep_one_plan_and_leave_the_session_as_it_was(pool):
    settings = "SELECT current_setting('plan_cache_mode'), current_setting('max_parallel_workers_per_gather')"
    with pool.connection_context():
        before = pool.execute_sql(settings).fetchone()
        for last in range(1000, 1012):
            Executions(pool).page(1, limit=PAGE, before_id=last)
        [(kept, anew)] = pool.execute_sql(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements "
            "WHERE statement LIKE '%%execution_history%%'"
        ).fetchall()
        assert (kept, anew) == (12, 0)
        assert pool.execute_sql(settings).fetchone() == before


@pytest.mark.parametrize("plans", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"error_code": "timeout"}, list(range(25, 5, -1))),
        ({"error_code": "dns"}, []),
        ({"job_id": 2}, list(range(30, 10, -1))),
        ({"job_id": 2, "error_code": "timeout", "before_id": 10}, list(range(9, 0, -1))),
        ({"job_id": 3}, []),
    ],
)
def test_a_page_of_dead_letters_reads_a_page(pool, plans, filters, expected):
    count, found = rows_read(pool, plans, lambda: Executions(pool).dead_letters(1, limit=PAGE, **filters))
    assert found == expected
    assert count < FEW


@pytest.mark.parametrize("plans", ["auto", "force_custom_plan"])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"before_id": 1000}, list(range(999, 999 - PAGE, -1))),
        ({"states": ["failed"]}, list(range(MANY, MANY - 50 * PAGE, -50))),
        ({"states": ["failed"], "before_id": 20_000}, list(range(19_950, 19_950 - 50 * PAGE, -50))),
        ({"states": ["failed", "cancelled"]}, list(range(MANY, MANY - 50 * PAGE, -50))),
        ({"states": ["succeeded"]}, [n for n in range(MANY, 0, -1) if n % 50 and n % 3][:PAGE]),
        ({"states": ["cancelled"]}, []),
        ({"tags": ["even"]}, list(range(MANY, MANY - 2 * PAGE, -2))),
        ({"tags": ["nobody"]}, []),
        ({"pool": "nobody"}, []),
    ],
)
def test_a_page_of_jobs_reads_a_page(pool, plans, filters, expected):
    count, found = rows_read(pool, plans, lambda: Jobs(pool).page(1, limit=PAGE, **filters))
    assert found == expected
    assert count < FEW


@pytest.mark.parametrize("spans", [(100, 1000), (1000, 39_990), (MANY, 2 * MANY)])
def test_a_tag_is_found_however_far_back_its_jobs_are(pool, monkeypatch, spans):
    monkeypatch.setattr(job_list, "SPANS", spans)
    jobs = Jobs(pool)

    def ids(limit, **filters):
        found, before = [], None
        while True:
            page = jobs.page(1, limit=limit, before_id=before, **filters)
            found += [job.id for job in page.items]
            before = page.next_before
            if before is None:
                return found

    with pool.connection_context():
        assert ids(7, tags=["old"]) == list(range(30, 0, -1))
        assert ids(7, tags=["old"], states=["skipped"]) == list(range(30, 0, -3))
        assert ids(5000, tags=["old", "even"]) == [*range(MANY, 30, -2), *range(30, 0, -1)]
        assert ids(100, tags=["old", "even"], states=["failed"]) == list(range(MANY, 0, -50))
        assert ids(7, tags=["nobody"]) == []


@pytest.mark.parametrize("plans", ["auto", "force_custom_plan"])
@pytest.mark.parametrize("days", [0.01, 1, 3])
@pytest.mark.parametrize(
    ("states", "span", "most"),
    [
        ([], None, MANY / 5),
        ([], timedelta(days=1), MANY / 5),
        ([], timedelta(minutes=10), MANY / 5),
        (["failed"], None, MANY / 2),
        (["failed", "cancelled"], timedelta(days=2), MANY / 2),
    ],
)
def test_a_page_until_a_past_time_reads_what_is_about_that_time(days_url, plans, days, states, span, most):
    to = datetime.now(UTC) - timedelta(days=days)
    from_ = None if span is None else to - span
    pool = open_pool(days_url, "test", 1)
    read, found = rows_read(
        pool, plans, lambda: Executions(pool).page(1, limit=PAGE, states=states, from_=from_, to=to)
    )
    with pool.connection_context():
        expected = pool.execute_sql(
            "SELECT id FROM execution_history WHERE scheduled_for < %(to)s AND scheduled_for >= %(from)s "
            "AND state = ANY(%(states)s) ORDER BY id DESC LIMIT %(limit)s",
            {
                "to": to,
                "from": from_ or datetime(2000, 1, 1, tzinfo=UTC),
                "states": states or ["succeeded", "failed"],
                "limit": PAGE,
            },
        ).fetchall()
    pool.close_all()
    assert found == [row[0] for row in expected]
    assert read < most


@pytest.fixture
def text_index(many_url):
    """The index of trigrams, by the statements that the documents show."""
    [statements] = re.findall(r"```sql\n(CREATE EXTENSION .*?)```", OPERATIONS.read_text(), re.DOTALL)
    with psycopg.connect(many_url, autocommit=True) as connection:
        if (
            connection.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'").fetchone()
            is None
        ):
            pytest.skip("this Postgres has no pg_trgm")
        for statement in statements.split(";\n"):
            connection.execute(statement)
        yield
        connection.execute("DROP INDEX job_text")
        connection.execute("DROP EXTENSION pg_trgm")


def test_a_search_uses_the_index_that_an_operator_may_make(pool, text_index):
    def page(q, **filters):
        return rows_read(pool, "auto", lambda: Jobs(pool).page(1, limit=PAGE, q=q, **filters))

    read, found = page("customer 77")
    assert (read < FEW, found) == (True, [])
    read, found = page("customer 77", is_active=True, before_id=MANY)
    assert (read < FEW, found) == (True, [])
    # Where all have the text, a walk from the newest down is shorter.
    read, found = page("127.0.0")
    assert (read < FEW, found) == (True, list(range(MANY, MANY - PAGE, -1)))

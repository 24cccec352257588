import threading

import psycopg
import pytest

from jobsched.db import retention
from jobsched.db.connection import Link
from jobsched.db.instance import current_incarnation
from jobsched.db.migrate import check_schema, expected, migrate, migrations_directory
from jobsched.errors import SchemaMismatch
from tests.conftest import with_database


@pytest.fixture
def empty_database_url(postgres_url):
    name = "empty_database"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield with_database(postgres_url, name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_two_migrations_at_once_apply_everything_once(empty_database_url):
    applied = []
    threads = [
        threading.Thread(target=lambda: applied.append(migrate(empty_database_url, 30))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == sorted([[], expected()])
    link = Link(empty_database_url, "test")
    with link.transaction() as cursor:
        check_schema(cursor)
        assert len(current_incarnation(cursor)) == 6
    link.close()


def test_a_database_without_an_encoding_is_migrated_like_any_other(postgres_url):
    name = "ascii_database"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        url = with_database(postgres_url, name)
        assert migrate(url, 30) == expected()
        assert migrate(url, 30) == []
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_migration_that_fails_leaves_nothing_behind(fresh_database_url, tmp_path, monkeypatch):
    for path in migrations_directory().glob("0*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "9999_broken.py").write_text(
        "def up(migrator, db):\n    db.execute_sql('CREATE TABLE half (n int)')\n    raise ValueError('broken')\n"
    )
    monkeypatch.setattr("jobsched.db.migrate.migrations_directory", lambda: tmp_path)
    with pytest.raises(ValueError, match="broken"):
        migrate(fresh_database_url, 30)
    link = Link(fresh_database_url, "test")
    assert link.execute("SELECT to_regclass('half')") == [(None,)]
    assert link.execute("SELECT count(*) FROM schema_migration WHERE name LIKE '9999%'") == [(0,)]
    link.close()


def test_a_second_migration_changes_nothing(fresh_database_url):
    assert migrate(fresh_database_url, 30) == []


def test_code_refuses_an_empty_database_and_says_what_to_run(empty_database_url):
    link = Link(empty_database_url, "test")
    with link.transaction() as cursor, pytest.raises(SchemaMismatch, match="jobsched migrate"):
        check_schema(cursor)
    link.close()


def test_partitions_stand_for_today_and_fourteen_days_ahead_and_old_ones_are_dropped(fresh_database_url):
    link = Link(fresh_database_url, "test")
    names = "SELECT relname FROM pg_class WHERE relname ~ '^execution_history_[0-9]{8}_' AND relkind = 'r'"
    assert len(link.execute(names)) == 15
    link.execute(
        "CREATE TABLE execution_history_20200101_20200102 PARTITION OF execution_history "
        "FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')"
    )
    assert retention.maintain(link, history_days=30) == (0, 1)
    assert len(link.execute(names)) == 15
    assert retention.missing(link, history_days=30) == []
    link.close()


def test_a_reader_of_the_history_postpones_maintenance_and_blocks_nobody(fresh_database_url):
    link, reader = Link(fresh_database_url, "test"), Link(fresh_database_url, "reader")
    link.execute(
        "CREATE TABLE execution_history_20200101_20200102 PARTITION OF execution_history "
        "FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')"
    )
    with reader.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM execution_history")
        assert retention.maintain(link, history_days=30) == (0, 0)
    assert retention.maintain(link, history_days=30) == (0, 1)
    link.close()
    reader.close()


def test_a_new_timeline_makes_a_new_incarnation_once(fresh_database_url):
    link = Link(fresh_database_url, "test")
    with link.transaction() as cursor:
        before = current_incarnation(cursor)
        cursor.execute("UPDATE instance SET timeline = timeline - 1")
        after = current_incarnation(cursor)
        assert after != before
        assert current_incarnation(cursor) == after
    link.close()


def mark_of(cursor):
    cursor.execute("SELECT mark FROM instance")
    return cursor.fetchone()[0]


def test_a_database_made_from_a_copy_gets_a_new_incarnation_once(postgres_url, fresh_database_url):
    """CREATE DATABASE … TEMPLATE copies all that a dump carries, and more; its oid is another."""
    with psycopg.connect(fresh_database_url) as connection:
        before = current_incarnation(connection.cursor())
        assert current_incarnation(connection.cursor()) == before
        assert mark_of(connection.cursor()).count("/") == 2
    name = "restored_database"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {fresh_database_url.rpartition('/')[2]}")
        with psycopg.connect(with_database(postgres_url, name)) as connection:
            connection.execute("UPDATE instance SET epoch = 'e'")
            after = current_incarnation(connection.cursor())
            assert after != before
            assert current_incarnation(connection.cursor()) == after
            assert connection.execute("SELECT epoch FROM instance").fetchone() == (None,)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_was_not_known_before_makes_no_new_incarnation(fresh_database_url):
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        cursor = connection.cursor()
        before, mark = current_incarnation(cursor), mark_of(cursor)
        # As a migration from an older schema leaves it, and as a user writes it who may not know the cluster.
        for known in (None, "?/" + mark.partition("/")[2]):
            cursor.execute("UPDATE instance SET mark = %s, epoch = 'e'", (known,))
            assert current_incarnation(cursor) == before
            assert mark_of(cursor) == mark
        cursor.execute("SELECT epoch FROM instance")
        assert cursor.fetchone() == ("e",)
        cursor.execute(
            "UPDATE instance SET mark = '1/' || split_part(mark, '/', 2) || '/' || split_part(mark, '/', 3)"
        )
        assert current_incarnation(cursor) != before


def test_a_user_that_may_not_know_the_cluster_goes_by_the_rest(postgres_url, fresh_database_url):
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE ROLE modest; GRANT SELECT, UPDATE ON instance TO modest")
        cursor.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        before, mark = current_incarnation(cursor), mark_of(cursor)
        try:
            cursor.execute("SET ROLE modest")
            assert current_incarnation(cursor) == before
            cursor.execute("UPDATE instance SET mark = NULL")
            assert current_incarnation(cursor) == before
            assert mark_of(cursor) == "?/" + mark.partition("/")[2]
            cursor.execute("UPDATE instance SET mark = '?/1/2'")
            assert current_incarnation(cursor) != before
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
            cursor.execute("REVOKE ALL ON instance FROM modest; DROP ROLE modest")


def test_who_put_a_copy_of_the_files_back_can_say_so(fresh_database_url):
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        cursor = connection.cursor()
        before = current_incarnation(cursor)
        assert migrate(fresh_database_url, 30) == []
        assert current_incarnation(cursor) == before
        assert migrate(fresh_database_url, 30, restored=True) == []
        assert current_incarnation(cursor) != before


def test_after_a_restore_no_id_is_given_out_a_second_time(fresh_database_url):
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, queue, "
            "failed_at) VALUES (7000, 1, 1, 'manual', now(), 1, 0, 'default', now())"
        )
        migrate(fresh_database_url, 30, restored=True)
        [(next_id,)] = connection.execute("SELECT nextval('execution_id_seq')").fetchall()
    assert next_id > 7000


def test_indexes_of_lists_that_were_cut_short_are_made_up_for(fresh_database_url):
    names = ("slot", "state", "trigger", "job_state")
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute(
            "DROP INDEX job_tags, job_span, execution_history_trigger, execution_history_job_state"
        )
        connection.execute(
            "CREATE INDEX execution_history_trigger ON ONLY execution_history (project_id, trigger, id) "
            "WHERE trigger <> 'schedule'"
        )
        connection.execute(
            "CREATE INDEX execution_history_job_state ON ONLY execution_history (job_id, state, id) "
            "WHERE state <> 'succeeded'"
        )
        connection.execute("DELETE FROM schema_migration WHERE name IN ('0006_reads', '0007_spans')")
        assert migrate(fresh_database_url, 30) == ["0006_reads", "0007_spans"]
        valid = "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = ANY(%s::regclass[])"
        whole = ["job_tags", "job_span", *(f"execution_history_{name}" for name in names)]
        assert connection.execute(valid, (whole,)).fetchone() == (True,)
        connection.execute(
            "CREATE TABLE day (LIKE execution_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        )
        connection.execute(
            "ALTER TABLE execution_history ATTACH PARTITION day FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')"
        )
        indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'day'::regclass"
        assert connection.execute(indexes).fetchone() == (6,)

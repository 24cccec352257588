"""Schema migrations: Peewee's own runner under an advisory lock of ours.

The runner crashes when two run at once; the session lock makes the second wait and then find nothing to do.
"""

import importlib.resources
from pathlib import Path

import peewee
from playhouse.migrations import Migration, Runner

from jobsched.db import instance, retention, sequences
from jobsched.db.connection import Cursor, Link, converted, session_options
from jobsched.errors import SchemaMismatch

_LOCK = 0x6A6F6273_0001
_TABLE = "schema_migration"


def migrations_directory() -> Path:
    """Where the migrations are: a package of ours, so that wheels ship them."""
    return Path(str(importlib.resources.files("jobsched.migrations")))


def expected() -> list[str]:
    """The names of all migrations that this code knows, oldest first."""
    return [migration.name for migration in Migration.load_directory(str(migrations_directory()))]


def migrate(url: str, history_days: int, *, restored: bool = False) -> list[str]:
    """Bring the schema up to date and make the history's partitions. Returns the names applied.

    ``restored``: this is a copy of an earlier state, so give it another incarnation, and no id a second time.
    Idempotent, and safe when several run at once. Raises DatabaseUnavailable or DatabaseRefused.
    """
    # Another migration may rightly take longer than any statement timeout.
    options = session_options("migrate", statement_timeout=0)
    with converted():
        database = peewee.PostgresqlDatabase(url, prefer_psycopg3=True, **options)
        database.connect()
        try:
            database.execute_sql("SELECT pg_advisory_lock(%s)", (_LOCK,))
            applied: list[str] = Runner(database, str(migrations_directory()), table_name=_TABLE).up()
        finally:
            database.close()
    link = Link(url, "migrate", statement_timeout=60)
    try:
        with link.transaction() as cursor:
            instance.ensure_instance(cursor)
            # Its mark is taken here, so that a backup made before the first worker has one.
            instance.current_incarnation(cursor)
            if restored:
                instance.renew(cursor)
        if restored:
            sequences.put_ahead(link)
        retention.maintain(link, history_days)
    finally:
        link.close()
    return applied


def check_schema(cursor: Cursor) -> None:
    """Raise SchemaMismatch unless every migration this code knows has been applied.

    Migrations that it does not know are welcome: during an upgrade the old processes run on the new schema.
    """
    done = applied_migrations(cursor)
    if missing := [name for name in expected() if name not in done]:
        raise SchemaMismatch(
            f"The database lacks {len(missing)} migration(s), first {missing[0]}. Run `jobsched migrate`."
        )


def applied_migrations(cursor: Cursor) -> set[str]:
    """The names of all migrations that the database has had."""
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (_TABLE,))
    row = cursor.fetchone()
    if not (row and row[0]):
        return set()
    cursor.execute(f"SELECT name FROM {_TABLE}")
    return {name for (name,) in cursor.fetchall()}

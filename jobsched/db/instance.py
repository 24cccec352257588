"""The one row that says which installation this is.

Its incarnation is part of every callback's idempotency key. After an asynchronous failover or a restore,
Postgres gives out ids again that were used before; a target that drops keys it knows must not drop that new
work, so the incarnation is made anew whenever Postgres' timeline has changed.
"""

import secrets

from jobsched.db.connection import Cursor
from jobsched.errors import SchemaMismatch

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# The timeline is the first eight hex digits of the current WAL file's name.
_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"


def new_incarnation() -> str:
    """Six random characters of ``[a-z0-9]``: 31 bits, made a handful of times in an installation's life."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(6))


def ensure_instance(cursor: Cursor) -> None:
    """Write the row at the first migration; later calls change nothing."""
    cursor.execute(
        f"INSERT INTO instance (incarnation, timeline) VALUES (%s, {_TIMELINE}) ON CONFLICT DO NOTHING",
        (new_incarnation(),),
    )


def current_incarnation(cursor: Cursor) -> str:
    """The incarnation; made anew, once for all processes, if Postgres' timeline is not the one last seen."""
    cursor.execute(f"SELECT incarnation, timeline, {_TIMELINE} FROM instance")
    row = cursor.fetchone()
    if row is None:
        raise SchemaMismatch("The database has no instance row. Run `jobsched migrate`.")
    incarnation, seen, timeline = row
    if seen == timeline:
        return str(incarnation)
    cursor.execute(
        "UPDATE instance SET incarnation = %s, timeline = %s, epoch = NULL WHERE timeline = %s",
        (new_incarnation(), timeline, seen),
    )
    cursor.execute("SELECT incarnation FROM instance")
    row = cursor.fetchone()
    assert row is not None
    return str(row[0])


def read_epoch(cursor: Cursor) -> str | None:
    """The epoch that Redis carried when we last filled it."""
    cursor.execute("SELECT epoch FROM instance")
    row = cursor.fetchone()
    return row[0] if row else None


def write_epoch(cursor: Cursor, epoch: str) -> None:
    """Remember the epoch that Redis now carries."""
    cursor.execute("UPDATE instance SET epoch = %s", (epoch,))

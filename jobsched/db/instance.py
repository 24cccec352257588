"""The one row that says which installation this is.

Its incarnation is part of every callback's idempotency key. After an asynchronous failover or a restore,
Postgres gives out ids again that were used before; a target that drops keys it knows must not drop that new
work. So the incarnation is made anew whenever this is not the database that the row was last seen in:

- Postgres' timeline is another: a replica was promoted, or a base backup recovered to a point in time;
- its mark is another. The mark is what a dump cannot carry along: the cluster's system identifier, and the ids
  (oid) that Postgres gave the database and this table. ``pg_restore`` into a new cluster, a new database, or over
  the old tables (``--clean``) changes at least one of them.

A copy of a data folder put back in its place changes neither; ``jobsched migrate --restored`` says so.
"""

import secrets

from jobsched.db.connection import Cursor, Row
from jobsched.errors import SchemaMismatch
from jobsched.log import get_logger

log = get_logger()

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# The timeline is the first eight hex digits of the current WAL file's name.
_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
# Where this user may not know the identifier, the mark makes do without it. A function's permission is checked
# before anything is computed, so no CASE could guard it: the statement itself has to be another.
_MAY_KNOW = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
_CLUSTER = "(SELECT system_identifier FROM pg_control_system())::text"
_UNKNOWN = "?"
_MARK = (
    "{cluster} || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "|| '/' || 'instance'::regclass::oid"
)


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
    """The incarnation; made anew, once for all processes, if this is not the database last seen."""
    cursor.execute(_MAY_KNOW)
    cluster = _CLUSTER if _one(cursor)[0] else f"'{_UNKNOWN}'"
    cursor.execute(
        f"SELECT incarnation, timeline, {_TIMELINE}, mark, {_MARK.format(cluster=cluster)} FROM instance"
    )
    incarnation, seen, timeline, known, mark = _one(cursor)
    same = seen == timeline and _same(known, mark)
    if same and not _tells_more(known, mark):
        return str(incarnation)
    # Whoever reads the same at the same time matches no row, and takes what the first has written.
    cursor.execute(
        "UPDATE instance SET incarnation = %s, timeline = %s, mark = %s, epoch = CASE WHEN %s THEN epoch END "
        "WHERE incarnation = %s AND timeline = %s AND mark IS NOT DISTINCT FROM %s",
        (incarnation if same else new_incarnation(), timeline, mark, same, incarnation, seen, known),
    )
    if not same and cursor.rowcount:
        log.warning(
            "incarnation_renewed", timeline=timeline, timeline_before=seen, mark=mark, mark_before=known
        )
    cursor.execute("SELECT incarnation FROM instance")
    return str(_one(cursor)[0])


def renew(cursor: Cursor) -> str:
    """Make the incarnation anew by hand, and let pollers fill Redis again: what neither timeline nor mark can tell."""
    cursor.execute(
        "UPDATE instance SET incarnation = %s, epoch = NULL RETURNING incarnation", (new_incarnation(),)
    )
    return str(_one(cursor)[0])


def _same(known: str | None, mark: str) -> bool:
    """Whether two marks may be of one database: what either does not know speaks for it."""
    if known is None:
        return True
    (cluster, _, place), (its_cluster, _, its_place) = known.partition("/"), mark.partition("/")
    return place == its_place and (cluster == its_cluster or _UNKNOWN in (cluster, its_cluster))


def _tells_more(known: str | None, mark: str) -> bool:
    """Whether ``mark`` is to take the place of a mark of the same database."""
    return known is None or (known.startswith(_UNKNOWN) and not mark.startswith(_UNKNOWN))


def _one(cursor: Cursor) -> Row:
    row = cursor.fetchone()
    if row is None:
        raise SchemaMismatch("The database has no instance row. Run `jobsched migrate`.")
    return row


def read_epoch(cursor: Cursor) -> str | None:
    """The epoch that Redis carried when we last filled it."""
    cursor.execute("SELECT epoch FROM instance")
    row = cursor.fetchone()
    return row[0] if row else None


def write_epoch(cursor: Cursor, epoch: str) -> None:
    """Remember the epoch that Redis now carries."""
    cursor.execute("UPDATE instance SET epoch = %s", (epoch,))

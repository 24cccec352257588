"""What ``jobsched doctor --fix`` changes in Postgres.

Nothing here can send a call twice or lose one: due times are only brought forward for pollers to judge anew,
rows of the history are moved but never dropped, and messages are pushed again under the ids that they had.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from psycopg import errors as pg
from psycopg import sql

from jobsched.db import retention
from jobsched.db.connection import Cursor, Link
from jobsched.db.notify import CHANNEL
from jobsched.errors import DatabaseUnavailable

#: Rows that one transaction copies at most.
BATCH = 5000

_STAGE = "execution_history_moving"


def move_out_of_default(link: Link, day: date) -> int:
    """Make the partition of ``day`` and move into it what lies in the default partition. Returns how many rows.

    Copied in bounded batches to a table that nobody reads yet; all rows stay where they are read until one short
    transaction takes them out of the default partition and attaches the table. 0 if another process changes
    partitions right now. Raises DatabaseUnavailable if the lock for that transaction cannot be had.
    """
    if not link.execute("SELECT pg_try_advisory_lock(%s)", (retention.LOCK,))[0][0]:
        return 0
    try:
        _prepare(link)
        last = 0
        while (copied := _copy_batch(link, day, last)) is not None:
            last = copied
        return _attach(link, day)
    finally:
        link.execute("SELECT pg_advisory_unlock(%s)", (retention.LOCK,))


def wake_jobs(link: Link) -> int:
    """Let every job that was set aside be tried again now. Returns how many. A slot fires once however often."""
    rows = link.execute(
        "UPDATE job_schedule SET next_execution_time = clock_timestamp() "
        "WHERE fault IS NOT NULL AND next_execution_time > clock_timestamp() RETURNING 1"
    )
    link.execute(f"NOTIFY {CHANNEL}")
    return len(rows)


def wake_executions(link: Link, ids: list[int]) -> int:
    """Let executions that were set aside be looked at again now. Returns how many."""
    rows = link.execute(
        "UPDATE execution SET due_at = clock_timestamp() WHERE id = ANY(%s) AND state = 'pending' "
        "AND due_at > clock_timestamp() RETURNING 1",
        (ids,),
    )
    link.execute(f"NOTIFY {CHANNEL}")
    return len(rows)


def requeue(link: Link, seen: Mapping[int, datetime]) -> list[tuple[str, int]]:
    """Those of ``seen`` (id → queued_at) that are queued still since then; as (queue, id), to be pushed again.

    Their ``queued_at`` becomes now, as their message goes to the end of its list.
    """
    rows = link.execute(
        "UPDATE execution e SET queued_at = clock_timestamp() "
        "FROM unnest(%s::bigint[], %s::timestamptz[]) AS s(id, at) "
        "WHERE e.id = s.id AND e.state = 'queued' AND e.queued_at = s.at RETURNING e.queue, e.id",
        (list(seen), list(seen.values())),
    )
    return sorted(rows, key=lambda row: row[1])


def _prepare(link: Link) -> None:
    """An empty table of the history's shape; one that an earlier try has left goes first."""
    with link.transaction() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {_STAGE}")
        cursor.execute(
            f"CREATE TABLE {_STAGE} (LIKE execution_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS "
            "INCLUDING INDEXES)"
        )


def _copy_batch(link: Link, day: date, after: int) -> int | None:
    """Copy the next rows, by id. Returns the last id; None when there was nothing left."""
    start, end = _bounds(day)
    with link.transaction() as cursor:
        columns = _columns(cursor)
        cursor.execute(
            sql.SQL(
                "WITH page AS (SELECT {columns} FROM execution_history_default WHERE id > %(after)s "
                "AND finished_at >= %(start)s AND finished_at < %(end)s ORDER BY id LIMIT %(limit)s), "
                "copied AS (INSERT INTO {stage} ({columns}) SELECT {columns} FROM page RETURNING id) "
                "SELECT max(id) FROM copied"
            ).format(columns=columns, stage=sql.Identifier(_STAGE)),
            {"after": after, "start": start, "end": end, "limit": BATCH},
        )
        row = cursor.fetchone()
    return row[0] if row else None


def _attach(link: Link, day: date) -> int:
    start, end = _bounds(day)
    bounds = {"start": start, "end": end}
    name = sql.Identifier(retention.name_of(day, day + timedelta(days=1)))
    try:
        with link.transaction() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
            # Whoever ends an execution of that day waits from here on, and then writes into the new partition.
            cursor.execute("LOCK TABLE execution_history_default IN SHARE ROW EXCLUSIVE MODE")
            columns = _columns(cursor)
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {stage} ({columns}) SELECT {columns} FROM execution_history_default d "
                    "WHERE finished_at >= %(start)s AND finished_at < %(end)s AND NOT EXISTS ("
                    "SELECT FROM {stage} m WHERE m.id = d.id AND m.finished_at = d.finished_at)"
                ).format(columns=columns, stage=sql.Identifier(_STAGE)),
                bounds,
            )
            cursor.execute(
                "DELETE FROM execution_history_default WHERE finished_at >= %(start)s AND finished_at < %(end)s",
                bounds,
            )
            moved = cursor.rowcount
            cursor.execute(
                sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(_STAGE), name),
            )
            cursor.execute(
                sql.SQL(
                    "ALTER TABLE execution_history ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})"
                ).format(name, sql.Literal(start), sql.Literal(end))
            )
    except DatabaseUnavailable as error:
        if isinstance(error.__cause__, pg.LockNotAvailable):
            raise DatabaseUnavailable(
                "Something reads or writes the default partition all the time; try again later."
            ) from error
        raise
    return moved


def _columns(cursor: Cursor) -> sql.Composed:
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'execution_history'::regclass "
        "AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return sql.SQL(", ").join(sql.Identifier(name) for (name,) in cursor.fetchall())


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)

"""Partitions of the history: made ahead, dropped when they are old.

One partition a day of ``finished_at`` (a week above 60 days of history, so that their number stays small).
A new one is built beside the table and attached, which blocks nobody; all of it runs with a lock timeout of
200 ms and is given up and tried again later, since a reader of an hour must not stop the finishers.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial

from psycopg import errors as pg
from psycopg import sql

from jobsched.db.connection import Cursor, Link
from jobsched.log import get_logger

DAYS_AHEAD = 14
LOCK = 0x6A6F6273_0002
"""Advisory lock: one process at a time changes partitions."""
_NAME = re.compile(r"execution_history_(\d{8})_(\d{8})")

log = get_logger()


def maintain(link: Link, history_days: int) -> tuple[int, int]:
    """Make what is missing up to 14 days ahead and drop what ended ``history_days`` ago or more.

    Returns how many partitions were made and dropped; (0, 0) too if another process is at it right now or a
    lock could not be had in time.
    """
    made = dropped = 0
    with link.transaction() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s), current_date", (LOCK,))
        row = cursor.fetchone()
        assert row is not None
        if not row[0]:
            return 0, 0
        today: date = row[1]
        existing = _existing(cursor)
        for start, end in _wanted(today, history_days, existing):
            made += _attempt(cursor, partial(_create, cursor, start, end), start)
        for name, _start, end in existing:
            if end <= today - timedelta(days=history_days):
                dropped += _attempt(cursor, partial(_drop, cursor, name), name)
    if made or dropped:
        log.info("partitions_maintained", made=made, dropped=dropped)
    return made, dropped


def missing(link: Link, history_days: int) -> list[date]:
    """The first days of the partitions that are wanted from today to 14 days ahead and do not exist."""
    with link.transaction() as cursor:
        cursor.execute("SELECT current_date")
        row = cursor.fetchone()
        assert row is not None
        return [start for start, _end in _wanted(row[0], history_days, _existing(cursor))]


def name_of(start: date, end: date) -> str:
    """The name of the partition from ``start`` to before ``end``."""
    return f"execution_history_{start:%Y%m%d}_{end:%Y%m%d}"


def _existing(cursor: Cursor) -> list[tuple[str, date, date]]:
    cursor.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'execution_history'::regclass"
    )
    found = []
    for (name,) in cursor.fetchall():
        if match := _NAME.fullmatch(name):
            start, end = (
                datetime.strptime(part, "%Y%m%d").replace(tzinfo=UTC).date() for part in match.groups()
            )
            found.append((name, start, end))
    return sorted(found, key=lambda part: part[1])


def _wanted(
    today: date, history_days: int, existing: list[tuple[str, date, date]]
) -> list[tuple[date, date]]:
    """The day or week ranges that are missing from today to 14 days ahead."""
    step = 7 if history_days > 60 else 1
    covered = {start + timedelta(days=n) for _name, start, end in existing for n in range((end - start).days)}
    ranges = []
    day = today
    while day <= today + timedelta(days=DAYS_AHEAD):
        if day in covered:
            day += timedelta(days=1)
            continue
        end = day + timedelta(days=1)
        while (end - day).days < step and end not in covered:
            end += timedelta(days=1)
        ranges.append((day, end))
        day = end
    return ranges


def _attempt(cursor: Cursor, action: Callable[[], None], what: object) -> int:
    try:
        with cursor.connection.transaction():
            cursor.execute("SET LOCAL lock_timeout = '200ms'")
            action()
    except (pg.LockNotAvailable, pg.CheckViolation, pg.InvalidObjectDefinition) as error:
        log.warning("partition_postponed", partition=str(what), reason=" ".join(str(error).split()))
        return 0
    return 1


def _create(cursor: Cursor, start: date, end: date) -> None:
    name = sql.Identifier(name_of(start, end))
    cursor.execute(
        sql.SQL("CREATE TABLE {} (LIKE execution_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(
            name
        )
    )
    cursor.execute(
        sql.SQL("ALTER TABLE execution_history ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            name,
            sql.Literal(datetime(start.year, start.month, start.day, tzinfo=UTC)),
            sql.Literal(datetime(end.year, end.month, end.day, tzinfo=UTC)),
        )
    )


def _drop(cursor: Cursor, name: str) -> None:
    cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))

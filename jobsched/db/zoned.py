"""What a poller reads and moves when the rules of time zones are others than before.

Rows are read without a lock; only what is to move is locked, and read again: an edit or a firing that came between
has computed by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobsched.db.connection import Cursor, Link
from jobsched.domain.zone_rules import ZonedGroup, ZonedJob

# What is due already stays as it is, and so does a paused job. UTC is left out for speed only.
_IS_TO_COME = """s.next_slot > clock_timestamp() AND s.next_execution_time > clock_timestamp()
  AND j.is_active AND j.deleted_at IS NULL AND j.timezone <> 'UTC'"""

_TO_COME = f"""
SELECT s.job_id, s.next_slot, s.last_slot, s.runs, s.anchor, j.schedule, j.timezone, j.start_at, j.end_at,
    j.jitter_seconds, j.updated_at
FROM job_schedule s JOIN job j ON j.id = s.job_id
WHERE s.job_id = ANY(%s) AND {_IS_TO_COME}
"""

_PAGE_END = """
SELECT max(job_id) FROM (
    SELECT job_id FROM job_schedule WHERE job_id > %(after)s ORDER BY job_id LIMIT %(limit)s) AS page
"""

# What Python has no date for, and what counts from after its slot, is no group's: only as a row of its own is it
# judged, or refused, without its neighbours.
_GROUPS = f"""
SELECT plain, CASE WHEN plain THEN schedule END, CASE WHEN plain THEN timezone END, CASE WHEN plain THEN next_slot END,
    CASE WHEN plain THEN start_at END, CASE WHEN plain THEN end_at END, CASE WHEN plain THEN min(counted) END,
    array_agg(job_id)
FROM (
    SELECT *, counted > '0001-01-03' AND counted < next_slot AND next_slot < '9999-12-01'
        AND COALESCE(start_at, next_slot) BETWEEN '0001-01-03' AND '9999-12-01'
        AND COALESCE(end_at, next_slot) BETWEEN '0001-01-03' AND '9999-12-01' AS plain
    FROM (
        SELECT s.job_id, j.schedule, j.timezone, s.next_slot, j.start_at, j.end_at,
            GREATEST(s.last_slot, j.updated_at, CASE WHEN j.start_at IS NULL THEN s.anchor END) AS counted
        FROM job_schedule s JOIN job j ON j.id = s.job_id
        WHERE s.job_id > %(after)s AND s.job_id <= %(end)s AND j.id > %(after)s AND j.id <= %(end)s AND {_IS_TO_COME}
    ) AS s
) AS s
GROUP BY plain, 2, 3, 4, 5, 6
"""

_LOCK = "SELECT job_id FROM job_schedule WHERE job_id = ANY(%s) ORDER BY job_id FOR UPDATE SKIP LOCKED"


@dataclass(frozen=True, slots=True)
class GroupedPage:
    """Schedules with ids up to ``end`` that are to come: what groups can be made of, and the jobs in none."""

    end: int
    groups: list[ZonedGroup]
    single: list[int]


def claim_turn(link: Link, lock: int) -> bool:
    """Whether this session may compute slots; it keeps the right until ``link`` is closed."""
    return bool(link.execute("SELECT pg_try_advisory_lock(%s)", (lock,))[0][0])


def applied_rules(link: Link) -> str | None:
    """By which rules all slots were computed last; None if that is not known."""
    rows = link.execute("SELECT zone_rules FROM instance")
    return rows[0][0] if rows else None


def remember_rules(link: Link, rules: str, applied: str | None) -> None:
    """Take note of ``rules``, unless others than ``applied`` were noted meanwhile."""
    link.execute(
        "UPDATE instance SET zone_rules = %s WHERE zone_rules IS NOT DISTINCT FROM %s", (rules, applied)
    )


def page_after(link: Link, job_id: int, limit: int) -> GroupedPage | None:
    """The next schedules by the ids of their jobs, ``limit`` at most; None behind the last one.

    Of them those that are active, not in UTC, and due in the future only.
    """
    [(end,)] = link.execute(_PAGE_END, {"after": job_id, "limit": limit})
    if end is None:
        return None
    groups: list[ZonedGroup] = []
    single: list[int] = []
    for plain, *group in link.execute(_GROUPS, {"after": job_id, "end": end}):
        if plain:
            groups.append(ZonedGroup(*group))
        else:
            single += group[-1]
    return GroupedPage(end, groups, single)


def to_come(cursor: Cursor, jobs: Sequence[int]) -> list[ZonedJob]:
    """Those of ``jobs`` that are active, not in UTC, and due in the future only."""
    cursor.execute(_TO_COME, (list(jobs),))
    return [ZonedJob(*row) for row in cursor.fetchall()]


def lock(cursor: Cursor, jobs: Sequence[int]) -> list[int]:
    """Lock the schedules of ``jobs`` as firing does; those that somebody else holds are left out."""
    cursor.execute(_LOCK, (list(jobs),))
    return [row[0] for row in cursor.fetchall()]

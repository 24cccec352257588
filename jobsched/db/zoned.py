"""What a poller reads and moves when the rules of time zones are others than before.

Rows are read without a lock; only what is to move is locked, and read again: an edit or a firing that came between
has computed by itself.
"""

from collections.abc import Sequence

from jobsched.db.connection import Cursor, Link
from jobsched.domain.zone_rules import ZonedJob

# What is due already stays as it is, and so does a paused job. UTC is left out for speed only.
_TO_COME = """
SELECT s.job_id, s.next_slot, s.last_slot, s.runs, s.anchor, j.schedule, j.timezone, j.start_at, j.end_at,
    j.jitter_seconds, j.updated_at
FROM job_schedule s JOIN job j ON j.id = s.job_id
WHERE s.job_id = ANY(%s) AND s.next_slot > clock_timestamp() AND s.next_execution_time > clock_timestamp()
  AND j.is_active AND j.deleted_at IS NULL AND j.timezone <> 'UTC'
"""

_LOCK = "SELECT job_id FROM job_schedule WHERE job_id = ANY(%s) ORDER BY job_id FOR UPDATE SKIP LOCKED"


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


def schedules_after(link: Link, job_id: int, limit: int) -> list[int]:
    """The next ids of jobs with a schedule row, in order."""
    rows = link.execute(
        "SELECT job_id FROM job_schedule WHERE job_id > %s ORDER BY job_id LIMIT %s", (job_id, limit)
    )
    return [row[0] for row in rows]


def to_come(cursor: Cursor, jobs: Sequence[int]) -> list[ZonedJob]:
    """Those of ``jobs`` that are active, not in UTC, and due in the future only."""
    cursor.execute(_TO_COME, (list(jobs),))
    return [ZonedJob(*row) for row in cursor.fetchall()]


def lock(cursor: Cursor, jobs: Sequence[int]) -> list[int]:
    """Lock the schedules of ``jobs`` as firing does; those that somebody else holds are left out."""
    cursor.execute(_LOCK, (list(jobs),))
    return [row[0] for row in cursor.fetchall()]

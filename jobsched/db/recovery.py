"""The moves a poller makes when something went wrong: lost workers, lost messages.

Every statement is bounded and repeats its condition inside the UPDATE or DELETE, so that an execution which
got an owner meanwhile is left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobsched.db.claims import HISTORY_COLUMNS, UNBLOCK, in_halves
from jobsched.db.connection import Link, Row
from jobsched.db.numbered import Numbered
from jobsched.domain.retry import POISON_LOSSES
from jobsched.errors import DatabaseRefused

#: A message counts as lost when its row is this much older, in seconds, than the head of its list.
LOST_AFTER = 15.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """One execution that was taken from its worker.

    ``state``: where it went: retrying, failed or cancelled; ``worker``: the name of the one that had it, None
    where not even its row is left; ``overdue``: taken for its deadline, from a worker that lives.
    """

    id: int
    state: str
    worker: str | None
    overdue: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of one page of lost executions.

    ``refused``: those that Postgres would not let us take, with its reason; ``up_to``: where the next page begins,
    0 when the last one was seen.
    """

    recovered: list[Recovered]
    refused: list[tuple[int, str]]
    up_to: int


@dataclass(frozen=True, slots=True)
class PastDeadline:
    """A running execution past its deadline by the database's clock; ``allowed``: the seconds it had been given."""

    id: int
    attempt: int
    allowed: float


# Whose worker is dead or unknown, and what the caller knows to be overdue. The oldest first, so that a large
# loss is worked off in order.
_LOST = """
SELECT e.id FROM execution e LEFT JOIN worker_process w ON w.id = e.worker_id
WHERE e.state = 'running'
  AND (w.id IS NULL OR w.state = 'dead' OR e.id = ANY(%(overdue)s) AND e.deadline_at < clock_timestamp())
  AND e.id > %(after)s AND (%(only)s::bigint[] IS NULL OR e.id = ANY(%(only)s))
ORDER BY e.id LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED
"""

_PAST_DEADLINE = """
SELECT id, attempt, COALESCE(extract(epoch FROM deadline_at - started_at), 0)::float8
FROM execution WHERE state = 'running' AND deadline_at < clock_timestamp() ORDER BY id LIMIT 10000
"""

_RECOVER = Numbered(f"""
WITH lost AS MATERIALIZED ({_LOST}), verdict AS (
    SELECT e.id, e.worker_id, e.attempt, w.name AS worker, w.state = 'alive' AS overdue,
        CASE WHEN e.cancel_requested_at IS NOT NULL THEN 'cancelled'
             WHEN e.type = 'AT_MOST_ONCE' THEN 'failed'
             WHEN e.lost + 1 >= {POISON_LOSSES} OR j.id IS NULL OR j.deleted_at IS NOT NULL THEN 'failed'
             ELSE 'retrying' END AS state,
        CASE WHEN e.cancel_requested_at IS NOT NULL THEN 'cancelled'
             WHEN e.type <> 'AT_MOST_ONCE' AND e.lost + 1 >= {POISON_LOSSES} THEN 'poison'
             ELSE 'worker_lost' END AS code,
        CASE WHEN e.cancel_requested_at IS NOT NULL THEN 'Cancelled; its worker was lost meanwhile.'
             WHEN e.type <> 'AT_MOST_ONCE' AND e.lost + 1 >= {POISON_LOSSES}
             THEN 'Three workers were lost while they ran this execution.'
             ELSE 'The worker that ran this attempt was lost; whether the target was called is unknown.'
        END AS message,
        COALESCE(j.max_retry_count, 0) AS max_retry_count, j.payload AS job_payload
    FROM lost JOIN execution e USING (id) LEFT JOIN job j ON j.id = e.job_id
    LEFT JOIN worker_process w ON w.id = e.worker_id
), retried AS (
    UPDATE execution e SET
        state = 'retrying', worker_id = NULL, started_at = NULL, deadline_at = NULL,
        due_at = clock_timestamp(), lost = e.lost + 1,
        attempts = e.attempts || jsonb_build_array(jsonb_build_object(
            'attempt', e.attempt, 'startedAt', e.started_at, 'finishedAt', clock_timestamp(),
            'responseStatus', NULL, 'errorCode', v.code, 'errorMessage', v.message, 'phases', NULL,
            'worker', v.worker))
    FROM verdict v
    WHERE v.state = 'retrying' AND e.id = v.id AND e.attempt = v.attempt AND e.worker_id = v.worker_id
      AND e.state = 'running'
    RETURNING e.id, v.worker, v.overdue
), gone AS (
    DELETE FROM execution e USING verdict v
    WHERE v.state <> 'retrying' AND e.id = v.id AND e.attempt = v.attempt AND e.worker_id = v.worker_id
      AND e.state = 'running'
    RETURNING e.*, v.state AS final, v.code, v.message, v.worker, v.overdue, v.max_retry_count,
        COALESCE(e.payload, v.job_payload) AS sent, clock_timestamp() AS finished_at
), history AS (
    INSERT INTO execution_history ({HISTORY_COLUMNS})
    SELECT id, project_id, job_id, trigger, scheduled_for, due_at, queued_at, started_at, finished_at, final,
        attempt, retry_count, max_retry_count, NULL, worker, NULL, NULL, NULL, false, code, message, NULL,
        attempts, job_version, redrive_of
    FROM gone
), dead AS (
    INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, payload, attempt, retry_count,
        response_status, error_code, error_message, last_attempt, queue, failed_at)
    SELECT id, project_id, job_id, trigger, scheduled_for, sent, attempt, retry_count, NULL, code, message,
        jsonb_build_object('attempt', attempt, 'startedAt', started_at, 'finishedAt', finished_at,
            'responseStatus', NULL, 'errorCode', code, 'errorMessage', message, 'phases', NULL,
            'worker', worker),
        queue, finished_at
    FROM gone WHERE final = 'failed'
), redriven AS (
    UPDATE redrive r SET failed = r.failed + f.count
    FROM (SELECT redrive_id, count(*) FROM gone WHERE final = 'failed' GROUP BY 1) AS f
    WHERE r.id = f.redrive_id
), last AS (
    INSERT INTO job_last (job_id, last_execution_time, last_state)
    SELECT DISTINCT ON (job_id) job_id, COALESCE(started_at, finished_at) AS at, final
    FROM gone ORDER BY job_id, at DESC
    ON CONFLICT (job_id) DO UPDATE SET
        last_execution_time = excluded.last_execution_time, last_state = excluded.last_state
    WHERE job_last.last_execution_time <= excluded.last_execution_time OR job_last.last_state = 'skipped'
), {UNBLOCK}
SELECT id, 'retrying', worker, COALESCE(overdue, false) FROM retried
UNION ALL SELECT id, final, worker, COALESCE(overdue, false) FROM gone
""")

# The end of an execution lets go whom it blocks by itself, except where both happened in the same instant.
_BLOCKED_PAGE = """
SELECT id, job_id FROM execution WHERE state = 'blocked' AND job_id > %(after)s ORDER BY job_id LIMIT %(limit)s
"""
_BLOCKED_OF = "SELECT id, job_id FROM execution WHERE state = 'blocked' AND job_id = ANY(%(jobs)s)"

# The ids as values, not as a join: so the planner knows which of the jobs have many executions and which have few.
_OCCUPIED = """
SELECT DISTINCT job_id FROM execution WHERE job_id = ANY(%(jobs)s) AND state IN ('queued', 'running', 'retrying')
"""
_BLOCKING = "SELECT id FROM job WHERE id = ANY(%(jobs)s) AND overlap_policy = 'queue'"

_UNBLOCK = """
UPDATE execution SET state = 'pending'
WHERE (state = 'blocked') IS TRUE AND id = ANY(ARRAY(
    SELECT id FROM execution WHERE id = ANY(%(ids)s) AND (state = 'blocked') IS TRUE FOR UPDATE SKIP LOCKED))
RETURNING id
"""

_QUEUED_QUEUES = """
WITH RECURSIVE q AS (
    (SELECT queue FROM execution WHERE state = 'queued' ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT e.queue FROM execution e WHERE e.state = 'queued' AND e.queue > q.queue
            ORDER BY e.queue LIMIT 1)
    FROM q WHERE q.queue IS NOT NULL
) SELECT queue FROM q WHERE queue IS NOT NULL
"""

# Lists are first in, first out by queued_at: a row much older than the head of its list is no longer in it.
# No answer if the head was taken meanwhile: what stands behind it is not lost.
_LOST_BEFORE = f"""
SELECT h.at - make_interval(secs => {LOST_AFTER}), h.at
FROM (SELECT clock_timestamp() AS at WHERE %(head)s::bigint IS NULL
      UNION ALL SELECT queued_at FROM execution WHERE id = %(head)s AND state = 'queued') AS h
"""

# ARRAY(…) is computed once, whatever the planner believes about the table. A clock that was set back leaves rows
# of a time to come: behind an empty list they are lost as well; and a row never becomes older than its head, or
# it would be pushed again every time.
_REQUEUE_LOST = """
UPDATE execution e SET queued_at = GREATEST(clock_timestamp(), %(head_at)s)
WHERE e.state = 'queued' AND e.id = ANY(ARRAY(
    SELECT id FROM execution
    WHERE state = 'queued' AND queue = %(queue)s AND queued_at < %(before)s
    ORDER BY queued_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING e.id
"""
_REQUEUE_OF_TIMES_TO_COME = f"""
UPDATE execution e SET queued_at = clock_timestamp()
WHERE e.state = 'queued' AND e.id = ANY(ARRAY(
    SELECT id FROM execution
    WHERE state = 'queued' AND queue = %(queue)s
      AND queued_at > statement_timestamp() + make_interval(secs => {LOST_AFTER})
    ORDER BY queued_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING e.id
"""


def past_deadline(link: Link) -> list[PastDeadline]:
    """What runs longer than its claim foresaw, by the database's clock, which may have been set forward."""
    return [PastDeadline(*row) for row in link.execute(_PAST_DEADLINE)]


def recover_lost(link: Link, overdue: Sequence[int] = (), limit: int = 500, after: int = 0) -> Recovery:
    """Take executions from dead workers, and ``overdue`` ones from whoever has them; ``limit`` ids above ``after``.

    They are retried at once, or final where that is due: a loss spends no retry, but the third is final
    (poison); at most once is never repeated. A row that Postgres refuses is left as it is, and its neighbours
    are recovered without it. It is still lost afterwards: whoever goes on must do so behind it.
    """
    parameters = {"limit": limit, "after": after, "overdue": list(overdue), "only": None}
    refused: list[tuple[int, str]] = []
    try:
        recovered = [Recovered(*row) for row in link.execute(_RECOVER, parameters)]
        ids = [one.id for one in recovered]
    except DatabaseRefused:
        ids, recovered = _recover_in_halves(link, parameters, refused)
    return Recovery(recovered, refused, max(ids) if len(ids) >= limit else 0)


def _recover_in_halves(
    link: Link, parameters: dict[str, Any], refused: list[tuple[int, str]]
) -> tuple[list[int], list[Recovered]]:
    """The ids that were looked at, and what was recovered of them."""
    done: list[Recovered] = []

    def act(ids: Sequence[int]) -> None:
        done.extend(Recovered(*row) for row in link.execute(_RECOVER, parameters | {"only": list(ids)}))

    def refuse(execution: int, error: DatabaseRefused) -> None:
        refused.append((execution, str(error)))

    with link.transaction() as cursor:  # its row locks are not kept
        cursor.execute(_LOST, parameters)
        ids = [row[0] for row in cursor.fetchall()]
    if ids:
        in_halves(act, ids, refuse)
    return ids, done


def unblock(link: Link, after: int = 0, limit: int = 10_000) -> tuple[int, int]:
    """Let blocked executions go whose job is free; looks at ``limit`` of them, of jobs with ids above ``after``.

    Returns how many, and where the next call is to begin: 0 when the last one was seen.
    """
    page = link.execute(_BLOCKED_PAGE, {"after": after, "limit": limit})
    return _unblock(link, page), page[-1][1] if len(page) == limit else 0


def unblock_of(link: Link, jobs: Sequence[int]) -> int:
    """Let blocked executions of ``jobs`` go where the job is free. Returns how many.

    For whoever has blocked them, once that is committed: what occupied the job may have ended meanwhile.
    """
    return _unblock(link, link.execute(_BLOCKED_OF, {"jobs": list(jobs)}))


def _unblock(link: Link, blocked: Sequence[Row]) -> int:
    """Let those of ``blocked`` (id, job) go whose job is free, or does not block any more."""
    if not blocked:
        return 0
    jobs = {"jobs": [job for _id, job in blocked]}
    blocking = set(link.execute(_OCCUPIED, jobs)) & set(link.execute(_BLOCKING, jobs))
    free = [i for i, job in blocked if (job,) not in blocking]
    return len(link.execute(_UNBLOCK, {"ids": free})) if free else 0


def queued_queues(link: Link) -> list[str]:
    """The queues in which something is queued."""
    return [row[0] for row in link.execute(_QUEUED_QUEUES)]


def stale_heads(link: Link, heads: Mapping[str, int | None]) -> dict[str, int]:
    """Those heads of lists that are not queued: leftovers of moves that overtook their message."""
    ids = [head for head in heads.values() if head is not None]
    queued = {
        row[0]
        for row in link.execute("SELECT id FROM execution WHERE id = ANY(%s) AND state = 'queued'", (ids,))
    }
    return {queue: head for queue, head in heads.items() if head is not None and head not in queued}


def requeue_lost(link: Link, queue: str, head: int | None, limit: int = 1000) -> list[int]:
    """Give a new ``queued_at`` to rows whose message is lost, and return them to be pushed again.

    ``head`` is the id at the head of the queue's list, None if the list is empty.
    """
    found = link.execute(_LOST_BEFORE, {"head": head})
    if not found:
        return []
    parameters = {"queue": queue, "before": found[0][0], "head_at": found[0][1], "limit": limit}
    rows = link.execute(_REQUEUE_LOST, parameters)
    if head is None:
        rows += link.execute(_REQUEUE_OF_TIMES_TO_COME, parameters)
    return sorted(row[0] for row in rows)


def queued_after(link: Link, queue: str, after: tuple[str, int] | None, limit: int) -> list[tuple[str, int]]:
    """A page of a queue's queued rows, oldest first, as (queued_at as text, id); ``after`` is the last seen."""
    rows = link.execute(
        "SELECT queued_at::text, id FROM execution WHERE state = 'queued' AND queue = %(queue)s "
        "AND (%(at)s::timestamptz IS NULL OR (queued_at, id) > (%(at)s::timestamptz, %(id)s)) "
        "ORDER BY queued_at, id LIMIT %(limit)s",
        {"queue": queue, "at": after and after[0], "id": after and after[1], "limit": limit},
    )
    return [(at, i) for at, i in rows]

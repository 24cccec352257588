"""Every move of an execution that a worker makes: claim, finish, hand back.

Each move is one statement, fenced by what its maker knows (id, attempt, worker, state). Zero rows mean that
somebody else owns the execution now, which is an answer and not an error.

``attempts`` holds the attempts that ended before the present one; the present one stands in the row's own
columns. Writing only what is new keeps the common case, a first attempt that succeeds, free of JSON work.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import Format

from jobsched.db.arrays import bigints
from jobsched.db.connection import Link, Row, convert
from jobsched.db.ended import Ended, as_arrays
from jobsched.db.notify import CHANNEL
from jobsched.db.numbered import Numbered
from jobsched.domain.outcome import Policy
from jobsched.domain.retry import RetryPolicy
from jobsched.errors import DatabaseRefused

T = TypeVar("T")

#: Seconds that a worker may need beyond a call's timeout to record it. A row past its deadline is taken for
#: lost even though its worker lives, so this must outlast an outage of the database.
RECORDING_MARGIN = 120.0

#: Seconds that a call may take at most, as the API has it.
LONGEST_TIMEOUT = 1800.0


class Claimed(NamedTuple):
    """A claimed execution with its job as it is now. Times in seconds.

    ``waited``: since it was due, by the database's clock; None where that is no time at all.
    """

    id: int
    project_id: int
    job_id: int
    attempt: int
    retry_count: int
    trigger: str
    queue: str
    scheduled_for: datetime
    payload: str | None
    api: str
    method: str
    waited: float | None
    headers: dict[str, str]
    timeout_seconds: float
    follow_redirects: bool
    policy: Policy

    @property
    def at_most_once(self) -> bool:
        """Whether an attempt whose end is unknown is never repeated."""
        return self.policy.at_most_once


class Recorded(NamedTuple):
    """Where an execution is after its attempt was recorded.

    ``due_in``: seconds until its retry; 0 where its end lets another execution go.
    """

    id: int
    state: str
    due_in: float | None = None


# What no API lets in (a timeout of NaN, a slot at infinity, headers that Python cannot read) must not fail the
# statement or, worse, its answer: the rows would be running by then. Such a job ends as invalid_job later.
#
# Rows are locked in order of ids, as a delete of their job locks them: the two never deadlock. IS TRUE keeps the
# planner from the index on what is queued, which it would read from end to end for the ids in it where its
# statistics know of nothing queued.
_CLAIM = f"""
WITH mine AS MATERIALIZED (
    SELECT id FROM execution
    WHERE id = ANY(%(ids)s) AND (state = 'queued') IS TRUE AND cancel_requested_at IS NULL ORDER BY id FOR UPDATE
)
UPDATE execution e SET
    state = 'running', attempt = e.attempt + 1, worker_id = %(worker)s,
    started_at = clock_timestamp(),
    deadline_at = clock_timestamp()
        + make_interval(secs => LEAST(GREATEST(j.timeout_seconds, 0), {LONGEST_TIMEOUT}) + {RECORDING_MARGIN}),
    type = j.type, job_version = j.version
FROM job j
WHERE e.id = ANY(ARRAY(SELECT id FROM mine)) AND j.id = e.job_id AND j.deleted_at IS NULL
RETURNING e.id, e.project_id, e.job_id, e.attempt, e.retry_count, e.trigger, e.queue,
    CASE WHEN e.scheduled_for > '0001-01-02' AND e.scheduled_for < '9999-12-31' THEN e.scheduled_for END,
    COALESCE(e.payload, j.payload)::text, j.api, j.method,
    CASE WHEN isfinite(e.due_at) THEN date_part('epoch', e.started_at - e.due_at) END,
    j.headers::text,
    concat_ws(' ', j.timeout_seconds, j.follow_redirects, j.type = 'AT_MOST_ONCE', j.max_retry_count,
        j.min_backoff_seconds, j.max_backoff_seconds, j.backoff_factor, j.backoff_jitter),
    j.success_status::text, j.no_retry_status::text
"""

#: Where the last four above begin, which go through a cache.
_OF_JOB = 12

#: Characters up to which a job's headers are remembered.
_SHORT = 1024

# The columns of a history row that an execution brings along, in the order of HISTORY_COLUMNS.
HISTORY_COLUMNS = """id, project_id, job_id, trigger, scheduled_for, due_at, queued_at, started_at,
    finished_at, state, attempt, retry_count, max_retry_count, duration_ms, worker, response_status,
    response_headers, response_body, response_truncated, error_code, error_message, phases, attempts,
    job_version, redrive_of"""

# The end of an execution lets go the one that its job's overlap policy has blocked. Nobody waits for a lock here:
# whom this misses, a poller finds (recovery.unblock). IS TRUE as above: else every finish reads all that is blocked.
UNBLOCK = """unblocked AS (
    UPDATE execution b SET state = 'pending'
    WHERE (b.state = 'blocked') IS TRUE AND b.id = ANY(ARRAY(
        SELECT w.id FROM (SELECT DISTINCT job_id FROM gone) AS g, LATERAL (
            SELECT id FROM execution
            WHERE state = 'blocked' AND job_id = g.job_id AND id NOT IN (SELECT id FROM gone)
            LIMIT 1 FOR UPDATE SKIP LOCKED
        ) AS w))
    RETURNING b.job_id
)"""

# Rows are looked for by their ids, however many calls are in flight. IS TRUE as above: the index of what runs would
# have every finish read all of it. Nothing here compares each outcome with each row: the planner, who cannot know how
# few rows there are to an outcome, hashes where a condition is as dear as the one on the job.
_OWN = """e.id = ANY(%(ids)s) AND e.id = o.id AND e.attempt = o.attempt AND e.worker_id = %(worker)s
      AND (e.state = 'running') IS TRUE"""

# Where nothing is to be retried, this ends at its first condition.
_RETRIED = f""", retried AS (
    UPDATE execution e SET
        state = 'retrying', worker_id = NULL, started_at = NULL, deadline_at = NULL,
        due_at = clock_timestamp() + make_interval(secs => COALESCE(o.delay, 0) - o.age),
        retry_count = e.retry_count + COALESCE(o.spends, false)::int,
        payload = COALESCE(e.payload, o.sent::json, 'null'::json),
        attempts = e.attempts || jsonb_build_array(jsonb_build_object(
            'attempt', e.attempt, 'startedAt', e.started_at,
            'finishedAt', clock_timestamp() - make_interval(secs => o.age),
            'responseStatus', o.status, 'errorCode', o.error_code, 'errorMessage', o.error_message,
            'phases', o.phases, 'worker', %(worker_name)s::text))
    FROM o
    WHERE (SELECT true FROM o WHERE outcome = 'retrying' LIMIT 1)
      AND o.outcome = 'retrying' AND {_OWN} AND e.cancel_requested_at IS NULL
      AND NOT EXISTS (SELECT FROM job j WHERE j.id = e.job_id AND j.deleted_at IS NOT NULL)
    RETURNING e.id, extract(epoch FROM e.due_at - clock_timestamp())::float8 AS due_in
)"""

_DEAD = """, dead AS (
    INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, payload, attempt, retry_count,
        response_status, error_code, error_message, last_attempt, queue, failed_at)
    SELECT id, project_id, job_id, trigger, scheduled_for, payload, attempt, retry_count, status, error_code,
        error_message, jsonb_build_object('attempt', attempt, 'startedAt', started_at,
            'finishedAt', finished_at, 'responseStatus', status, 'errorCode', error_code,
            'errorMessage', error_message, 'phases', phases, 'worker', %(worker_name)s::text),
        queue, finished_at
    FROM gone WHERE state = 'failed'
), redriven AS (
    UPDATE redrive r SET failed = r.failed + f.count
    FROM (SELECT redrive_id, count(*) FROM gone WHERE state = 'failed' GROUP BY 1) AS f
    WHERE r.id = f.redrive_id
)"""


def _finishing(answer: str, retried: str = "", dead: str = "") -> Numbered:
    """The statement that records outcomes; without the parts for failures it costs a tenth less."""
    return Numbered(f"""
WITH o AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s, %(attempts)s, %(outcomes)s, %(ages)s, %(durations)s, %(max_retries)s, %(delays)s,
        %(spends)s, %(statuses)s, %(header_at)s, %(bodies)s, %(truncated)s, %(error_codes)s, %(error_messages)s,
        %(phases)s, %(sent)s)
        AS u(id, attempt, outcome, age, duration_ms, max_retry_count, delay, spends, status, header_at, body,
            truncated, error_code, error_message, phases, sent)
){retried}, gone AS (
    DELETE FROM execution e USING o
    WHERE {_OWN}
      AND (o.outcome <> 'retrying' OR e.cancel_requested_at IS NOT NULL
           OR EXISTS (SELECT FROM job j WHERE j.id = e.job_id AND j.deleted_at IS NOT NULL))
    RETURNING e.id, e.project_id, e.job_id, e.trigger, e.scheduled_for, e.due_at, e.queued_at, e.started_at,
        clock_timestamp() - make_interval(secs => o.age) AS finished_at,
        CASE WHEN o.outcome <> 'retrying' THEN o.outcome
             WHEN e.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'failed' END AS state,
        e.attempt, e.retry_count, o.max_retry_count, o.duration_ms, o.status,
        (%(headers)s)[o.header_at] AS headers, o.body, COALESCE(o.truncated, false) AS truncated,
        o.error_code, o.error_message, o.phases, e.attempts, e.job_version, e.redrive_of, e.queue,
        e.redrive_id, COALESCE(e.payload, o.sent::json) AS payload
), history AS (
    INSERT INTO execution_history ({HISTORY_COLUMNS})
    SELECT id, project_id, job_id, trigger, scheduled_for, due_at, queued_at, started_at, finished_at, state,
        attempt, retry_count, max_retry_count, duration_ms, %(worker_name)s, status, headers, body, truncated,
        error_code, error_message, phases, attempts, job_version, redrive_of
    FROM gone
){dead}, last AS (
    INSERT INTO job_last (job_id, last_execution_time, last_state)
    SELECT DISTINCT ON (job_id) job_id, started_at, state FROM gone ORDER BY job_id, started_at DESC
    ON CONFLICT (job_id) DO UPDATE SET
        last_execution_time = excluded.last_execution_time, last_state = excluded.last_state
    WHERE job_last.last_execution_time <= excluded.last_execution_time OR job_last.last_state = 'skipped'
), {UNBLOCK}
{answer}
""")


_FREED = "EXISTS (SELECT FROM unblocked u WHERE u.job_id = gone.job_id)"
_FINISH = _finishing(
    f"""SELECT id, state, CASE WHEN {_FREED} THEN 0::float8 END FROM gone
    UNION ALL SELECT id, 'retrying', due_in FROM retried""",
    _RETRIED,
    _DEAD,
)

#: For outcomes of which none fails or is retried: as what they are recorded is known.
_FINISH_GOOD = _finishing(f"SELECT array_agg(id), array_agg(id) FILTER (WHERE {_FREED}) FROM gone")
_GOOD = frozenset({"succeeded", "cancelled"})

# What this worker has written of ids before. A loss that a poller wrote has an error code of its own. The execution
# may have moved on since; 0 wakes the pollers in any case.
_RECORDED = """
SELECT id, attempt, error_code, state, 0::float8 FROM execution_history
WHERE id = ANY(%(ids)s) AND worker = %(worker_name)s AND finished_at > clock_timestamp() - interval '1 day'
UNION ALL
SELECT e.id, (a ->> 'attempt')::int, a ->> 'errorCode', 'retrying',
    GREATEST(extract(epoch FROM e.due_at - clock_timestamp())::float8, 0)
FROM execution e, jsonb_array_elements(e.attempts) AS a
WHERE e.id = ANY(%(ids)s) AND a ->> 'worker' = %(worker_name)s
"""

_HAND_BACK = """
UPDATE execution SET
    state = 'queued', worker_id = NULL, started_at = NULL, deadline_at = NULL, queued_at = clock_timestamp()
WHERE id = ANY(%(ids)s) AND worker_id = %(worker)s AND state = 'running'
RETURNING queue, id
"""

# Of a deleted job, or cancelled while it ran and handed back before it was sent.
_CANCEL_INSTEAD = f"""
WITH gone AS (
    DELETE FROM execution e
    WHERE e.id = ANY(%(ids)s) AND (e.state = 'queued') IS TRUE AND (e.cancel_requested_at IS NOT NULL
        OR NOT EXISTS (SELECT FROM job j WHERE j.id = e.job_id AND j.deleted_at IS NULL))
    RETURNING e.*, COALESCE((SELECT max_retry_count FROM job j WHERE j.id = e.job_id), 0) AS max_retry_count
), {UNBLOCK}, history AS (
    INSERT INTO execution_history ({HISTORY_COLUMNS})
    SELECT id, project_id, job_id, trigger, scheduled_for, due_at, queued_at, NULL, clock_timestamp(),
        'cancelled', attempt, retry_count, max_retry_count, NULL, NULL, NULL, NULL, NULL, false, 'cancelled',
        CASE WHEN cancel_requested_at IS NULL THEN 'The job was deleted.' ELSE 'Cancelled before it was sent.' END,
        NULL, attempts, job_version, redrive_of
    FROM gone
)
SELECT job_id FROM unblocked
"""


def claim(link: Link, worker: UUID, ids: Sequence[int]) -> list[Claimed]:
    """Move the queued ones of ``ids`` to running, owned by ``worker``, and return them with their jobs.

    What is not returned is no longer queued, or somebody deleted its job or cancelled it (then it is cancelled
    here). A row that Postgres cannot claim for its data raises DatabaseRefused; callers split the batch.
    """
    rows = link.execute(_CLAIM, {"worker": worker, "ids": bigints(sorted(ids))})
    if len(rows) < len(ids):
        found = {row[0] for row in rows}
        if link.execute(_CANCEL_INSTEAD, {"ids": [i for i in ids if i not in found]}):
            link.execute(f"NOTIFY {CHANNEL}")  # something is due; too rare to cost commits anything
    return [_claimed(row) for row in rows]


def _claimed(row: Row) -> Claimed:
    own, of_job = row[:_OF_JOB], row[_OF_JOB:]
    return Claimed._make(own + (_known(of_job) if len(of_job[0]) <= _SHORT else _read(of_job)))


def _read(of_job: tuple[str, str, str, str]) -> tuple[dict[str, str], float, bool, Policy]:
    """A job's headers, timeout, whether it follows redirects, and its policy, from what Postgres writes of them."""
    headers, terms, success, no_retry = of_job
    timeout, follow, once, retries, *backoff = terms.split(" ")
    policy = Policy(
        once == "t", RetryPolicy(int(retries), *map(float, backoff)), _listed(success), _listed(no_retry)
    )
    return _read_headers(headers), float(timeout), follow == "t", policy


# Many jobs have the same. Nobody may change what is given out: all claims share it.
_known = lru_cache(maxsize=1024)(_read)


def _listed(array: str) -> tuple[str, ...]:
    return tuple(_TEXTS.load(array.encode()))


_TEXTS = Transformer().get_loader(psycopg.postgres.types["text"].array_oid, Format.TEXT)


def _read_headers(text: str) -> Any:
    """None where Python cannot read them (nested too deep, a number of too many digits)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def finish(
    link: Link, worker: UUID, worker_name: str, ended: Sequence[Ended], *, again: bool = False
) -> list[Recorded]:
    """Record how attempts ended: history and dead letter, or the retry. One statement, one commit.

    Returns what was recorded; what is missing was fenced (somebody else owns it now). ``again``: it was tried
    before, and the answer may have been lost after the commit; what was recorded then is returned, too.
    """
    recorded = _finish(link, worker, worker_name, ended)
    if len(recorded) < len(ended):
        # A cancel that came between the statement's snapshot and its row lock matches neither branch;
        # a second look, with a new snapshot, tells it from an execution that is no longer ours.
        found = {one.id for one in recorded}
        missing = [one for one in ended if one.id not in found]
        recorded += _finish(link, worker, worker_name, missing)
    if again and len(recorded) < len(ended):
        found = {one.id for one in recorded}
        recorded += _recorded_before(link, worker_name, [one for one in ended if one.id not in found])
    return recorded


def _recorded_before(link: Link, worker_name: str, ended: Sequence[Ended]) -> list[Recorded]:
    parameters = {"ids": [one.id for one in ended], "worker_name": worker_name}
    attempts = {(one.id, one.attempt, one.error_code) for one in ended}
    return [
        Recorded(i, state, due_in)
        for i, attempt, code, state, due_in in link.execute(_RECORDED, parameters)
        if (i, attempt, code) in attempts
    ]


def _finish(link: Link, worker: UUID, worker_name: str, ended: Sequence[Ended]) -> list[Recorded]:
    try:
        parameters = {**as_arrays(ended), "worker": worker, "worker_name": worker_name}
    except UnicodeEncodeError as error:
        raise convert(error) from error
    states = {one.id: one.state for one in ended}
    if not _GOOD.issuperset(states.values()):
        return [Recorded._make(row) for row in link.execute(_FINISH, parameters)]
    [(ids, freeing)] = link.execute(_FINISH_GOOD, parameters)
    if freeing is None:
        return [Recorded(i, states[i]) for i in ids or ()]
    return [Recorded(i, states[i], 0.0 if i in freeing else None) for i in ids]


def hand_back(link: Link, worker: UUID, ids: Sequence[int]) -> list[tuple[str, int]]:
    """Return executions that were claimed but never sent to ``queued``. Gives (queue, id) to push."""
    return [(queue, i) for queue, i in link.execute(_HAND_BACK, {"ids": sorted(ids), "worker": worker})]


def flagged(link: Link, worker: UUID) -> list[int]:
    """The running executions of ``worker`` that somebody asked to cancel."""
    rows = link.execute(
        "SELECT id FROM execution WHERE worker_id = %s AND state = 'running' "
        "AND cancel_requested_at IS NOT NULL",
        (worker,),
    )
    return [row[0] for row in rows]


def running(link: Link, worker: UUID) -> list[int]:
    """The executions that the database says ``worker`` is running."""
    rows = link.execute("SELECT id FROM execution WHERE worker_id = %s AND state = 'running'", (worker,))
    return [row[0] for row in rows]


def in_halves(
    act: Callable[[Sequence[T]], None], items: Sequence[T], refuse: Callable[[T, DatabaseRefused], None]
) -> None:
    """``act`` on ``items``; where Postgres refuses the data, on their halves, down to the rows at fault.

    ``refuse`` is called for each single item that is refused. One bad row costs log2(n) more statements
    and never its neighbours.
    """
    try:
        act(items)
    except DatabaseRefused as error:
        if len(items) == 1:
            refuse(items[0], error)
            return
        middle = len(items) // 2
        in_halves(act, items[:middle], refuse)
        in_halves(act, items[middle:], refuse)

"""An installation that has run for a month: many idle jobs, 30 days of history.

    python -m bench.fill DATABASE_URL [--jobs 1000000] [--history 5000000]

Written past the API, into an installation that has been migrated. Each distinct schedule's next slot is worked out
by the product's own rules, so that nothing here would be computed anew. No slot comes within ``IDLE_DAYS``: what is
measured on top finds only the size.
"""

import argparse
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql

from jobsched.db.retention import name_of
from jobsched.domain.instants import BEGINNING
from jobsched.domain.schedule import parse_schedule

DAYS = 30
IDLE_DAYS = 2
#: Pairs of a cron expression and a zone.
DISTINCT_SCHEDULES = 20_000
#: Jobs that run every minute as far as the history tells: one row in ``_BUSY_SHARE`` is one of theirs.
BUSY_JOBS = 10
_BUSY_SHARE = 12

_ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Tokyo",
    "America/Sao_Paulo",
    "Australia/Sydney",
    "Asia/Kolkata",
)

_JOBS = """
INSERT INTO job (id, project_id, key, name, description, schedule, timezone, is_recurring, is_active, api, headers,
    payload, tags, pool, priority, overlap_policy, created_at, updated_at)
SELECT n, 1, CASE WHEN n % 2 = 0 THEN 'tenant-' || n % 997 || '/job-' || n END,
    (ARRAY['Invoice', 'Report', 'Cleanup', 'Sync', 'Reminder', 'Export', 'Digest'])[n % 7 + 1] || ' of customer ' || n,
    CASE WHEN n % 4 = 0 THEN 'Runs for tenant ' || n % 997 END, s.schedule, s.timezone, true, n % 5 <> 0,
    'http://127.0.0.1:9/hooks/' || n % 1000, json_build_object('X-Tenant', 'tenant-' || n % 997),
    ('{"tenant":' || n % 997 || ',"job":' || n || '}')::json,
    CASE n % 3 WHEN 0 THEN ARRAY['team-' || n % 211] WHEN 1 THEN ARRAY['team-' || n % 211, 'env-' || n % 5]
        ELSE '{}' END,
    CASE WHEN n % 10 = 0 THEN (ARRAY['mail', 'reports', 'slow'])[n / 10 % 3 + 1] ELSE 'default' END,
    CASE WHEN n % 20 = 0 THEN 9 ELSE 5 END, CASE WHEN n % 8 = 0 THEN 'skip' ELSE 'allow' END,
    now() - interval '40 days', now() - interval '40 days'
FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(jobs)s - 1) AS n
JOIN schedule_made s ON s.number = n * 7919 % %(schedules)s
"""

_SCHEDULES = """
INSERT INTO job_schedule (job_id, next_slot, next_execution_time, last_slot, anchor, runs)
SELECT n, s.next_slot, CASE WHEN n % 5 <> 0 THEN s.next_slot END, NULL, now() - interval '40 days', 0
FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(jobs)s - 1) AS n
JOIN schedule_made s ON s.number = n * 7919 % %(schedules)s
"""

_LAST = """
INSERT INTO job_last (job_id, last_execution_time, last_state)
SELECT n, now() - make_interval(secs => n * 7919 % 2592000),
    CASE WHEN n % 100 < 97 THEN 'succeeded' WHEN n % 100 = 97 THEN 'cancelled' WHEN n % 100 = 98 THEN 'skipped'
        ELSE 'failed' END
FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(jobs)s - 1) AS n WHERE n % 10 <> 3
"""

# Of 200 rows 194 succeeded at once or after a retry, 3 failed, 2 were skipped, 1 was cancelled.
_HISTORY = """
INSERT INTO {part} (id, project_id, job_id, trigger, scheduled_for, due_at, queued_at, started_at, finished_at, state,
    attempt, retry_count, max_retry_count, duration_ms, worker, response_status, response_headers, response_body,
    error_code, error_message, phases, attempts, job_version, skipped_count)
SELECT n, 1, job, CASE WHEN n % 50 = 7 THEN 'manual' ELSE 'schedule' END, due, due, due + interval '4 ms', started,
    ended, state, CASE state WHEN 'skipped' THEN 0 WHEN 'failed' THEN 4 ELSE CASE WHEN retried THEN 2 ELSE 1 END END,
    CASE state WHEN 'failed' THEN 3 ELSE retried::int END, 3,
    CASE WHEN called THEN 20 + n % 400 END, CASE WHEN called THEN 'worker-host-' || n % 4 END,
    CASE state WHEN 'succeeded' THEN 200 WHEN 'failed' THEN 503 END,
    CASE WHEN called THEN '{{"Content-Type":"application/json","Content-Length":"11","Server":"nginx"}}'::jsonb END,
    CASE WHEN called THEN '{{"ok": true}}'::bytea END,
    CASE state WHEN 'failed' THEN 'http_status' WHEN 'skipped' THEN 'overlap' WHEN 'cancelled' THEN 'cancelled' END,
    CASE state WHEN 'failed' THEN 'The target answered 503.' END,
    CASE WHEN called THEN jsonb_build_object('dnsMs', 0.1, 'connectMs', 0.4, 'tlsMs', 0, 'firstByteMs', 19 + n % 400,
        'totalMs', 20 + n % 400) END,
    CASE WHEN retried OR state = 'failed' THEN jsonb_build_array(jsonb_build_object('attempt', 1, 'startedAt', started,
        'finishedAt', ended, 'responseStatus', 503, 'errorCode', 'http_status', 'errorMessage',
        'The target answered 503.', 'phases', NULL, 'worker', 'worker-host-1')) ELSE '[]' END,
    1, CASE state WHEN 'skipped' THEN 1 END
FROM (
    SELECT n, due, due + interval '9 ms' AS started, due + make_interval(secs => 0.03 + n % 400 * 0.001) AS ended,
        %(first_job)s + CASE WHEN n % {busy_share} = 0 THEN n / {busy_share} % {busy_jobs}
            ELSE n * 48271 % 2147483647 % %(jobs)s END AS job,
        CASE WHEN n % 200 < 194 THEN 'succeeded' WHEN n % 200 < 197 THEN 'failed' WHEN n % 200 < 199 THEN 'skipped'
            ELSE 'cancelled' END AS state,
        n % 200 < 197 AS called, n % 200 BETWEEN 10 AND 16 AS retried
    FROM (SELECT n, %(from)s::timestamptz + (n - %(first)s) * (%(to)s::timestamptz - %(from)s) / %(rows)s AS due
        FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(rows)s - 1) AS n) AS s
) AS s
"""

_DEAD_LETTERS = """
INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, payload, attempt, retry_count,
    response_status, error_code, error_message, last_attempt, queue, failed_at)
SELECT id, project_id, job_id, trigger, scheduled_for, '{"tenant":1}'::json, attempt, retry_count, response_status,
    error_code, error_message, attempts -> 0, 'default', finished_at
FROM execution_history WHERE state = 'failed' AND id BETWEEN %(first)s AND %(first)s::bigint + %(history)s - 1
"""


@dataclass(frozen=True)
class Filled:
    """What was written: ids from the first one up, without a gap. ``seconds``: how long it took."""

    first_job: int
    jobs: int
    first_execution: int
    history: int
    seconds: float


def fill(url: str, *, jobs: int, history: int) -> Filled:
    """Write ``jobs`` jobs and ``history`` finished executions into the installation at ``url``, and analyze."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        first_job = _take(connection, "job_id_seq", jobs)
        first_execution = _take(connection, "execution_id_seq", history)
        _make_schedules(connection)
        # One session for the jobs, one for the history: two cores write twice as fast.
        with ThreadPoolExecutor(2) as pool:
            for done in [
                pool.submit(_write_jobs, url, first_job, jobs),
                pool.submit(_write_history, url, first_execution, history, first_job, jobs),
            ]:
                done.result()
        connection.execute("DROP TABLE schedule_made")
        tables = "job, job_schedule, job_last, execution_history, dead_letter"
        connection.execute(f"VACUUM (ANALYZE, PARALLEL 2) {tables}")
        connection.execute("CHECKPOINT")
    return Filled(first_job, jobs, first_execution, history, time.monotonic() - began)


def _take(connection: psycopg.Connection[tuple[int]], sequence: str, count: int) -> int:
    row = connection.execute(f"SELECT nextval('{sequence}')").fetchone()
    assert row is not None
    connection.execute(f"SELECT setval('{sequence}', %s)", (row[0] + count,))
    return row[0]


def _make_schedules(connection: psycopg.Connection[tuple[int]]) -> None:
    """A table of distinct schedules with their next slots, none of which comes within ``IDLE_DAYS``."""
    now = datetime.now(UTC)
    made = list[tuple[int, str, str, datetime]]()
    tried = 0
    while len(made) < DISTINCT_SCHEDULES:
        minute, hour, day = tried % 60, tried // 60 % 24, tried // 1440 % 28 + 1
        month = "*" if tried % 2 else str(tried // 7 % 12 + 1)
        zone = "UTC" if tried % 5 < 3 else _ZONES[tried // 5 % len(_ZONES)]
        text = f"{minute} {hour} {day} {month} *"
        tried += 1
        slot = parse_schedule(text, zone).next_after(now, BEGINNING)
        if slot is not None and slot > now + timedelta(days=IDLE_DAYS):
            made.append((len(made), text, zone, slot))
    connection.execute(
        "CREATE UNLOGGED TABLE schedule_made (number int, schedule text, timezone text, next_slot timestamptz)"
    )
    with connection.cursor().copy("COPY schedule_made FROM STDIN") as copy:
        for row in made:
            copy.write_row(row)
    connection.execute("ANALYZE schedule_made")


def _write_jobs(url: str, first: int, jobs: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        # The check of each schedule's job is a lookup a row, for rows that were written a moment ago.
        connection.execute("SET session_replication_role = replica")
        values: dict[str, object] = {"first": first, "jobs": jobs, "schedules": DISTINCT_SCHEDULES}
        for statement in (_JOBS, _SCHEDULES, _LAST):
            _run(connection, statement, values)


def _write_history(url: str, first: int, history: int, first_job: int, jobs: int) -> None:
    """A day a partition, each written before it is attached: so its indexes are built once, by sorting."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    written = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '256MB'")
        for number in range(DAYS):
            day = midnight - timedelta(days=DAYS - 1 - number)
            rows = history * (number + 1) // DAYS - written
            start, end = day.date(), day.date() + timedelta(days=1)
            values = {
                "first": first + written,
                "rows": rows,
                "from": day,
                # Today's end before now; the others' before midnight, retries included.
                "to": (now if day == midnight else day + timedelta(days=1)) - timedelta(seconds=1),
                "first_job": first_job,
                "jobs": jobs,
            }
            written += rows
            if rows:
                with connection.transaction():
                    _write_day(connection, start, end, values)
        _run(connection, _DEAD_LETTERS, {"first": first, "history": history})


def _write_day(
    connection: psycopg.Connection[tuple[int]], start: date, end: date, values: dict[str, object]
) -> None:
    name = name_of(start, end)
    part = sql.Identifier(name).as_string(connection)
    statement = _HISTORY.format(part=part, busy_share=_BUSY_SHARE, busy_jobs=BUSY_JOBS)
    if connection.execute("SELECT count(to_regclass(%s))", (name,)).fetchone() != (0,):  # today's exists
        _run(connection, statement, values)
        return
    connection.execute(
        f"CREATE TABLE {part} (LIKE execution_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)".encode()
    )
    _run(connection, statement, values)
    connection.execute(
        sql.SQL("ALTER TABLE execution_history ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(name), sql.Literal(f"{start} 00:00+00"), sql.Literal(f"{end} 00:00+00")
        )
    )


def _run(connection: psycopg.Connection[tuple[int]], statement: str, values: dict[str, object]) -> None:
    """Percent signs of arithmetic stand single above; psycopg wants them doubled."""
    connection.execute(re.sub(r"%(?!\()", "%%", statement).encode(), values)


def main() -> None:
    """Fill the installation that the arguments name, and say how long it took."""
    parser = argparse.ArgumentParser(prog="python -m bench.fill")
    parser.add_argument("url")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--history", type=int, default=5_000_000)
    arguments = parser.parse_args()
    print(fill(arguments.url, jobs=arguments.jobs, history=arguments.history))


if __name__ == "__main__":
    main()

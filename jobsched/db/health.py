"""What the doctor asks of Postgres. Reads only; what it mends is in jobsched/db/mending.py.

Time stamps are good enough here: a person reads the answers, and nobody is declared dead for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import conninfo

from jobsched.db.connection import Link
from jobsched.db.migrate import applied_migrations, expected
from jobsched.db.stats import SILENT_SECONDS
from jobsched.domain.queues import queues_of
from jobsched.lines import mask_text

#: What libpq and the server say, in part, and what it means. The first that fits counts.
_REASONS = (
    ("failed to resolve host", "the name of the host is not known"),
    ("could not translate host name", "the name of the host is not known"),
    ("connection refused", "nothing listens there (connection refused)"),
    ("password authentication failed", "it refuses the user or the password"),
    ("no password supplied", "it asks for a password, and none was given"),
    ("no pg_hba.conf entry", "its pg_hba.conf does not let this user in from here"),
    ("certificate", "TLS fails: {said}"),
    ("ssl", "TLS fails: {said}"),
    ("role ", "it has no such user"),
    ("database ", "it has no such database"),
    ("too many", "all its connections are taken"),
    ("remaining connection slots", "all its connections are taken"),
    ("starting up", "it is starting"),
    ("shutting down", "it is shutting down"),
    ("recovery mode", "it recovers from a crash"),
    ("timeout", "it does not answer in time"),
    ("timed out", "it does not answer in time"),
)


@dataclass(frozen=True, slots=True)
class Server:
    """The Postgres server: its version, whether it only takes reads, and how its connections are used."""

    version: str
    read_only: bool
    connections: int
    most_connections: int


@dataclass(frozen=True, slots=True)
class OldSession:
    """A session whose transaction has been open for long, or idle; a prepared transaction has no pid."""

    pid: int | None
    application: str
    since: datetime
    idle: bool


@dataclass(frozen=True, slots=True)
class WaitingPool:
    """What is due in one pool and not yet running. ``oldest``: seconds since the oldest of it was due."""

    pool: str
    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Aside:
    """Something that was set aside: a job (with what was wrong) or an execution."""

    id: int
    fault: str


def address(url: str) -> str:
    """Host, port and database that a URL leads to, without user and password."""
    try:
        found = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "an address that is not understood"
    hosts = str(found.get("host") or found.get("hostaddr") or "the local socket").split(",")
    ports = str(found.get("port") or 5432).split(",")
    places = [f"{host}:{ports[min(n, len(ports) - 1)]}" for n, host in enumerate(hosts)]
    return f"{','.join(places)}/{found.get('dbname') or found.get('user') or ''}"


def reason(error: BaseException) -> str:
    """Why a connection failed, in plain words; what nobody foresaw is quoted, without passwords."""
    text = " ".join(str(error.__cause__ or error).split())
    said = mask_text(text.rpartition("failed: ")[2] or text)
    lower = text.lower()
    for part, meaning in _REASONS:
        if part in lower and (part not in {"role ", "database "} or "does not exist" in lower):
            return meaning.format(said=said)
    return said


def server(link: Link) -> Server:
    """What server this is."""
    [row] = link.execute(
        "SELECT current_setting('server_version'), "
        "pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, "
        "(SELECT count(*) FROM pg_stat_activity WHERE backend_type IS NULL OR backend_type = 'client backend'), "
        "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int "
        "- COALESCE(current_setting('reserved_connections', true), '0')::int"
    )
    return Server(*row)


def unknown_migrations(link: Link) -> list[str]:
    """Migrations in the database that this code does not know: a newer jobsched has been here."""
    with link.transaction() as cursor:
        return sorted(applied_migrations(cursor) - set(expected()))


def data_directory(link: Link) -> str | None:
    """Where the server keeps its data; None if this user may not know."""
    [(path,)] = link.execute(
        "SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER') THEN current_setting('data_directory') END"
    )
    return path  # type: ignore[no-any-return]


def old_sessions(link: Link, idle_seconds: float, open_seconds: float) -> list[OldSession]:
    """Sessions of this database idle in a transaction, or with one open, for that long; the oldest first."""
    rows = link.execute(
        "SELECT pid, COALESCE(NULLIF(application_name, ''), backend_type, '?'), xact_start, "
        "state LIKE 'idle in transaction%%' FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND ("
        "xact_start < clock_timestamp() - make_interval(secs => %(open)s) "
        "OR state LIKE 'idle in transaction%%' "
        "AND state_change < clock_timestamp() - make_interval(secs => %(idle)s)) "
        "UNION ALL SELECT NULL, 'prepared transaction ' || gid, prepared, true FROM pg_prepared_xacts "
        "WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => %(open)s) "
        "ORDER BY 3",
        {"idle": idle_seconds, "open": open_seconds},
    )
    return [OldSession(*row) for row in rows]


def default_days(link: Link) -> list[tuple[datetime, int]]:
    """The days (UTC midnights) of which history lies in the default partition, with how many rows."""
    rows = link.execute(
        "SELECT date_trunc('day', finished_at), count(*) FROM execution_history_default "
        "WHERE finished_at > '1970-01-01' AND finished_at < '9999-01-01' GROUP BY 1 ORDER BY 1"
    )
    return [(day, count) for day, count in rows]


def overdue(link: Link) -> tuple[int | None, float]:
    """The schedule that has been due the longest, and for how many seconds."""
    rows = link.execute(
        "SELECT job_id, extract(epoch FROM clock_timestamp() - next_execution_time)::float8 FROM job_schedule "
        "WHERE next_execution_time <= statement_timestamp() ORDER BY next_execution_time LIMIT 1"
    )
    return (rows[0][0], rows[0][1]) if rows else (None, 0.0)


def jobs_aside(link: Link) -> list[Aside]:
    """Jobs that could not be fired and wait for another try."""
    rows = link.execute(
        "SELECT job_id, fault FROM job_schedule WHERE fault IS NOT NULL AND next_execution_time IS NOT NULL "
        "ORDER BY job_id"
    )
    return [Aside(*row) for row in rows]


def executions_aside(link: Link) -> list[Aside]:
    """Executions that were due and were put off.

    What is pending is due, except what a redrive spreads over time; so what is not has been set aside.
    """
    rows = link.execute(
        "SELECT id FROM execution WHERE state = 'pending' AND trigger <> 'redrive' "
        "AND due_at > clock_timestamp() + interval '5 s' ORDER BY id LIMIT 10000"
    )
    return [Aside(row[0], "") for row in rows]


def waiting(link: Link) -> list[WaitingPool]:
    """Of each pool, what is due and not yet running."""
    rows = link.execute(
        "SELECT pool, count(*), extract(epoch FROM clock_timestamp() - min(due_at))::float8 FROM execution "
        "WHERE state IN ('pending', 'queued', 'retrying') AND due_at <= statement_timestamp() "
        "GROUP BY pool ORDER BY pool"
    )
    return [WaitingPool(*row) for row in rows]


def served_pools(link: Link) -> set[str]:
    """The pools that a worker serves which has beaten lately."""
    rows = link.execute(
        "SELECT DISTINCT unnest(pools) FROM worker_process WHERE kind = 'worker' AND state = 'alive' "
        "AND heartbeat_at > clock_timestamp() - make_interval(secs => %s)",
        (SILENT_SECONDS,),
    )
    return {row[0] for row in rows}


def dead_processes(link: Link) -> int:
    """Rows of processes that are known to be dead and own nothing any more."""
    return int(
        link.execute(
            "SELECT count(*) FROM worker_process w WHERE state = 'dead' AND NOT EXISTS ("
            "SELECT FROM execution e WHERE e.worker_id = w.id AND e.state = 'running')"
        )[0][0]
    )


def dead_letters(link: Link) -> tuple[int, datetime | None]:
    """How many dead letters there are, and when the oldest failed."""
    [(count, oldest)] = link.execute("SELECT count(*), min(failed_at) FROM dead_letter")
    return count, oldest


def queues(link: Link) -> list[str]:
    """Every queue that is ours: the three of each pool that a job, an execution or a worker names."""
    rows = link.execute(
        "SELECT pool FROM job WHERE deleted_at IS NULL UNION SELECT pool FROM execution "
        "UNION SELECT unnest(pools) FROM worker_process UNION SELECT 'default' ORDER BY 1"
    )
    return [queue for (pool,) in rows for queue in queues_of(pool)]


def queued(link: Link, queue: str, older_than: float, limit: int) -> dict[int, datetime]:
    """Executions queued in ``queue`` at least ``older_than`` seconds ago, with when; the oldest first."""
    rows = link.execute(
        "SELECT id, queued_at FROM execution WHERE state = 'queued' AND queue = %s "
        "AND queued_at < clock_timestamp() - make_interval(secs => %s) ORDER BY queued_at, id LIMIT %s",
        (queue, older_than, limit),
    )
    return dict(rows)


def still_queued(link: Link, ids: Sequence[int]) -> dict[int, str]:
    """Those of ``ids`` whose execution is queued now, with its queue, in order."""
    rows = link.execute(
        "SELECT id, queue FROM execution WHERE id = ANY(%s) AND state = 'queued' ORDER BY id", (list(ids),)
    )
    return dict(rows)

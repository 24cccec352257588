"""Checks of the servers: reached, of the right schema, with room, on time."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jobsched import clock
from jobsched.config import Settings, default_data_dir
from jobsched.db import health as postgres
from jobsched.db.connection import Link
from jobsched.db.migrate import check_schema
from jobsched.db.signing import check_readable
from jobsched.db.vault import Vault
from jobsched.doctor.finding import OK, Check, Finding, Limits, fail, info, lasting, warn
from jobsched.errors import DatabaseError, QueueUnavailable
from jobsched.queue import health as redis
from jobsched.queue.health import Health

#: Sessions that one line names at most.
_MOST_NAMED = 3

_GIB = 2**30


class Servers:
    """What the servers themselves tell."""

    def __init__(self, settings: Settings, link: Link, queue: Health, limits: Limits) -> None:
        self._settings = settings
        self._link = link
        self._queue = queue
        self._limits = limits

    def checks(self) -> list[Check]:
        """In the order in which they depend on each other."""
        return [
            Check("postgres", "Postgres answers", self._postgres),
            Check("schema", "its schema is this version's", self._schema, ("postgres",)),
            Check("connections", "it has connections to spare", self._connections, ("postgres",)),
            Check("sessions", "nobody holds a transaction open", self._sessions, ("postgres",)),
            Check("redis", "Redis answers", self._redis),
            Check("eviction", "it drops nothing by itself", self._eviction, ("redis",)),
            Check("memory", "it has memory to spare", self._memory, ("redis",)),
            Check("disk", "the disk has room", self._disk),
            Check("clock", "this host and Postgres agree on the time", self._clock, ("postgres",)),
            Check("redis_clock", "this host and Redis agree on the time", self._redis_clock, ("redis",)),
            Check("secrets", "signing secrets can be read", self._secrets, ("schema",)),
        ]

    def _postgres(self) -> Finding:
        where = f"Postgres at {postgres.address(self._settings.need_database_url())}"
        try:
            found = postgres.server(self._link)
        except DatabaseError as error:
            return fail(f"{where} cannot be reached: {postgres.reason(error)}.")
        if found.read_only:
            return fail(
                f"{where} takes no writes: it is a standby, or set to read-only. Give the primary's address."
            )
        return Finding("ok", f"{where.removeprefix('Postgres at ')}, version {found.version.split()[0]}")

    def _schema(self) -> Finding:
        with self._link.transaction() as cursor:
            check_schema(cursor)
        if newer := postgres.unknown_migrations(self._link):
            return warn(
                f"The schema is newer than this version: {newer[-1]} is not known here. That is right during an "
                "upgrade; then upgrade this machine too."
            )
        return OK

    def _connections(self) -> Finding:
        found = postgres.server(self._link)
        share = found.connections / max(found.most_connections, 1)
        text = f"{found.connections} of {found.most_connections} connections are taken."
        if share < self._limits.nearly:
            return Finding("ok", text)
        advice = f"{text} Raise max_connections, or run fewer processes or a smaller JOBSCHED_DB_POOL."
        return fail(advice) if share >= self._limits.full else warn(advice)

    def _sessions(self) -> Finding:
        old = postgres.old_sessions(self._link, self._limits.idle, self._limits.open)
        if not old:
            return OK
        named = "; ".join(
            f"{one.application}{f' (pid {one.pid})' if one.pid else ''} "
            f"{'idle in a transaction' if one.idle else 'in a transaction'} since {_moment(one.since)}"
            for one in old[:_MOST_NAMED]
        )
        more = f" and {len(old) - _MOST_NAMED} more" if len(old) > _MOST_NAMED else ""
        return warn(
            f"{named}{more}. It keeps dead rows from being cleared away and may hold locks. End it, if nobody "
            "needs it: SELECT pg_terminate_backend(pid)."
        )

    def _redis(self) -> Finding:
        where = f"Redis at {redis.address(self._settings.need_redis_url())}"
        try:
            found = self._queue.server()
        except QueueUnavailable as error:
            return fail(f"{where} cannot be reached: {redis.reason(error)}.")
        if found.replica:
            return fail(f"{where} is a replica, which takes no writes. Give the primary's address.")
        return Finding("ok", f"{where.removeprefix('Redis at ')}, version {found.version}")

    def _eviction(self) -> Finding:
        fault = self._queue.eviction_fault()
        return OK if fault is None else fail(fault)

    def _memory(self) -> Finding:
        found = self._queue.server()
        if not found.limit:
            return OK
        share = found.memory / found.limit
        text = f"{share:.0%} of its maxmemory ({found.limit / 2**20:,.0f} MiB) is taken."
        if share < self._limits.nearly:
            return Finding("ok", text)
        advice = f"{text} When it is full nothing is handed to workers. Raise maxmemory, or find what else uses it."
        return fail(advice) if share >= self._limits.full else warn(advice)

    def _disk(self) -> Finding:
        folder = self._data_folder()
        if folder is None:
            return info("Not known from here: Postgres keeps its data elsewhere, or does not tell where.")
        usage = shutil.disk_usage(folder)
        free = usage.free / usage.total
        text = f"{usage.free / _GIB:,.1f} GiB of the disk with {folder} are free ({free:.0%})."
        if free < 1 - self._limits.full and usage.free < 2 * _GIB:
            return fail(f"{text} When it is full Postgres stops.")
        if free < (1 - self._limits.nearly) / 2 and usage.free < 10 * _GIB:
            return warn(f"{text} When it is full Postgres stops.")
        return Finding("ok", text)

    def _data_folder(self) -> Path | None:
        """The folder of ``jobsched up`` if its Postgres is the one that we look at; else Postgres' own, if here."""
        ours = self._settings.data_dir or default_data_dir()
        url = self._settings.database_url
        try:
            if (ours / "database-url").read_text(encoding="utf-8").strip() == url:
                return ours
        except (OSError, UnicodeDecodeError):
            pass
        try:
            told = postgres.data_directory(self._link)
            if told is not None and _is_here(url) and Path(told, "PG_VERSION").exists():
                return Path(told)
        except (OSError, DatabaseError):
            pass
        return None

    def _clock(self) -> Finding:
        return self._skew("Postgres", lambda: self._link.execute("SELECT clock_timestamp()")[0][0])

    def _redis_clock(self) -> Finding:
        return self._skew("Redis", self._queue.clock)

    def _skew(self, whose: str, ask: Callable[[], datetime]) -> Finding:
        """Compared with the middle of the question's way; of three questions the one with the shortest way."""
        tries = []
        for _ in range(3):
            began, at = clock.monotonic(), clock.utc_now()
            told = ask()
            took = clock.monotonic() - began
            tries.append((took, (at - told).total_seconds() + took / 2))
        took, ahead = min(tries)
        if abs(ahead) <= self._limits.skew + took / 2:
            return OK
        return warn(
            f"This host is {lasting(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} {whose}. What is due is "
            "decided by Postgres' clock; time stamps of signatures come from the workers' hosts, and targets "
            "refuse them when they are minutes off. Set the clocks (NTP)."
        )

    def _secrets(self) -> Finding:
        check_readable(self._link, Vault(self._settings.secret_key))
        return OK


def _is_here(url: str | None) -> bool:
    """Whether the address is one of this machine: another's folder of the same name says nothing."""
    host = postgres.address(url or "").rpartition("/")[0].rpartition(":")[0]
    return host in {"127.0.0.1", "::1", "localhost", "the local socket"} or host.startswith("/")


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

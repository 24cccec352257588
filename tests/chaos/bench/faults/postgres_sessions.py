"""Faults inside Postgres: sessions cut, rows and tables locked, no connection free, nothing writable."""

import contextlib
import time
from typing import Any

import psycopg

from tests.chaos.bench.faults.base import POSTGRES_MISSED, Effect, Scene
from tests.chaos.bench.faults.postgres_server import PostgresFault

_CUT_ALL = (
    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE application_name LIKE 'jobsched-%%'"
)
_OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jobsched-%'"
_CUT_SOME = (
    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
    "WHERE application_name LIKE 'jobsched-%%' ORDER BY md5(pid::text || %s) LIMIT %s) AS chosen"
)


class ConnectionsCut(PostgresFault):
    """All sessions of jobsched are ended at once."""

    kind, lasts = "postgres_connections_cut", 5.0

    def hit(self, scene: Scene) -> Effect:
        cut = _value(scene, _CUT_ALL)
        noticed = scene.await_event(*POSTGRES_MISSED, seconds=4.0)
        return Effect(cut > 0 and noticed, f"{cut} sessions cut; {scene.count(*POSTGRES_MISSED)}")


class SessionsCut(PostgresFault):
    """A few sessions end, again and again."""

    kind, lasts = "postgres_session_cut", 8.0

    def hit(self, scene: Scene) -> Effect:
        cut = 0
        for _ in range(scene.chance.randint(5, 10)):
            cut += _value(scene, _CUT_SOME, (str(scene.chance.random()), scene.chance.randint(1, 3)))
            scene.cluster.pause(scene.chance.uniform(0.1, 0.6))
        return Effect(cut > 0, f"{cut} sessions cut; {scene.count(*POSTGRES_MISSED)}")


class Locked(PostgresFault):
    """Somebody's ALTER TABLE holds the table of executions."""

    kind, lasts = "postgres_locked", 11.0

    def hit(self, scene: Scene) -> Effect:
        until = time.monotonic() + scene.chance.uniform(4, 8)
        waiting = 0
        with scene.cluster.connect(name="lock", timeout=10) as connection, connection.transaction():
            connection.execute("LOCK TABLE execution IN ACCESS EXCLUSIVE MODE")
            while time.monotonic() < until:
                waiting = max(waiting, scene.waiting_for_locks())
                scene.cluster.pause(0.3)
        return Effect(waiting > 0, f"{waiting} sessions waited at once; {scene.count(*POSTGRES_MISSED)}")


class RowLocks(PostgresFault):
    """A session holds some hundred rows, as somebody at a SQL prompt does who forgets to commit."""

    kind, lasts = "postgres_row_locks", 8.0

    def hit(self, scene: Scene) -> Effect:
        until = time.monotonic() + 5
        waiting, held = 0, {}
        with scene.cluster.connect(name="rows", timeout=5) as connection, connection.transaction():
            for table, key in (("execution", "id"), ("job_schedule", "job_id")):
                held[table] = len(
                    connection.execute(
                        f"SELECT {key} FROM {table} ORDER BY random() LIMIT 300 FOR UPDATE SKIP LOCKED"
                    ).fetchall()
                )
            while time.monotonic() < until:
                waiting = max(waiting, scene.waiting_for_locks())
                scene.cluster.pause(0.3)
        return Effect(
            sum(held.values()) > 0,
            f"{held['execution']} executions and {held['job_schedule']} schedules held; "
            f"{waiting} sessions waited at once; {scene.count(*POSTGRES_MISSED)}",
        )


class OutOfConnections(PostgresFault):
    """Others hold every connection that there is, while some of ours must connect again."""

    kind, lasts = "postgres_out_of_connections", 13.0

    def hit(self, scene: Scene) -> Effect:
        cut, full_since, left = 0, None, 0
        with contextlib.ExitStack() as open_sessions:
            keeper = open_sessions.enter_context(scene.cluster.connect(name="keeper", timeout=5))
            while full_since is None or time.monotonic() < full_since + 4:
                try:
                    open_sessions.enter_context(scene.cluster.connect(name="crowd"))
                except psycopg.OperationalError:
                    full_since = full_since or time.monotonic()
                    row = keeper.execute(_CUT_SOME, (str(scene.chance.random()), 1)).fetchone()
                    # Ours and the crowd now race for the place that this one leaves.
                    cut += int(row[0]) if row else 0
                if scene.cluster.closing.is_set():
                    break
            row = keeper.execute(_OURS).fetchone()
            left = int(row[0]) if row else 0
        return Effect(
            cut > 0 and left < cut,
            f"{cut} sessions cut while nobody could connect, {left} left at the end; {scene.count(*POSTGRES_MISSED)}",
        )


class ReadOnly(PostgresFault):
    """Every transaction that begins may only read, as on a standby."""

    kind, lasts = "postgres_read_only", 7.0

    def hit(self, scene: Scene) -> Effect:
        with scene.cluster.connect(timeout=5) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            try:
                connection.execute("SELECT pg_reload_conf()")
                scene.cluster.pause(4.0)
            finally:
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.execute("SELECT pg_reload_conf()")
        refused = [event for event in scene.events(*POSTGRES_MISSED) if "read-only" in str(event)]
        return Effect(bool(refused), f"{len(refused)} events about it; {scene.count(*POSTGRES_MISSED)}")


def _value(scene: Scene, statement: str, parameters: Any = ()) -> int:
    rows = scene.cluster.ask(statement, parameters, within=3.0)
    return int(rows[0][0]) if rows else 0


FAULTS = (ConnectionsCut(), SessionsCut(), Locked(), RowLocks(), OutOfConnections(), ReadOnly())

"""A later version's migration, while processes of this version run on the schema."""

import subprocess
from typing import Any

import psycopg

from tests.chaos.bench.faults.base import Effect, Fault, Scene

_COLUMNS = {
    "execution": "chaos_region text NOT NULL DEFAULT 'here'",
    "job": "chaos_owner text",
    "execution_history": "chaos_region text",
    "dead_letter": "chaos_region text",
}
_INDEX = "chaos_execution_job"


class SchemaMigrated(Fault):
    """Columns on four tables and an index, with short lock timeouts and repetitions; then ``jobsched migrate``."""

    kind, parts, lasts = "schema_migrated", ("schema",), 22.0

    def hit(self, scene: Scene) -> Effect:
        tries = 0
        try:
            for table, column in _COLUMNS.items():
                tries += _patiently(scene, f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")
            tries += _make_index(scene)
            migrated = scene.until(lambda: _migrate(scene), 30.0, every=0.5)
            scene.cluster.pause(2.0)
        finally:
            _patiently(scene, f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
            for table, column in _COLUMNS.items():
                _patiently(scene, f"ALTER TABLE {table} DROP COLUMN IF EXISTS {column.partition(' ')[0]}")
        told = ("service_failed:schema_mismatch", "service_failed:bug", "taking_failed", "claiming_failed")
        upset = scene.count(*told)
        return Effect(migrated, f"{len(_COLUMNS)} columns and an index in {tries} tries; said of it: {upset}")


def _make_index(scene: Scene) -> int:
    tries = 0
    while True:
        # One that was cut off is left behind, invalid, and must go first.
        tries += _patiently(scene, f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
        tries += _patiently(
            scene, f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {_INDEX} ON execution (job_id, id)", timeout=20
        )
        valid = scene.cluster.ask(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (_INDEX,)
        )
        if valid == [(True,)]:
            return tries
        assert tries < 60, "the index does not become valid"


def _patiently(scene: Scene, statement: str, timeout: float = 10.0) -> int:
    """Run it until it succeeds; how many tries that took."""
    failures: list[str] = []

    def done() -> bool:
        try:
            with scene.cluster.connect(name="schema", timeout=timeout) as connection:
                connection.execute("SET lock_timeout = '1s'")
                connection.execute(statement)
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            failures.append(str(error))
            return False
        return True

    assert scene.until(done, 60.0, every=0.3), f"{statement}: {failures[-1]}"
    return len(failures) + 1


def _migrate(scene: Scene) -> Any:
    try:
        scene.cluster.stand.run("migrate")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    return True

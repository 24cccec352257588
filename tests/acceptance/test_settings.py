"""Wrong settings: how each process says so, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.conftest import with_database

PROCESSES = ("api", "poller", "worker", "migrate")


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """A command in an environment that has none of our settings but these."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("JOBSCHED_") and name not in {"DATABASE_URL", "REDIS_URL", "PORT"}
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jobsched", *arguments],
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: "subprocess.Popen[str]", timeout: float = 60) -> tuple[int, str]:
    """Its exit code and all that it said."""
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("command", PROCESSES)
def test_an_unknown_setting_is_refused_with_the_one_that_was_meant(command: str) -> None:
    code, said = ended(start(command, JOBSCHED_CONCURENCY="5"))
    assert code == 2
    assert "JOBSCHED_CONCURENCY is not a setting of jobsched. Did you mean JOBSCHED_CONCURRENCY?" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", PROCESSES)
def test_a_missing_database_is_a_wrong_setting(command: str) -> None:
    code, said = ended(start(command, REDIS_URL="redis://127.0.0.1:1/0"))
    assert code == 2
    assert "DATABASE_URL is not set" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBSCHED_CONCURRENCY", "many"),
        ("JOBSCHED_CONCURRENCY", "0"),
        ("JOBSCHED_POLL_INTERVAL", "-1"),
        ("JOBSCHED_ALLOW_TARGETS", "10.0.0.0/33"),
        ("JOBSCHED_POOLS", "Nobody's"),
        ("JOBSCHED_SHUTDOWN_GRACE", "inf"),
        ("DATABASE_URL", "mysql://root:secret@127.0.0.1/x"),
        ("REDIS_URL", "http://127.0.0.1"),
    ],
)
def test_a_value_that_cannot_be_is_named_and_never_shown(name: str, value: str) -> None:
    given = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1/0", name: value}
    code, said = ended(start("worker", **given))
    assert code == 2
    assert name in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_a_setting_that_is_a_file_is_read_from_there(tmp_path: Path) -> None:
    code, said = ended(start("worker", DATABASE_URL_FILE=str(tmp_path / "missing")))
    assert (code, "DATABASE_URL_FILE: cannot read" in said) == (2, True)


def test_an_unknown_command_and_a_wrong_flag_are_wrong_usage() -> None:
    assert ended(start("wroker"))[0] == 2
    assert ended(start("worker", "--concurrency", "many"))[0] == 2


def test_a_concurrency_beyond_the_open_files_is_refused(postgres_url: str, redis_url: str) -> None:
    code, said = ended(
        subprocess.Popen(
            [
                "sh",
                "-c",
                'ulimit -n 400 && exec "$0" -m jobsched worker --concurrency 150',
                sys.executable,
            ],
            env=os.environ | {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    assert code == 2
    assert "A concurrency of 150 needs 500 open files, but the limit is 400." in said


def test_two_migrations_at_once_leave_one_schema(postgres_url: str) -> None:
    name = f"twice_{os.getpid()}"
    url = with_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        both = [
            start("migrate", DATABASE_URL=url, JOBSCHED_ADMIN_KEY="one-key-for-both-of-them")
            for _ in range(2)
        ]
        for code, said in [ended(process) for process in both]:
            assert code == 0, said
            assert "Traceback" not in said
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM api_key").fetchall() == [(1,)]
            assert connection.execute("SELECT count(*) FROM instance").fetchall() == [(1,)]
            (partitions,) = connection.execute(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'execution_history'::regclass"
            ).fetchone() or (0,)
            assert partitions >= 15
        code, said = ended(start("migrate", DATABASE_URL=url))
        assert code == 0, said
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

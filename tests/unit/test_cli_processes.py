"""The commands that are processes, and keys: which settings they hand over, with the processes left out."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

import jobsched
from jobsched.cli.app import app
from jobsched.errors import DatabaseUnavailable


class Handed(ModuleType):
    """What stands in for jobsched.wiring: it remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__("jobsched.wiring")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name, 0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def wiring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Handed:
    for name in ("DATABASE_URL", "REDIS_URL", "PORT", "JOBSCHED_PORT", "JOBSCHED_POOLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JOBSCHED_DATA_DIR", str(tmp_path))
    handed = Handed()
    monkeypatch.setitem(sys.modules, "jobsched.wiring", handed)
    monkeypatch.setattr(jobsched, "wiring", handed, raising=False)
    return handed


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args, prog_name="jobsched")


def test_flags_win_over_the_environment(wiring, monkeypatch):
    monkeypatch.setenv("JOBSCHED_PORT", "7000")
    monkeypatch.setenv("JOBSCHED_POOLS", "env")
    assert run("api", "--host", "::1", "--port", "9000").exit_code == 0
    assert run("worker", "--pool", "eu", "--pool", "us", "--concurrency", "7", "--name", "w").exit_code == 0
    assert run("worker").exit_code == 0
    (_, (api,), _), (_, (worker, name), _), (_, (plain, no_name), _) = wiring.calls
    assert (api.host, api.port) == ("::1", 9000)
    assert (worker.pools, worker.concurrency, worker.port, name) == (("eu", "us"), 7, 7000, "w")
    assert (plain.pools, plain.concurrency, no_name) == (("env",), 100, None)


def test_up_stays_on_this_machine_unless_told_otherwise(wiring, tmp_path):
    assert run("up").exit_code == 0
    assert run("up", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "d"), "--workers", "2",
               "--concurrency", "9").exit_code == 0  # fmt: skip
    assert [kwargs for _, _, kwargs in wiring.calls] == [
        {"host": "127.0.0.1", "port": 8080, "data_dir": tmp_path, "workers": 1, "concurrency": None},
        {"host": "0.0.0.0", "port": 0, "data_dir": tmp_path / "d", "workers": 2, "concurrency": 9},
    ]


@pytest.mark.parametrize("command", ["api", "poller", "worker", "migrate", "doctor", "up"])
def test_the_code_of_a_process_is_the_exit_code(wiring, command):
    wiring.answers[f"run_{command}"] = 1
    assert run(command).exit_code == 1


def test_an_impossible_flag_exits_2(wiring):
    assert run("worker", "--pool", "No Such Pool!").exit_code == 2
    assert run("worker", "--concurrency", "0").exit_code == 2
    assert run("api", "--port", "70000").exit_code == 2
    assert wiring.calls == []


def test_a_new_key_stands_alone_on_stdout(wiring):
    wiring.answers["keys_create"] = (3, "secret-key")
    result = run("keys", "create", "--name", "ci", "--role", "write")
    assert (result.exit_code, result.stdout) == (0, "secret-key\n")
    assert "Key 3 for ci, role write" in result.stderr
    as_json = run("keys", "create", "--name", "ci", "--role", "write", "--json")
    assert json.loads(as_json.stdout) == {"id": 3, "name": "ci", "role": "write", "key": "secret-key"}


def test_keys_are_listed_and_revoked(wiring):
    made = datetime(2026, 1, 2, tzinfo=UTC)
    wiring.answers["keys_list"] = [{"id": 3, "name": "ci", "role": "write", "created_at": made}]
    assert json.loads(run("keys", "list", "--json").stdout)["items"] == [
        {"id": 3, "name": "ci", "role": "write", "createdAt": "2026-01-02T00:00:00.000Z"}
    ]
    assert run("keys", "list").stdout.splitlines()[1].split() == [
        "3", "ci", "write", "2026-01-02T00:00:00.000Z", "-", "-",
    ]  # fmt: skip
    wiring.answers["keys_revoke"] = True
    assert run("keys", "revoke", "3").exit_code == 0
    wiring.answers["keys_revoke"] = False
    assert run("keys", "revoke", "4").exit_code == 4


def test_keys_find_the_database_of_a_local_up(wiring, tmp_path, monkeypatch):
    (tmp_path / "database-url").write_text("postgresql://local/jobsched\n")
    wiring.answers["keys_list"] = []
    run("keys", "list")
    monkeypatch.setenv("DATABASE_URL", "postgresql://given/jobsched")
    run("keys", "list")
    assert [args[0].database_url for _, args, _ in wiring.calls] == [
        "postgresql://local/jobsched",
        "postgresql://given/jobsched",
    ]


def test_a_database_that_is_away_exits_1_with_the_reason(wiring):
    wiring.answers["run_migrate"] = DatabaseUnavailable("Postgres at db:5432 cannot be reached.")
    result = run("migrate")
    assert (result.exit_code, result.stderr) == (1, "jobsched: Postgres at db:5432 cannot be reached.\n")

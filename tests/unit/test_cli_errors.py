"""What goes wrong on the command line: one message, one exit code, never a traceback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsched.cli.app import app
from tests.conftest import eventually
from tests.unit.canned_api import JOB, STATS, CannedApi


@pytest.fixture(autouse=True)
def environment(api: CannedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("JOBSCHED_API_KEY", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JOBSCHED_URL", api.url)
    monkeypatch.setenv("JOBSCHED_DATA_DIR", str(tmp_path))


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args, prog_name="jobsched")


def test_a_refused_job_names_every_field(api):
    faults = [
        {"pointer": "/schedule", "message": "61 is not a minute."},
        {"pointer": "/headers/X~1A", "message": "is ours."},
    ]
    api.problem("POST", "/api/v1/jobs", 422, "The request is not valid.", errors=faults, requestId="r1")
    result = run("jobs", "create", "--schedule", "61 * * * *", "--api", "https://example.com")
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        "jobsched: The request is not valid.\n  schedule: 61 is not a minute.\n  headers/X/A: is ours.\n",
    )


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, 5, "JOBSCHED_API_KEY"),
        (403, 5, "larger role"),
        (404, 4, "Nope."),
        (409, 1, "Nope."),
        (412, 1, "Nope."),
        (500, 1, "knows this request as r1"),
    ],
)
def test_each_status_has_its_exit_code_and_says_what_to_do(api, status, code, words):
    api.problem("POST", "/api/v1/jobs/7/pause", status, "Nope.", requestId="r1")
    result = run("jobs", "pause", "7")
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_a_server_that_is_not_there_exits_3_and_says_how_to_start_one(monkeypatch):
    monkeypatch.setenv("JOBSCHED_URL", "http://127.0.0.1:1")
    result = run("jobs", "pause", "7")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("jobsched: Cannot reach http://127.0.0.1:1: connection refused.\n")
    assert "jobsched up" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("jobs", "show"),
        ("jobs", "show", "x"),
        ("jobs", "create"),
        ("jobs", "run", "7", "--timeout", "3"),
        ("keys", "create", "--name", "x"),
        ("keys", "create", "--name", "x", "--role", "king"),
    ],
)
def test_wrong_usage_exits_2(api, args):
    assert (run(*args).exit_code, api.asked) == (2, [])


def test_an_address_that_is_none_is_wrong_usage(monkeypatch):
    monkeypatch.setenv("JOBSCHED_URL", "localhost:8080")
    result = run("stats")
    assert result.exit_code == 2
    assert "write it like https://jobs.example.com" in result.stderr


def test_a_misspelt_setting_exits_2_with_a_suggestion(monkeypatch):
    monkeypatch.setenv("JOBSCHED_CONCURENCY", "7")
    result = run("poller")
    assert (result.exit_code, result.stderr) == (
        2,
        "jobsched: JOBSCHED_CONCURENCY is not a setting of jobsched. Did you mean JOBSCHED_CONCURRENCY?\n",
    )


def test_an_unexpected_error_is_one_line_unless_a_traceback_is_asked_for(api):
    api.answer("GET", "/api/v1/jobs", ["not", "a", "page"])
    result = run("jobs", "list")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "please report it" in result.stderr
    asked_for = run("--traceback", "jobs", "list")
    assert isinstance(asked_for.exception, TypeError)


def test_an_error_of_the_server_cannot_command_the_terminal(api):
    api.problem("GET", "/api/v1/jobs/7", 409, "see \x1b]0;owned\x07 this")
    assert run("jobs", "show", "7").stderr == "jobsched: see ]0;owned this\n"


def test_cron_works_without_a_server_and_refuses_what_never_matches():
    result = run("cron", "0 9 * * MON", "--tz", "Europe/Berlin", "-n", "3")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split("  ")[0] == "TIME IN Europe/Berlin"
    assert [line[:3] for line in lines[1:]] == ["Mon"] * 3
    assert all(" 09:00:00 +0" in line for line in lines[1:])
    for wrong in (("0 0 31 2 *",), ("@daily", "--tz", "Mars/Base")):
        refused = run("cron", *wrong)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "Traceback" not in refused.stderr


def test_cron_prints_as_json_what_the_api_answers():
    answer = json.loads(run("cron", "*/5 9-17 * * MON-FRI", "-n", "2", "--json").stdout)
    assert answer["description"] == "Every 5 minutes from 09:00 to 17:59, Monday to Friday"
    assert [list(item) for item in answer["items"]] == [["scheduledFor", "dueAt", "local", "remark"]] * 2
    assert json.loads(run("cron", "2020-01-01T00:00Z", "--json").stdout)["items"] == []


def start(*args: str) -> subprocess.Popen[bytes]:
    # The environment's coverage or warning settings must not print anything into the child's stderr.
    # A shell that runs the tests in the background lets its children ignore Ctrl-C, which Python respects.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from jobsched.cli import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )


def test_ctrl_c_ends_a_watch_quietly_with_130(api):
    api.answer("GET", "/queue/stats", STATS)
    with start("stats", "--watch", "--interval", "0.1") as process:

        def watched() -> None:
            assert len(api.asked) >= 2

        eventually(watched)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors.strip()) == (130, b"")


def test_a_reader_that_goes_away_is_no_error(api):
    api.answer("GET", "/api/v1/jobs", {"items": [JOB] * 500, "nextCursor": None})
    with start("jobs", "list", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode != 0


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from jobsched.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'requests', 'rich', 'pydantic', 'flask', 'peewee', 'redis', 'pycurl', 'structlog'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "jobs" in result.stdout
    assert result.stderr == "set()\n"

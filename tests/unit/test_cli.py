"""The command line against an HTTP server with canned answers: the everyday verbs."""

import json
import re
from typing import Any

import pytest

from tests.unit.canned_api import EXECUTION, JOB, PREVIEW, SECRETS, STATS

FUTURE = JOB["nextExecutionTime"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person looks: 80 columns, no colours."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


def test_every_field_of_a_job_is_an_option(api, run):
    api.answer("POST", "/api/v1/jobs", JOB, 201)
    options: list[tuple[str, str, Any]] = [
        ("schedule", "@daily", "@daily"),
        ("api", "https://example.com", "https://example.com"),
        ("name", "n", "n"),
        ("key", "k", "k"),
        ("description", "d", "d"),
        ("timezone", "Europe/Berlin", "Europe/Berlin"),
        ("method", "PUT", "PUT"),
        ("payload", '{"a_b": [1]}', {"a_b": [1]}),
        ("type", "at_most_once", "AT_MOST_ONCE"),
        ("max-retry-count", "0", 0),
        ("min-backoff-seconds", "2", 2),
        ("max-backoff-seconds", "60", 60),
        ("backoff-factor", "1.5", 1.5),
        ("backoff-jitter", "0.2", 0.2),
        ("timeout-seconds", "0.5", 0.5),
        ("misfire-policy", "skip", "skip"),
        ("misfire-grace-seconds", "0.5", 0.5),
        ("overlap-policy", "queue", "queue"),
        ("priority", "9", 9),
        ("pool", "eu", "eu"),
        ("start-at", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("end-at", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("max-runs", "3", 3),
        ("jitter-seconds", "4.5", 4.5),
    ]
    args = [part for name, text, _ in options for part in (f"--{name}", text)]
    args += ["--header", "X-A: 1:2", "--header", "X-B:", "--secret-header", "X-A", "--tag", "a", "--tag", "b"]
    args += ["--success-status", "200-299", "--success-status", "404", "--no-retry-status", "400"]
    args += ["--follow-redirects", "--no-is-recurring", "--no-is-active"]
    result = run("jobs", "create", *args)
    assert (result.exit_code, result.stdout) == (
        0,
        "Created job 7 (nightly report). Next run: 2099-01-01T01:30:00.000Z.\n",
    )
    expected = {
        "headers": {"X-A": "1:2", "X-B": ""},
        "secretHeaders": ["X-A"],
        "tags": ["a", "b"],
        "successStatus": ["200-299", "404"],
        "noRetryStatus": ["400"],
        "followRedirects": True,
        "isRecurring": False,
        "isActive": False,
    }
    for name, _, value in options:
        first, *rest = name.split("-")
        expected[first + "".join(map(str.capitalize, rest))] = value
    assert api.asked[0].body == expected
    assert api.asked[0].headers["authorization"] == "Bearer test-key"


def test_the_options_are_the_fields_that_the_client_knows():
    from jobsched.cli.fields import FIELDS
    from jobsched.client.naming import camel
    from jobsched.client.types import JobFields

    assert sorted(field.name for field in FIELDS) == sorted(map(camel, JobFields.__annotations__))


def test_help_shows_each_field_by_what_it_is_for_within_80_columns(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("jobs", "create", "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        "What is called, and when:",
        "How to find it:",
        "What is a failure, and what then:",
        "When and where it runs:",
        "Options:",
    ]
    from jobsched.cli.fields import FIELDS

    shown = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -")]
    assert [f"--{field.option}" for field in FIELDS] == shown[: len(FIELDS)]
    assert "ID" not in [line.strip() for line in run("jobs", "update", "--help").stdout.splitlines()]


def test_json_prints_the_answer_as_it_is(api, run):
    page = {"items": [{**JOB, "name": "ü \x9b31m \ud800"}], "nextCursor": "abc"}
    api.answer("GET", "/api/v1/jobs", page)
    api.answer("GET", "/api/v1/jobs/7", JOB)
    result = run("jobs", "list", "--json", "--limit", "1", "--cursor", "x", "--tag", "a", "--paused")
    assert json.loads(result.stdout) == page
    assert "ü" in result.stdout
    assert "\x9b" not in result.stdout
    assert sorted(api.asked[0].query) == [
        ("cursor", "x"),
        ("isActive", "false"),
        ("limit", "1"),
        ("tag", "a"),
    ]
    assert list(json.loads(run("jobs", "show", "7", "--json").stdout).items()) == list(JOB.items())


def test_a_listing_that_is_not_for_a_terminal_is_plain_aligned_and_whole(api, run):
    other = {**JOB, "id": 12, "name": "two\nlines \x1b[31m", "isActive": False, "lastExecutionTime": None}
    api.answer("GET", "/api/v1/jobs", {"items": [JOB, other | {"lastState": None}], "nextCursor": "abc"})
    lines = run("jobs", "list").stdout.splitlines()
    assert [re.split(r" {2,}", line.strip()) for line in lines] == [
        ["ID", "NAME", "SCHEDULE", "TARGET", "NEXT RUN", "LAST RUN", "LAST STATE"],
        ["7", "nightly report", "30 2 * * *", JOB["api"], FUTURE, "2026-01-01T01:30:00.000Z", "succeeded"],
        ["12", "two lines [31m", "30 2 * * *", JOB["api"], "paused", "-", "-"],
    ]
    for heading in ("NAME", "TARGET", "LAST STATE"):
        at = lines[0].index(heading)
        assert {line[at - 1] for line in lines} == {" "}
        assert " " not in {line[at] for line in lines}


def test_a_terminal_gets_relative_times_and_no_line_is_too_long(api, run, terminal):
    api.answer("GET", "/api/v1/executions", {"items": [EXECUTION | {"scheduledFor": "2000-01-01T00:00:00Z"}]})
    lines = run("executions", "list").stdout.splitlines()
    assert lines[0].split() == [
        "ID",
        "JOB",
        "STATE",
        "TRIGGER",
        "SCHEDULED",
        "FOR",
        "TOOK",
        "ATTEMPT",
        "RESULT",
    ]
    assert lines[1].split() == [
        "1201",
        "7",
        "failed",
        "schedule",
        "2000-01-01",
        "880",
        "ms",
        "2",
        "503",
        "http_status",
    ]
    assert all(len(line) <= 80 for line in lines)


def test_the_history_of_a_job_tells_when_each_run_started(api, run, terminal):
    waited = EXECUTION | {"scheduledFor": "2000-01-01T00:00:00Z", "startedAt": "2001-01-01T00:00:00Z"}
    api.answer("GET", "/api/v1/jobs/7/executions", {"items": [waited]})
    lines = run("jobs", "history", "7").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATE", "TRIGGER", "SCHEDULED", "FOR", "STARTED", "TOOK", "RESULT"]
    assert lines[1].split()[3:5] == ["2000-01-01", "2001-01-01"]
    assert all(len(line) <= 80 for line in lines)


def test_what_a_target_answered_cannot_command_the_terminal(api, run, terminal):
    api.answer("GET", "/api/v1/executions/1201", EXECUTION)
    result = run("executions", "show", "1201")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "  busy [b]now[/b], ]0;ownedcome back\n  later\n" in result.stdout
    assert "timeout: No answer within" in result.stdout


def test_an_empty_listing_prints_nothing_that_a_program_could_take_for_a_row(api, run):
    api.answer("GET", "/api/v1/dead-letters", {"items": [], "nextCursor": None})
    result = run("dead", "list")
    assert (result.stdout, result.stderr) == ("", "No dead letters.\n")


def test_update_sends_only_what_is_given(api, run):
    api.answer("PATCH", "/api/v1/jobs/7", JOB)
    run("jobs", "update", "7", "--priority", "9", "--unset", "end-at", "--unset", "--tag", "--version", "4")
    run("jobs", "update", "7", "--payload", "null")
    assert [asked.body for asked in api.asked] == [
        {"endAt": None, "tags": None, "priority": 9},
        {"payload": None},
    ]
    assert [asked.headers.get("if-match") for asked in api.asked] == ['"4"', None]
    api.answer("PUT", "/api/v1/jobs/7", JOB)
    assert run("jobs", "update", "7", "--replace", "--api", "https://example.com").stdout.startswith(
        "Replaced"
    )
    assert (api.asked[-1].method, api.asked[-1].body) == ("PUT", {"api": "https://example.com"})
    assert run("jobs", "update", "7", "--replace", "--unset", "tag").exit_code == 2
    assert run("jobs", "update", "7").exit_code == 2
    assert run("jobs", "update", "7", "--unset", "nonsense").exit_code == 2


def test_pause_resume_delete_and_history_are_one_call_each(api, run):
    for verb in ("pause", "resume"):
        api.answer("POST", f"/api/v1/jobs/7/{verb}", JOB)
    api.answer("DELETE", "/api/v1/jobs/7", status=204)
    api.answer("GET", "/api/v1/jobs/7/executions", {"items": [EXECUTION], "nextCursor": None})
    assert run("jobs", "pause", "7").stdout.startswith("Paused job 7")
    assert run("jobs", "resume", "7").stdout.startswith("Resumed job 7")
    assert run("jobs", "delete", "7", "--version", "4").stdout == "Deleted job 7.\n"
    assert api.asked[-1].headers["if-match"] == '"4"'
    assert "http_status" in run("jobs", "history", "7", "--state", "failed", "--from", "2026-01-01Z").stdout
    assert api.asked[-1].query == [("state", "failed"), ("from", "2026-01-01Z")]


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("skipped", 1)])
def test_run_with_wait_exits_by_the_outcome(api, run, state, code):
    api.answer("POST", "/api/v1/jobs/7/run", EXECUTION | {"state": "queued"}, 202)
    api.answer("GET", "/api/v1/executions/1201", EXECUTION | {"state": "running"})
    api.answer("GET", "/api/v1/executions/1201", EXECUTION | {"state": state})
    result = run("jobs", "run", "7", "--wait", "--force", "--payload", "[1]", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (code, state)
    assert (api.asked[0].query, api.asked[0].body) == ([("force", "true")], {"payload": [1]})


def test_run_without_wait_says_what_it_started(api, run):
    api.answer(
        "POST", "/api/v1/jobs/7/run", EXECUTION | {"state": "queued", "errorCode": None, "errorMessage": None}
    )
    result = run("jobs", "run", "7")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "Execution 1201 of job 7 is queued.")


def test_run_with_wait_gives_up_after_its_timeout(api, run):
    api.answer("POST", "/api/v1/jobs/7/run", EXECUTION | {"state": "queued"}, 202)
    api.answer("GET", "/api/v1/executions/1201", EXECUTION | {"state": "running"})
    result = run("jobs", "run", "7", "--wait", "--timeout", "0.1")
    assert (result.exit_code, result.stderr) == (
        1,
        "jobsched: Execution 1201 is still running after 0.1 s.\n",
    )


def test_a_job_is_shown_by_its_id_or_by_its_key(api, run):
    api.answer("GET", "/api/v1/jobs/key/a%2Fb", JOB)
    assert run("jobs", "show", "--key", "a/b").stdout.startswith("id ")
    assert run("jobs", "show").exit_code == 2
    assert run("jobs", "show", "7", "--key", "a/b").exit_code == 2


def test_next_shows_when_a_job_runs_exactly_where_a_program_reads(api, run):
    api.answer("GET", "/api/v1/jobs/7/next", PREVIEW)
    lines = run("jobs", "next", "7", "-n", "2").stdout.splitlines()
    assert [re.split(r" {2,}", line) for line in lines] == [
        ["LOCAL TIME", "UTC", "DUE", "REMARK"],
        ["2099-03-28T02:30:00.000+01:00", "2099-03-28T01:30:00.000Z", "2099-03-28T01:30:04.250Z", "-"],
        [
            "2099-03-29T03:00:00.000+02:00",
            "2099-03-29T01:00:00.000Z",
            "2099-03-29T01:00:00.000Z",
            PREVIEW["items"][1]["remark"],
        ],
    ]
    assert api.asked[0].query == [("n", "2")]
    assert json.loads(run("jobs", "next", "7", "--json").stdout) == PREVIEW


def test_next_tells_a_person_what_the_schedule_means_and_what_is_strange_about_a_time(api, run, terminal):
    api.answer("GET", "/api/v1/jobs/7/next", PREVIEW)
    lines = [line.rstrip() for line in run("jobs", "next", "7").stdout.splitlines()]
    assert lines == [
        "At 02:30 every day.",
        "",
        "LOCAL TIME                     UTC                  DUE",
        "Sat 2099-03-28 02:30:00 +0100  2099-03-28 01:30:00  2099-03-28",
        "Sun 2099-03-29 03:00:00 +0200  2099-03-29 01:00:00  2099-03-29",
        "",
        "Sun 2099-03-29 03:00:00 +0200: 02:30 does not exist on this day (the clock jumps",
        "from 02:00 to 03:00); it runs at the first instant after the gap.",
    ]
    empty = {"items": [], "description": "Once, on 2020-01-01 at 00:00 (UTC)"}
    api.answer("GET", "/api/v1/jobs/8/next", empty)
    assert "It does not run again." in run("jobs", "next", "8").stdout


def test_an_idempotency_key_of_the_users_is_sent_as_it_is(api, run):
    api.answer("POST", "/api/v1/jobs", JOB, 201)
    api.answer("POST", "/api/v1/jobs/7/run", EXECUTION, 202)
    for verb in ("cancel", "retry"):
        api.answer("POST", f"/api/v1/executions/1201/{verb}", EXECUTION, 202)
    api.answer("POST", "/api/v1/dead-letters/redrive", {"id": 3, "matched": 0}, 202)
    api.answer("POST", "/api/v1/dead-letters/discard", {"discarded": 0})
    api.answer("POST", "/api/v1/signing-secrets/rotate", SECRETS)
    commands = [
        ("jobs", "create", "--schedule", "@daily", "--api", "https://example.com"),
        ("jobs", "run", "7"),
        ("executions", "cancel", "1201"),
        ("executions", "retry", "1201"),
        ("dead", "redrive", "--all"),
        ("dead", "discard", "--all"),
        ("signing", "rotate"),
    ]
    for command in commands:
        assert run(*command, "--idempotency-key", "deploy 42").exit_code == 0
        assert run(*command, "--idempotency-key", "ü").exit_code == 2
    assert [asked.headers["idempotency-key"] for asked in api.asked] == ["deploy 42"] * len(commands)


def test_signing_secrets_are_printed_whole(api, run):
    api.answer("GET", "/api/v1/signing-secrets", SECRETS)
    api.answer("POST", "/api/v1/signing-secrets/rotate", SECRETS)
    lines = run("signing", "list").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["ID", "SECRET", "CREATED", "VALID", "UNTIL"],
        ["2", SECRETS["items"][0]["secret"], "2026-01-02T00:00:00.000Z", "current"],
        ["1", SECRETS["items"][1]["secret"], "2026-01-01T00:00:00.000Z", "2099-01-03T00:00:00.000Z"],
    ]
    assert json.loads(run("signing", "rotate", "--grace", "60", "--json").stdout) == SECRETS
    assert api.asked[-1].query == [("grace", "60")]


def test_a_secret_goes_on_below_where_a_narrow_terminal_would_cut_it(api, run, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    api.answer("GET", "/api/v1/signing-secrets", SECRETS)
    shown = run("signing", "list").stdout
    assert SECRETS["items"][0]["secret"] in shown


def test_cancel_and_retry_say_what_happens(api, run):
    api.answer("POST", "/api/v1/executions/1/cancel", {"id": 1, "state": "cancelled"})
    api.answer("POST", "/api/v1/executions/2/cancel", {"id": 2, "state": "running"}, 202)
    api.answer("POST", "/api/v1/executions/3/retry", {"id": 3, "state": "retrying"}, 202)
    api.answer("POST", "/api/v1/executions/4/retry", {"id": 9, "state": "queued"}, 202)
    assert run("executions", "cancel", "1").stdout == "Cancelled execution 1.\n"
    assert "being cancelled" in run("executions", "cancel", "2").stdout
    assert run("executions", "retry", "3").stdout == "Execution 3 is due now.\n"
    assert run("executions", "retry", "4").stdout == "Execution 9 repeats execution 4.\n"


def test_stats_shows_queues_sums_and_workers(api, run):
    api.answer("GET", "/queue/stats", STATS)
    lines = run("stats").stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == [
        "QUEUE", "default", "default.high", "all", "WORKER", "w-1", "Poller",
    ]  # fmt: skip
    assert json.loads(run("stats", "--json").stdout) == STATS


def test_payload_and_headers_are_checked_before_anything_is_sent(api, run, tmp_path):
    api.answer("POST", "/api/v1/jobs", JOB, 201)
    base = ("jobs", "create", "--schedule", "@daily", "--api", "https://example.com")
    (tmp_path / "body.json").write_text('{"from": "file"}')
    for wrong in (
        ("--payload", "hello"),
        ("--payload", "NaN"),
        ("--payload", "@/nowhere"),
        ("--header", "no colon"),
        ("--header", "A: 1", "--header", "a: 2"),
        ("--priority", "high"),
        ("--backoff-factor", "nan"),
        ("--overlap-policy", "maybe"),
    ):
        assert run(*base, *wrong).exit_code == 2
    assert api.asked == []
    assert run(*base, "--payload", f"@{tmp_path / 'body.json'}").exit_code == 0
    assert run(*base, "--payload", "@-", input="[2]").exit_code == 0
    assert [asked.body["payload"] for asked in api.asked] == [{"from": "file"}, [2]]

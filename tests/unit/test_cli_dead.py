"""``jobsched dead``: what failed for good, again or away."""

import json
from typing import Any

from tests.unit.canned_api import DEAD_LETTER


def progress(done: int, failed: int = 0) -> dict[str, Any]:
    state = "finished" if done == 2 else "running"
    return {"id": 3, "matched": 2, "done": done, "failed": failed, "state": state}


def test_dead_letters_are_listed_with_every_filter_of_the_api(api, run):
    api.answer("GET", "/api/v1/dead-letters", {"items": [DEAD_LETTER], "nextCursor": None})
    result = run("dead", "list", "--job", "7", "--error-code", "timeout", "--from", "a", "--to", "b")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["ID", "JOB", "SCHEDULED", "FOR", "FAILED", "ATTEMPTS", "ERROR"],
        ["1201", "7", "2026-01-01T01:30:00.000Z", "2026-01-01T01:30:07.911Z", "2", "503", "http_status"],
    ]
    assert sorted(api.asked[0].query) == [
        ("errorCode", "timeout"),
        ("from", "a"),
        ("jobId", "7"),
        ("to", "b"),
    ]


def test_dead_letters_are_chosen_by_ids_by_filter_or_all_and_never_by_nothing(api, run):
    api.answer("POST", "/api/v1/dead-letters/redrive", {"id": 3, "matched": 2}, 202)
    api.answer("POST", "/api/v1/dead-letters/discard", {"discarded": 4})
    assert run("dead", "redrive", "5", "6", "--rate", "2").stdout == (
        "Redrive 3: 2 dead letters to run again.\nSee how far it is with: jobsched dead progress 3\n"
    )
    run("dead", "redrive", "5", "--payload", "@-", input="null")
    run("dead", "redrive", "--job-id", "7", "--error-code", "timeout", "--from", "a", "--to", "b")
    assert run("dead", "discard", "--all").stdout == "Discarded 4 dead letters.\n"
    assert [asked.body for asked in api.asked] == [
        {"ids": [5, 6], "ratePerSecond": 2},
        {"ids": [5], "payload": None},
        {"filter": {"jobId": 7, "errorCode": "timeout", "from": "a", "to": "b"}},
        {"filter": {"all": True}},
    ]
    for wrong in ([], ["5", "--all"], ["--all", "--job-id", "7"]):
        assert run("dead", "discard", *wrong).exit_code == 2
    assert len(api.asked) == 4


def test_a_redrive_is_waited_for_and_exits_by_its_outcome(api, run):
    api.answer("POST", "/api/v1/dead-letters/redrive", {"id": 3, "matched": 2}, 202)
    api.answer("GET", "/api/v1/dead-letters/redrives/3", progress(1))
    api.answer("GET", "/api/v1/dead-letters/redrives/3", progress(2))
    result = run("dead", "redrive", "--all", "--wait")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "Redrive 3 is finished: 2 of 2 ended, none failed.\n",
        "",
    )
    api.answer("GET", "/api/v1/dead-letters/redrives/3", progress(2, failed=1))
    result = run("dead", "redrive", "--all", "--wait", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, progress(2))
    result = run("dead", "progress", "3", "--wait")
    assert result.exit_code == 1
    assert result.stdout == "Redrive 3 is finished: 2 of 2 ended, 1 did not succeed.\n"


def test_progress_is_shown_and_waiting_for_it_ends_with_its_timeout(api, run):
    api.answer("GET", "/api/v1/dead-letters/redrives/3", progress(1))
    assert run("dead", "progress", "3").stdout == "Redrive 3 is running: 1 of 2 ended, none failed.\n"
    assert json.loads(run("dead", "progress", "3", "--json").stdout) == progress(1)
    result = run("dead", "progress", "3", "--wait", "--timeout", "0.1")
    assert (result.exit_code, result.stderr) == (
        1,
        "jobsched: Redrive 3 has ended 1 of 2 executions after 0.1 s.\n",
    )
    assert run("dead", "redrive", "5", "--timeout", "1").exit_code == 2


def test_a_redrive_of_nothing_says_so(api, run):
    api.answer("POST", "/api/v1/dead-letters/redrive", {"id": 3, "matched": 0}, 202)
    for extra in ([], ["--wait"]):
        result = run("dead", "redrive", "5", *extra)
        assert result.stdout == "Redrive 3: 0 dead letters to run again.\n"
        assert "1 of the ids named no dead letter" in result.stderr
        assert result.exit_code == 4
    assert run("dead", "redrive", "--all").exit_code == 0

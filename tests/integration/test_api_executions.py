"""The routes of executions and dead letters."""

import json
from typing import Any

from tests.integration.api_rig import Api, api, assert_problem

__all__ = ["api"]

FINISHED = (
    "INSERT INTO execution_history (id, project_id, job_id, trigger, scheduled_for, due_at, queued_at, started_at, "
    "finished_at, state, attempt, retry_count, max_retry_count, duration_ms, worker, response_status, "
    "response_headers, response_body, response_truncated, error_code, error_message, phases, attempts, job_version) "
    "VALUES (nextval('execution_id_seq'), 1, %s, 'schedule', now(), now(), now(), now(), now(), %s, 1, 0, 3, 12.5, "
    "'worker-1', 200, %s, %s, %s, NULL, NULL, %s, '[]', 1) RETURNING id"
)
PHASES = {"dnsMs": 1.0, "connectMs": 2.0, "tlsMs": None, "firstByteMs": 3.0, "totalMs": 12.5}


def finished(api: Api, job: int, body: bytes | None = b"ok", truncated: bool = False, **fields: Any) -> int:
    """A finished execution, written straight into the history."""
    headers = json.dumps({"content-type": "text/plain"})
    state = fields.get("state", "succeeded")
    return int(api.sql(FINISHED, (job, state, headers, body, truncated, json.dumps(PHASES)))[0][0])


def dead(api: Api, job: int, **fields: Any) -> int:
    """An execution that failed for good, with its dead letter."""
    id = finished(api, job, state="failed")
    row = {"error_code": "timeout", "payload": "{}", **fields}
    api.sql(
        "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, payload, attempt, retry_count, "
        "error_code, error_message, queue, failed_at) "
        "VALUES (%s, 1, %s, 'schedule', now(), %s, 4, 3, %s, 'took too long', 'default', now())",
        (id, job, row["payload"], row["error_code"]),
    )
    return id


def test_an_execution_answers_exactly_the_documented_fields(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    documented = set(spec["components"]["schemas"]["Execution"]["properties"])
    id = finished(api, api.create()["id"])
    answer = api.call("GET", f"/api/v1/executions/{id}", key="read").get_json()
    assert set(answer) == documented
    assert answer["phases"] == PHASES
    assert (answer["responseBody"], answer["responseBodyEncoding"]) == ("ok", "utf-8")
    assert answer["executionDurationMs"] == 12.5
    assert len(answer["finishedAt"]) == len("2026-12-01T09:00:00.000Z")


def test_a_captured_body_is_text_where_it_is_utf_8_and_base64_where_not(api: Api) -> None:
    job = api.create()["id"]
    cases = [
        (None, False, None, None),
        (b"", False, "", "utf-8"),
        ("é\x00".encode(), False, "é\x00", "utf-8"),
        (b"\xff\x00", False, "/wA=", "base64"),
        ("aé".encode()[:-1], False, "YcM=", "base64"),
        ("aé".encode()[:-1], True, "a", "utf-8"),
        ("a😀".encode()[:-1], True, "a", "utf-8"),
    ]
    for body, truncated, text, encoding in cases:
        answer = api.call("GET", f"/api/v1/executions/{finished(api, job, body, truncated)}").get_json()
        assert (answer["responseBody"], answer["responseBodyEncoding"]) == (text, encoding)


def test_executions_are_listed_newest_first_and_filtered(api: Api) -> None:
    job, other = api.create()["id"], api.create()["id"]
    old = finished(api, job)
    failed = finished(api, other, state="failed")
    live = api.call("POST", f"/api/v1/jobs/{job}/run").get_json()["id"]

    def ids(query: str, path: str = "/api/v1/executions") -> list[int]:
        return [item["id"] for item in api.call("GET", f"{path}?{query}").get_json()["items"]]

    assert ids("") == [live, failed, old]
    assert ids(f"jobId={job}") == ids("", f"/api/v1/jobs/{job}/executions") == [live, old]
    assert ids("state=failed&state=pending") == [live, failed]
    assert ids("trigger=manual") == [live]
    assert ids("from=2100-01-01T00:00:00Z") == []
    assert ids("to=2100-01-01T00:00:00Z&from=2000-01-01T00:00:00Z") == [live, failed, old]
    first = api.call("GET", "/api/v1/executions?limit=2").get_json()
    assert ids(f"limit=2&cursor={first['nextCursor']}") == [old]


def test_what_waits_is_cancelled_at_once_and_only_once(api: Api) -> None:
    run = api.call("POST", f"/api/v1/jobs/{api.create()['id']}/run").get_json()["id"]
    answer = api.call("POST", f"/api/v1/executions/{run}/cancel")
    assert (answer.status_code, answer.get_json()["state"]) == (200, "cancelled")
    assert_problem(api.call("POST", f"/api/v1/executions/{run}/cancel"), 409)
    assert_problem(api.call("POST", "/api/v1/executions/999/cancel"), 404)


def test_a_running_execution_is_asked_to_stop(api: Api) -> None:
    run = api.call("POST", f"/api/v1/jobs/{api.create()['id']}/run").get_json()["id"]
    api.sql("UPDATE execution SET state = 'running', worker_id = gen_random_uuid(), attempt = 1")
    answer = api.call("POST", f"/api/v1/executions/{run}/cancel")
    assert (answer.status_code, answer.get_json()["state"]) == (202, "running")
    assert_problem(api.call("POST", f"/api/v1/executions/{run}/retry"), 409)


def test_retry_runs_the_same_when_it_waits_and_another_when_it_is_over(api: Api) -> None:
    job = api.create()["id"]
    run = api.call("POST", f"/api/v1/jobs/{job}/run").get_json()["id"]
    api.sql("UPDATE execution SET state = 'retrying', attempt = 1, due_at = now() + interval '1 hour'")
    same = api.call("POST", f"/api/v1/executions/{run}/retry")
    assert (same.status_code, same.get_json()["id"]) == (202, run)
    over = finished(api, job)
    again = api.call("POST", f"/api/v1/executions/{over}/retry")
    assert again.status_code == 202
    assert (again.get_json()["trigger"], again.get_json()["redriveOf"]) == ("redrive", over)
    assert again.headers["Location"] == f"/api/v1/executions/{again.get_json()['id']}"
    api.call("DELETE", f"/api/v1/jobs/{job}")
    assert_problem(api.call("POST", f"/api/v1/executions/{over}/retry"), 409)


def test_dead_letters_are_listed_and_filtered(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    job, other = api.create()["id"], api.create()["id"]
    first, second = dead(api, job), dead(api, other, error_code="http_status", payload='{"a": 1}')

    def ids(query: str) -> list[int]:
        return [item["id"] for item in api.call("GET", f"/api/v1/dead-letters?{query}").get_json()["items"]]

    assert ids("") == [second, first]
    assert ids(f"jobId={job}") == [first]
    assert ids("errorCode=http_status") == [second]
    assert ids("from=2100-01-01T00:00:00Z") == []
    letter = api.call("GET", "/api/v1/dead-letters?limit=1", key="read").get_json()["items"][0]
    assert set(letter) == set(spec["components"]["schemas"]["DeadLetter"]["properties"])
    assert letter["payload"] == {"a": 1}


def test_the_last_attempt_of_a_dead_letter_reads_as_in_its_execution(api: Api) -> None:
    id = dead(api, api.create()["id"])
    attempt = api.call("GET", f"/api/v1/executions/{id}").get_json()["attempts"][-1]
    api.sql("UPDATE dead_letter SET last_attempt = %s WHERE id = %s", (json.dumps(attempt), id))
    [letter] = api.call("GET", "/api/v1/dead-letters").get_json()["items"]
    assert list(letter["lastAttempt"].items()) == list(attempt.items())
    assert list(letter["lastAttempt"]["phases"]) == list(PHASES)


def test_a_redrive_is_followed_to_its_end(api: Api) -> None:
    job = api.create()["id"]
    ids = [dead(api, job) for _ in range(3)]
    answer = api.call("POST", "/api/v1/dead-letters/redrive", json={"ids": ids[:2]})
    assert answer.status_code == 202
    redrive = answer.get_json()
    assert redrive == {"id": redrive["id"], "matched": 2}
    progress = api.call("GET", answer.headers["Location"], key="read").get_json()
    assert progress == {"id": redrive["id"], "matched": 2, "done": 0, "failed": 0, "state": "running"}
    api.call("POST", "/api/v1/dead-letters/redrive", json={"filter": {"all": True}})
    assert api.sql("SELECT count(*) FROM dead_letter") == [(0,)]
    assert len(api.wakes) == 2


def test_a_redrive_takes_no_payload_where_the_method_carries_none(api: Api) -> None:
    job = api.create(method="HEAD")["id"]
    id = dead(api, job)
    body = {"ids": [id], "payload": {"a": 1}}
    problem = assert_problem(api.call("POST", "/api/v1/dead-letters/redrive", json=body), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/payload"]
    api.call("DELETE", f"/api/v1/jobs/{job}")
    assert_problem(api.call("POST", "/api/v1/dead-letters/redrive", json=body), 409)
    gone = api.call("POST", "/api/v1/dead-letters/redrive", json={**body, "ids": [id + 1]})
    assert gone.get_json()["matched"] == 0


def test_an_empty_selector_never_means_all(api: Api) -> None:
    dead(api, api.create()["id"])
    for call in ("redrive", "discard"):
        for body in (
            {},
            {"ids": []},
            {"filter": {}},
            {"filter": {"all": False}},
            {"ids": [0]},
            {"all": True},
        ):
            assert_problem(api.call("POST", f"/api/v1/dead-letters/{call}", json=body), 422)
        assert_problem(api.call("POST", f"/api/v1/dead-letters/{call}"), 415)
    assert api.sql("SELECT count(*) FROM dead_letter") == [(1,)]


def test_discard_says_how_many_went(api: Api) -> None:
    job = api.create()["id"]
    ids = [dead(api, job), dead(api, job, error_code="http_status")]
    selector = {"filter": {"errorCode": "timeout"}}
    assert api.call("POST", "/api/v1/dead-letters/discard", json=selector).get_json() == {"discarded": 1}
    answer = api.call("POST", "/api/v1/dead-letters/discard", json={"ids": ids})
    assert (answer.status_code, answer.get_json()) == (200, {"discarded": 1})

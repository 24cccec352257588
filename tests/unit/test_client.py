"""The client against an HTTP server with canned answers."""

import pickle
import socket
from datetime import UTC, datetime

import pytest

from jobsched.client import ApiError, Client, Conflict, Invalid, NotFound, Unauthorized, Unreachable
from tests.unit.canned_api import DEAD_LETTER, EXECUTION, JOB, PREVIEW, SECRETS, STATS


def test_fields_in_snake_case_travel_in_camel_case_and_values_are_left_alone(api, client):
    api.answer("POST", "/api/v1/jobs", JOB, 201)
    job = client.jobs.create(
        {"schedule": "@daily", "pool": "eu"},
        api="https://example.com",
        max_retry_count=5,
        payload={"snake_case": [1, None]},
        headers={"X-Some_Header": "a"},
        start_at=datetime(2026, 1, 2, tzinfo=UTC),
        pool="us",
    )
    assert job == JOB
    (asked,) = api.asked
    assert asked.body == {
        "schedule": "@daily",
        "pool": "us",
        "api": "https://example.com",
        "maxRetryCount": 5,
        "payload": {"snake_case": [1, None]},
        "headers": {"X-Some_Header": "a"},
        "startAt": "2026-01-02T00:00:00+00:00",
    }
    assert asked.headers["authorization"] == "Bearer test-key"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("jobsched-client/")


def test_each_verb_of_jobs_is_one_call(api, client):
    for method, path, status in [
        ("GET", "/api/v1/jobs/7", 200),
        ("PATCH", "/api/v1/jobs/7", 200),
        ("PUT", "/api/v1/jobs/7", 200),
        ("PUT", "/api/v1/jobs/key/a%2Fb%20%C3%BC", 200),
        ("GET", "/api/v1/jobs/key/a%2Fb%20%C3%BC", 200),
        ("GET", "/api/v1/jobs/7/next", 200),
        ("POST", "/api/v1/jobs/7/pause", 200),
        ("POST", "/api/v1/jobs/7/resume", 200),
        ("POST", "/api/v1/jobs/7/run", 202),
    ]:
        api.answer(method, path, JOB, status)
    api.answer("DELETE", "/api/v1/jobs/7", status=204)

    client.jobs.get(7)
    client.jobs.update(7, priority=9, end_at=None)
    client.jobs.update(7, {"priority": 9}, version=4)
    client.jobs.replace(7, schedule="@daily", api="https://example.com", version=4)
    client.jobs.upsert("a/b ü", {"schedule": "@daily"}, version=4, pool="eu")
    client.jobs.upsert(key="a/b ü", schedule="@daily")
    client.jobs.get_by_key("a/b ü")
    client.jobs.pause(7)
    client.jobs.resume(7)
    client.jobs.run(7)
    client.jobs.run(7, payload=None, force=True)
    client.jobs.next(7, n=3)
    assert client.jobs.delete(7) is None
    assert client.jobs.delete(7, version=4) is None

    assert [(a.method, a.path.removeprefix("/api/v1/jobs"), a.query, a.body) for a in api.asked] == [
        ("GET", "/7", [], None),
        ("PATCH", "/7", [], {"priority": 9, "endAt": None}),
        ("PATCH", "/7", [], {"priority": 9}),
        ("PUT", "/7", [], {"schedule": "@daily", "api": "https://example.com"}),
        ("PUT", "/key/a%2Fb%20%C3%BC", [], {"schedule": "@daily", "pool": "eu"}),
        ("PUT", "/key/a%2Fb%20%C3%BC", [], {"schedule": "@daily"}),
        ("GET", "/key/a%2Fb%20%C3%BC", [], None),
        ("POST", "/7/pause", [], None),
        ("POST", "/7/resume", [], None),
        ("POST", "/7/run", [], None),
        ("POST", "/7/run", [("force", "true")], {"payload": None}),
        ("GET", "/7/next", [("n", "3")], None),
        ("DELETE", "/7", [], None),
        ("DELETE", "/7", [], None),
    ]
    demanded = [(a.method, a.headers["if-match"]) for a in api.asked if "if-match" in a.headers]
    assert demanded == [("PATCH", '"4"'), ("PUT", '"4"'), ("PUT", '"4"'), ("DELETE", '"4"')]


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_that_no_address_can_hold_is_refused_before_anything_is_sent(api, client, key):
    with pytest.raises(ValueError, match="cannot stand in an address"):
        client.jobs.upsert(key, JOB)
    assert api.asked == []


def test_what_is_known_already_is_not_read_again(api, client):
    api.answer("GET", "/api/v1/jobs/7", status=304)
    api.answer("GET", "/api/v1/jobs/key/k", status=304)
    assert client.jobs.get(7, unless_version=4) is None
    assert client.jobs.get_by_key("k", unless_version=4) is None
    assert [asked.headers["if-none-match"] for asked in api.asked] == ['"4"', '"4"']


def test_upsert_may_be_told_to_replace_nothing(api, client):
    api.problem("PUT", "/api/v1/jobs/key/k", 412, "There is a job with this key.")
    with pytest.raises(Conflict):
        client.jobs.upsert("k", JOB, only_new=True)
    assert api.asked[0].headers["if-none-match"] == "*"


def test_a_schedule_is_previewed_in_its_zone(api, client):
    api.answer("POST", "/api/v1/schedules/preview", PREVIEW)
    assert client.schedules.preview("30 2 * * *", "Europe/Berlin", n=2) == PREVIEW
    assert client.schedules.preview("@daily") == PREVIEW
    client.schedules.preview(
        "@every 1h", n=1, start_at=datetime(2026, 1, 1, tzinfo=UTC), end_at="x", max_runs=2
    )
    bounds = {"startAt": "2026-01-01T00:00:00+00:00", "endAt": "x", "maxRuns": 2}
    assert api.asked.pop().body == {"schedule": "@every 1h", "timezone": "UTC", "n": 1, **bounds}
    assert [asked.body for asked in api.asked] == [
        {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "n": 2},
        {"schedule": "@daily", "timezone": "UTC", "n": 10},
    ]


def test_signing_secrets_are_listed_and_rotated(api, client):
    api.answer("GET", "/api/v1/signing-secrets", SECRETS)
    api.answer("POST", "/api/v1/signing-secrets/rotate", SECRETS)
    assert client.signing_secrets.list() == SECRETS
    assert client.signing_secrets.rotate() == SECRETS
    assert client.signing_secrets.rotate(grace=0) == SECRETS
    assert [asked.query for asked in api.asked] == [[], [], [("grace", "0")]]


def test_a_redrive_is_waited_for_and_its_progress_told(api, client, naps):
    progress = [
        {"id": 3, "matched": 2, "done": done, "failed": failed, "state": state}
        for done, failed, state in ((0, 0, "running"), (1, 1, "running"), (2, 1, "finished"))
    ]
    for each in progress:
        api.answer("GET", "/api/v1/dead-letters/redrives/3", each)
    told: list[object] = []
    assert client.dead_letters.wait(3, timeout=60, progress=told.append) == progress[-1]
    assert (told, len(naps)) == (progress, 2)
    api.answer("GET", "/api/v1/dead-letters/redrives/4", {**progress[1], "id": 4})
    with pytest.raises(TimeoutError, match=r"Redrive 4 has ended 1 of 2 executions after 0 s\."):
        client.dead_letters.wait(4, timeout=0)


def test_a_list_goes_through_all_pages_and_keeps_its_filters(api, client):
    api.answer("GET", "/api/v1/jobs", {"items": [{"id": 3}, {"id": 2}], "nextCursor": "abc"})
    api.answer("GET", "/api/v1/jobs", {"items": [{"id": 1}], "nextCursor": None})
    found = list(client.jobs.list(is_active=False, tag=["a", "b"], q="x y", limit=2))
    assert [job["id"] for job in found] == [3, 2, 1]
    filters = [("q", "x y"), ("isActive", "false"), ("tag", "a"), ("tag", "b"), ("limit", "2")]
    assert [asked.query for asked in api.asked] == [filters, [*filters, ("cursor", "abc")]]


def test_executions_and_dead_letters_speak_the_contract(api, client):
    for path in ("/api/v1/executions", "/api/v1/jobs/7/executions"):
        api.answer("GET", path, {"items": [EXECUTION], "nextCursor": None})
    api.answer("GET", "/api/v1/dead-letters", {"items": [DEAD_LETTER], "nextCursor": None})
    api.answer("POST", "/api/v1/executions/1201/cancel", EXECUTION, 202)
    api.answer("POST", "/api/v1/executions/1201/retry", EXECUTION, 202)
    api.answer("POST", "/api/v1/dead-letters/redrive", {"id": 1, "matched": 2}, 202)
    api.answer("GET", "/api/v1/dead-letters/redrives/1", {"matched": 2, "done": 1})
    api.answer("POST", "/api/v1/dead-letters/discard", {"discarded": 2})

    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert list(client.executions.list(state="failed", job_id=7, from_=since)) == [EXECUTION]
    assert list(client.jobs.executions(7, trigger="manual")) == [EXECUTION]
    assert list(client.dead_letters.list(error_code="timeout")) == [DEAD_LETTER]
    client.executions.cancel(1201)
    client.executions.retry(1201)
    assert client.dead_letters.redrive([5, 6], rate_per_second=2) == {"id": 1, "matched": 2}
    client.dead_letters.redrive([5], payload=None)
    client.dead_letters.redrive(filter={"job_id": 7, "from_": since})
    assert client.dead_letters.redrive_progress(1)["done"] == 1
    assert client.dead_letters.discard(filter={"all": True}) == {"discarded": 2}

    assert [asked.query for asked in api.asked[:3]] == [
        [("state", "failed"), ("jobId", "7"), ("from", "2026-01-01T00:00:00+00:00")],
        [("trigger", "manual")],
        [("errorCode", "timeout")],
    ]
    assert [asked.body for asked in api.asked[5:]] == [
        {"ids": [5, 6], "ratePerSecond": 2},
        {"ids": [5], "payload": None},
        {"filter": {"jobId": 7, "from": "2026-01-01T00:00:00+00:00"}},
        None,
        {"filter": {"all": True}},
    ]


def test_wait_looks_until_the_execution_is_final(api, client, naps):
    for state in ("queued", "running", "retrying", "succeeded"):
        api.answer("GET", "/api/v1/executions/1", {"id": 1, "state": state})
    assert client.executions.wait(1, timeout=60)["state"] == "succeeded"
    assert len(naps) == 3


def test_wait_gives_up_after_its_timeout(api, client):
    api.answer("GET", "/api/v1/executions/1", {"id": 1, "state": "running"})
    with pytest.raises(TimeoutError, match="still running"):
        client.executions.wait(1, timeout=0.15)


def test_stats_and_ready_are_answers_even_if_the_server_is_not_ready(api, client, naps):
    api.answer("GET", "/queue/stats", STATS)
    api.answer("GET", "/ready", {"status": "unavailable", "checks": {"database": "down"}}, 503)
    assert client.stats() == STATS
    assert client.ready()["status"] == "unavailable"
    assert naps == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (413, Invalid),
        (422, Invalid),
        (500, ApiError),
    ],
)
def test_each_status_has_its_error(api, client, status, kind):
    api.problem("GET", "/api/v1/jobs/1", status, "No.", requestId="r-1")
    with pytest.raises(ApiError) as caught:
        client.jobs.get(1)
    error = caught.value
    assert (type(error), error.status, error.message, error.request_id) == (kind, status, "No.", "r-1")
    assert pickle.loads(pickle.dumps(error)).problem == error.problem


def test_an_error_names_every_fault(api, client):
    faults = [
        {"pointer": "/schedule", "message": "must be given"},
        {"parameter": "limit", "message": "is too large"},
    ]
    api.problem("POST", "/api/v1/jobs", 422, "The request is not valid.", errors=faults)
    with pytest.raises(Invalid) as caught:
        client.jobs.create()
    assert caught.value.faults == (("/schedule", "must be given"), ("limit", "is too large"))
    assert str(caught.value) == (
        "422 The request is not valid. /schedule: must be given; limit: is too large"
    )


def test_a_server_that_is_not_there_is_unreachable_and_says_so(naps):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url) as client:
        with pytest.raises(Unreachable) as caught:
            client.jobs.get(1)
        assert caught.value.status == 0
        assert str(caught.value) == f"Cannot reach {url}: connection refused."
        with pytest.raises(Unreachable) as caught:
            client.jobs.create()
        assert str(caught.value) == f"Cannot reach {url}: connection refused."


def test_a_redirect_is_not_followed_since_a_post_would_become_a_get(api, client):
    api.answer("POST", "/api/v1/jobs", "", 301, Location="https://elsewhere.example/api/v1/jobs")
    with pytest.raises(ApiError, match="redirects to https://elsewhere"):
        client.jobs.create()
    assert len(api.asked) == 1


def test_an_answer_that_is_not_jobscheds_is_an_error(api, client):
    api.answer("GET", "/api/v1/jobs/7", "<html>Welcome</html>")
    with pytest.raises(ApiError, match="Is the address right"):
        client.jobs.get(7)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(api, client, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    api.answer("GET", "/api/v1/jobs/7", JOB)
    assert client.jobs.get(7) == JOB


def test_a_netrc_entry_does_not_replace_the_key(api, client, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    api.answer("GET", "/api/v1/jobs/7", JOB)
    client.jobs.get(7)
    assert api.asked[0].headers["authorization"] == "Bearer test-key"

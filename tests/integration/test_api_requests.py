"""What holds for every call: keys, roles, ids of requests, bodies, parameters, errors."""

import io
import threading
from typing import Any

import pytest

from tests.integration.api_rig import JOB, Api, api, assert_problem, fresh_api

__all__ = ["api", "fresh_api"]

WRITES = [
    ("POST", "/api/v1/jobs"),
    ("POST", "/api/v1/jobs/bulk"),
    ("PUT", "/api/v1/jobs/key/1"),
    ("PUT", "/api/v1/jobs/1"),
    ("PATCH", "/api/v1/jobs/1"),
    ("DELETE", "/api/v1/jobs/1"),
    ("POST", "/api/v1/jobs/1/pause"),
    ("POST", "/api/v1/jobs/1/resume"),
    ("POST", "/api/v1/jobs/1/run"),
    ("POST", "/api/v1/executions/1/cancel"),
    ("POST", "/api/v1/executions/1/retry"),
    ("POST", "/api/v1/dead-letters/redrive"),
    ("POST", "/api/v1/dead-letters/discard"),
]
READS = [
    ("GET", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/1"),
    ("GET", "/api/v1/jobs/key/1"),
    ("GET", "/api/v1/jobs/1/next"),
    ("POST", "/api/v1/schedules/preview"),
    ("GET", "/api/v1/jobs/1/executions"),
    ("GET", "/api/v1/executions"),
    ("GET", "/api/v1/executions/1"),
    ("GET", "/api/v1/dead-letters"),
    ("GET", "/api/v1/dead-letters/redrives/1"),
    ("GET", "/queue/stats"),
    ("GET", "/metrics"),
]
ADMIN = [
    ("GET", "/api/v1/signing-secrets"),
    ("POST", "/api/v1/signing-secrets/rotate"),
]


def test_the_lists_above_and_the_document_name_the_same_calls(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    documented = {
        (method.upper(), path)
        for path, item in spec["paths"].items()
        for method, call in item.items()
        if call.get("security")
    }
    listed = {
        (method, path.replace("/key/1", "/key/{key}").replace("/1", "/{id}"))
        for method, path in READS + WRITES + ADMIN
    }
    assert documented == listed


def test_every_call_needs_a_key_and_says_so_before_anything_else(api: Api) -> None:
    strange = [("GET", "/nowhere"), ("PUT", "/api/v1/jobs"), ("OPTIONS", "/api/v1/jobs"), ("BREW", "/")]
    for method, path in READS + WRITES + ADMIN + strange:
        for key in (None, "jsk_wrong", "ü", "x" * 5000):
            answer = api.call(method, path, key=key)
            assert_problem(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


MALFORMED_KEYS = ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer\tx", "nonsense"]


def test_a_malformed_authorization_is_401(api: Api) -> None:
    for header in MALFORMED_KEYS:
        assert_problem(api.call("GET", "/api/v1/jobs", key=None, headers={"Authorization": header}), 401)


def test_the_scheme_of_the_key_is_read_in_any_case(api: Api) -> None:
    headers = {"Authorization": f"bEARER {api.keys['read']}"}
    assert api.call("GET", "/api/v1/jobs", key=None, headers=headers).status_code == 200


def test_a_revoked_key_is_worthless_at_once(api: Api) -> None:
    api.sql("UPDATE api_key SET revoked_at = now() WHERE role = 'read'")
    assert_problem(api.call("GET", "/api/v1/jobs", key="read"), 401)


def test_a_read_key_reads_and_changes_nothing(api: Api) -> None:
    for method, path in WRITES:
        assert_problem(api.call(method, path, key="read", data=b"{"), 403)
    for method, path in READS:
        assert api.call(method, path, key="read").status_code in {200, 404, 415}


def test_a_write_key_may_all_that_is_here(api: Api) -> None:
    for method, path in READS + WRITES:
        assert api.call(method, path, key="write").status_code not in {401, 403}
    for method, path in ADMIN:
        assert_problem(api.call(method, path, key="write"), 403)


NOWHERE = [
    "/nowhere",
    "/api/v1/jobs/",
    "/api/v1/jobs/0",
    "/api/v1/jobs/-1",
    "/api/v1/jobs/01",
    "/api/v1/jobs/1.0",
    "/api/v1/jobs/x",
    "/api/v1/jobs/%00",
    "/api/v1/jobs/9223372036854775808",
    "/api/v1/jobs/9223372036854775807",
    "/api/v1/jobs/%D9%A1",
    "/api/v1//jobs",
    "/api/v1/executions/9223372036854775807",
    "/api/v1/dead-letters/redrives/12",
    "/api/v1/jobs/12/executions",
]


def test_what_does_not_exist_is_404(api: Api) -> None:
    for path in NOWHERE:
        assert_problem(api.call("GET", path), 404)
    # Nor does another method tell that there could be such a path.
    for method in ("PUT", "PATCH", "DELETE"):
        assert_problem(api.call(method, "/api/v1/jobs/9223372036854775808", json=JOB), 404)


def test_another_method_is_405_with_those_that_are_possible(api: Api) -> None:
    answer = api.call("DELETE", "/api/v1/jobs")
    assert_problem(answer, 405)
    assert {part.strip() for part in answer.headers["Allow"].split(",")} == {"GET", "HEAD", "OPTIONS", "POST"}


def test_head_and_options_are_sane(api: Api) -> None:
    head = api.call("HEAD", "/api/v1/jobs")
    assert (head.status_code, head.data) == (200, b"")
    options = api.call("OPTIONS", "/api/v1/jobs")
    assert options.status_code == 200
    assert "POST" in options.headers["Allow"]


PATHS = ["/health", "/nowhere", "/api/v1/jobs", "/docs"]


def test_a_sane_request_id_is_echoed_and_any_other_replaced(api: Api) -> None:
    for path in PATHS:
        assert api.call("GET", path, headers={"X-Request-Id": "a.B_9-"}).headers["X-Request-Id"] == "a.B_9-"
        for other in ("", "x" * 129, "a b", "ü", "a;b"):
            replaced = api.call("GET", path, headers={"X-Request-Id": other}).headers["X-Request-Id"]
            assert replaced != other
            assert replaced.startswith("req_")


def test_answers_are_neither_cached_nor_sniffed(api: Api) -> None:
    for path in ("/api/v1/jobs", "/nowhere", "/health"):
        headers = api.call("GET", path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


BAD_BODIES = [
    (b"", 400),
    (b"  ", 400),
    (b"{", 400),
    (b"{} {}", 400),
    (b'\xef\xbb\xbf{"schedule": "@daily"}', 400),
    (b'{"name": "\xff"}', 400),
    ('{"schedule": "@daily"}'.encode("utf-16"), 400),
    (b'{"payload": NaN}', 400),
    (b'{"payload": [-Infinity]}', 400),
    (b'{"api": "a", "api": "b"}', 400),
    (b'{"name": "a\x00b"}', 400),
    (b'{"payload": 1e999}', 422),
    (b'{"payload": ' + b"9" * 5000 + b"}", 422),
    (b'{"name": "a\\u0000b"}', 422),
    (b'{"payload": "\\ud800"}', 422),
    (b'{"\\ud800": 1}', 422),
    (b'{"payload": ' + b"[" * 150 + b"]" * 150 + b"}", 422),
    (b"[" * 100_000, 422),
    (b"[" * 50_000 + b"]" * 50_000, 422),
    (b"[]", 422),
    (b"null", 422),
    (b'"text"', 422),
    (b"7", 422),
]


def test_bytes_that_make_no_job_are_refused_and_write_nothing(api: Api) -> None:
    for body, status in BAD_BODIES:
        assert_problem(api.call("POST", "/api/v1/jobs", data=body, content_type="application/json"), status)
        assert api.sql("SELECT count(*) FROM job") == [(0,)]


def test_a_body_over_1_mib_is_413_with_and_without_a_length(api: Api) -> None:
    body = b'{"payload": "' + b"x" * 1024 * 1024 + b'"}'
    assert_problem(api.call("POST", "/api/v1/jobs", data=body, content_type="application/json"), 413)
    chunked = {
        "input_stream": io.BytesIO(body),
        "headers": {"Transfer-Encoding": "chunked"},
        "environ_overrides": {"wsgi.input_terminated": True},
        "content_type": "application/json",
    }
    assert_problem(api.call("POST", "/api/v1/jobs", **chunked), 413)
    chunked["input_stream"] = io.BytesIO(b'{"schedule": "@daily", "api": "https://example.com"}')
    assert api.call("POST", "/api/v1/jobs", **chunked).status_code == 201


CONTENT_TYPES = [
    ("application/json", 201),
    ("Application/JSON; charset=UTF-8", 201),
    ("application/json; charset=latin-1", 415),
    ("application/merge-patch+json", 415),
    ("application/x-www-form-urlencoded", 415),
    ("text/plain", 415),
    ("", 415),
    ("json", 415),
    (";;;", 415),
]


def test_only_json_in_utf_8_is_taken(api: Api) -> None:
    for content_type, status in CONTENT_TYPES:
        body = b'{"schedule": "@daily", "api": "https://example.com"}'
        headers = {"Content-Type": content_type} if content_type else {}
        answer = api.call("POST", "/api/v1/jobs", data=body, headers=headers)
        assert answer.status_code == status


def test_a_compressed_body_is_415(api: Api) -> None:
    answer = api.call("POST", "/api/v1/jobs", json=JOB, headers={"Content-Encoding": "gzip"})
    assert_problem(answer, 415)


BAD_PARAMETERS = [
    ("/api/v1/jobs?limit=0", ["limit"]),
    ("/api/v1/jobs?limit=501", ["limit"]),
    ("/api/v1/jobs?limit=ten&cursor=x&colour=red", ["colour", "limit"]),
    ("/api/v1/jobs?limit=%2B5", ["limit"]),
    ("/api/v1/jobs?limit=5&limit=6", ["limit"]),
    ("/api/v1/jobs?cursor=x", ["cursor"]),
    ("/api/v1/jobs?cursor=", ["cursor"]),
    ("/api/v1/jobs?isActive=yes", ["isActive"]),
    ("/api/v1/jobs?state=dead", ["state"]),
    ("/api/v1/jobs?q=a%00b", ["q"]),
    ("/api/v1/jobs/1?pretty=1", ["pretty"]),
    ("/api/v1/executions?jobId=0", ["jobId"]),
    ("/api/v1/executions?jobId=9223372036854775808", ["jobId"]),
    ("/api/v1/executions?trigger=cron", ["trigger"]),
    ("/api/v1/executions?from=yesterday", ["from"]),
    ("/api/v1/executions?from=0001-01-01T00:00:00%2B23:00", ["from"]),
    ("/api/v1/executions?to=2026-13-01T00:00:00Z", ["to"]),
    ("/api/v1/dead-letters?errorCode=" + "x" * 51, ["errorCode"]),
    ("/queue/stats?x=1", ["x"]),
]


def test_parameters_that_are_wrong_or_not_known_are_all_named(api: Api) -> None:
    for path, parameters in BAD_PARAMETERS:
        problem = assert_problem(api.call("GET", path), 422)
        assert [fault["parameter"] for fault in problem["errors"]] == parameters


def test_an_instant_may_lack_its_offset_or_have_its_plus_turned_into_a_space(api: Api) -> None:
    for text in ("2026-01-01T00:00:00", "2026-01-01T00:00:00+01:00", "2026-01-01t00:00z"):
        assert api.call("GET", f"/api/v1/executions?from={text}").status_code == 200
    # A space between date and time is no plus.
    for text in ("2026-01-01 00:30", "2026-01-01 23:59", "2026-01-01 00:00:00.1234567890 01:00"):
        assert api.call("GET", f"/api/v1/executions?from={text}").status_code == 200


def test_a_cursor_of_another_list_is_refused(api: Api) -> None:
    api.create()
    api.create()
    cursor = api.call("GET", "/api/v1/jobs?limit=1").get_json()["nextCursor"]
    assert_problem(api.call("GET", f"/api/v1/executions?cursor={cursor}"), 422)
    assert_problem(api.call("GET", f"/api/v1/jobs?cursor={cursor}="), 422)


def test_an_error_that_nobody_foresaw_is_500_without_its_cause(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("a detail of the inside")

    monkeypatch.setattr("jobsched.web.serialize.job", explode)
    answer = api.call("POST", "/api/v1/jobs", json=JOB)
    problem = assert_problem(answer, 500)
    assert "inside" not in answer.text
    output = capsys.readouterr()
    assert problem["requestId"] in output.out + output.err


def test_without_the_database_the_api_answers_503_and_says_when_to_try_again(
    fresh_api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    database = fresh_api.sql("SELECT current_database()")[0][0]
    assert fresh_api.call("GET", "/api/v1/jobs").status_code == 200
    fresh_api.sql("UPDATE pg_database SET datallowconn = false WHERE datname = current_database()")
    fresh_api.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for method, path in (("GET", "/api/v1/jobs"), ("GET", "/nowhere"), ("POST", "/api/v1/jobs")):
        answer = fresh_api.call(method, path, json=JOB if method == "POST" else None)
        assert_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert database not in answer.text
    ready = fresh_api.call("GET", "/ready", key=None)
    assert ready.status_code == 503
    assert ready.get_json()["checks"]["database"] != "ok"
    assert fresh_api.call("GET", "/health", key=None).status_code == 200
    fresh_api.sql("UPDATE pg_database SET datallowconn = true WHERE datname = current_database()")
    assert fresh_api.call("POST", "/api/v1/jobs", json=JOB).status_code == 201
    assert fresh_api.call("GET", "/ready", key=None).status_code == 200
    assert "Traceback" not in capsys.readouterr().err


def test_when_connecting_hangs_the_others_are_not_kept_waiting(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsched.web.app.CHECKOUT_SECONDS", 0.05)
    hanging, go_on = threading.Event(), threading.Event()

    def hang(pool: Any) -> Any:
        hanging.set()
        go_on.wait(10)
        return pool.connection_context()

    api.connection = hang
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(api.call("GET", "/api/v1/jobs").status_code))
    thread.start()
    assert hanging.wait(5)
    assert_problem(api.call("GET", "/api/v1/jobs"), 503)
    assert_problem(api.call("GET", "/api/v1/jobs", key=None), 401)
    assert api.call("GET", "/health", key=None).status_code == 200
    go_on.set()
    thread.join()
    assert first == [200]

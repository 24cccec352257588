"""/queue/stats, /health, /ready, the document and its page."""

import re

from jobsched.queue.broker import RqCounts
from tests.integration.api_rig import JOB, Api, api, assert_problem, fresh_api

__all__ = ["api", "fresh_api"]

NUMBERS = {"queued": 0, "running": 0, "pending": 0, "retrying": 0, "dead": 0, "oldestWaitSeconds": 0.0}
RQ = ("ready", "processing", "retry", "completed", "failed")


def test_stats_of_an_empty_installation_list_the_default_queue(api: Api) -> None:
    zeros = dict.fromkeys(RQ, 0)
    assert api.call("GET", "/queue/stats", key="read").get_json() == {
        "queues": [{"name": "default", "pool": "default", **zeros, **NUMBERS}],
        "totals": {**zeros, **NUMBERS},
        "workers": [],
        "pollerLagSeconds": None,
    }


def test_stats_put_postgres_and_rq_side_by_side(api: Api) -> None:
    for priority in (5, 9, 9):
        job = api.create(priority=priority, pool="eu")["id"]
        api.call("POST", f"/api/v1/jobs/{job}/run")
    api.sql("UPDATE execution SET due_at = now() - interval '1 minute' WHERE queue = 'eu'")
    api.rq = {"eu.high": RqCounts(7, 1, 2, 3, 4)}
    stats = api.call("GET", "/queue/stats").get_json()
    assert [queue["name"] for queue in stats["queues"]] == ["default", "eu.high", "eu"]
    high = stats["queues"][1]
    assert (high["pool"], high["pending"], high["ready"], high["failed"]) == ("eu", 2, 7, 4)
    assert (stats["totals"]["pending"], stats["totals"]["ready"]) == (3, 7)
    assert 60 <= stats["totals"]["oldestWaitSeconds"] < 90


def test_stats_name_the_living_workers(api: Api) -> None:
    api.sql(
        "INSERT INTO worker_process (id, kind, name, host, pid, pools, concurrency, in_flight) "
        "VALUES (gen_random_uuid(), 'worker', 'w1', 'h', 7, '{eu}', 100, 3)"
    )
    stats = api.call("GET", "/queue/stats").get_json()
    [worker] = stats["workers"]
    assert worker["startedAt"] <= worker["heartbeatAt"]
    assert (worker["name"], worker["pid"], worker["pools"], worker["inFlight"]) == ("w1", 7, ["eu"], 3)
    assert [queue["name"] for queue in stats["queues"]] == ["default", "eu"]


def test_without_redis_stats_go_on_with_nulls(api: Api) -> None:
    api.rq = None
    answer = api.call("GET", "/queue/stats")
    assert answer.status_code == 200
    assert {answer.get_json()["totals"][name] for name in RQ} == {None}
    assert answer.get_json()["totals"]["queued"] == 0


def test_readiness_names_what_is_missing(api: Api) -> None:
    ready = api.call("GET", "/ready", key=None)
    assert ready.status_code == 200
    assert ready.get_json()["status"] == "degraded"
    assert ready.get_json()["checks"] == {
        "database": "ok",
        "schema": "ok",
        "redis": "ok",
        "poller": "none is alive",
    }
    api.sql(
        "INSERT INTO worker_process (id, kind, name, host, pid, lag_seconds) "
        "VALUES (gen_random_uuid(), 'poller', 'p', 'h', 1, 0)"
    )
    assert api.call("GET", "/ready?verbose", key=None).get_json()["status"] == "ok"
    job = api.create()["id"]
    api.sql(f"UPDATE job_schedule SET next_execution_time = now() - interval '40 s' WHERE job_id = {job}")
    checks = api.call("GET", "/ready", key=None).get_json()["checks"]
    assert checks["poller"] == "alive, but what is due is not fired"
    api.sql(f"UPDATE job_schedule SET next_execution_time = now() WHERE job_id = {job}")
    api.redis_fault = "does not answer"
    ready = api.call("GET", "/ready", key=None)
    assert (ready.status_code, ready.get_json()["status"]) == (200, "degraded")
    assert ready.get_json()["checks"]["redis"] == "does not answer"


def test_another_schema_is_not_ready(fresh_api: Api) -> None:
    fresh_api.sql("DELETE FROM schema_migration")
    ready = fresh_api.call("GET", "/ready", key=None)
    assert (ready.status_code, ready.get_json()["status"]) == (503, "unavailable")
    assert ready.get_json()["checks"]["schema"] != "ok"


def test_another_schema_is_503(fresh_api: Api) -> None:
    fresh_api.sql("ALTER TABLE job RENAME TO job_of_another_time")
    problem = assert_problem(fresh_api.call("GET", "/api/v1/jobs"), 503)
    assert problem["type"] == "urn:jobsched:error:schema_mismatch"


def test_a_read_only_database_still_answers_reads(fresh_api: Api) -> None:
    job = fresh_api.create()
    [(name,)] = fresh_api.sql("SELECT current_database()")
    fresh_api.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    fresh_api.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert fresh_api.call("GET", f"/api/v1/jobs/{job['id']}").get_json() == job
    assert_problem(fresh_api.call("POST", "/api/v1/jobs", json=JOB), 503)


def test_the_document_is_openapi_3_1_and_describes_everything(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    assert spec["openapi"].startswith("3.1")
    names = {f"#/components/schemas/{name}" for name in spec["components"]["schemas"]}
    assert set(re.findall(r"#/components/schemas/\w+", str(spec))) <= names
    for path, item in spec["paths"].items():
        for method, call in item.items():
            where = f"{method} {path}"
            assert call["summary"], where
            assert call["description"], where
            assert {"{" in path} == {any(p["in"] == "path" for p in call.get("parameters", []))}, where
            assert all(parameter["description"] for parameter in call.get("parameters", [])), where
            if method in ("put", "patch"):
                assert "requestBody" in call, where
            if call.get("security"):
                assert {"401", "422", "503"} <= set(call["responses"]), where
                assert ("403" in call["responses"]) == (call["x-required-role"] != "read"), where
    for name in ("JobCreate", "JobPatch"):
        fields = spec["components"]["schemas"][name]["properties"]
        assert all(field.get("description") for field in fields.values())


def test_the_document_says_what_clients_are_made_from(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    shapes = spec["components"]["schemas"]
    job = api.create()
    assert set(shapes["Job"]["required"]) == set(job)
    patch = shapes["JobPatch"]["properties"]
    assert not [name for name, field in patch.items() if "default" in field]
    assert (patch["schedule"]["type"], patch["api"]["type"]) == ("string", "string")
    assert shapes["JobCreate"]["properties"]["schedule"]["examples"]
    assert shapes["JobCreate"]["properties"]["priority"]["minimum"] == 0
    for item in spec["paths"].values():
        for call in item.values():
            assert "null" not in str([parameter["schema"] for parameter in call.get("parameters", [])])


def test_the_document_names_the_headers_of_answers(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    described = set(spec["components"]["headers"]) - {"Idempotent-Replayed"}  # of repetitions only
    job = api.create()["id"]
    for method, path, concrete in (
        ("POST", "/api/v1/jobs", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/{id}", f"/api/v1/jobs/{job}"),
        ("PATCH", "/api/v1/jobs/{id}", f"/api/v1/jobs/{job}"),
        ("PUT", "/api/v1/jobs/{id}", f"/api/v1/jobs/{job}"),
        ("POST", "/api/v1/jobs/{id}/pause", f"/api/v1/jobs/{job}/pause"),
        ("POST", "/api/v1/jobs/{id}/resume", f"/api/v1/jobs/{job}/resume"),
        ("POST", "/api/v1/jobs/{id}/run", f"/api/v1/jobs/{job}/run"),
        ("POST", "/api/v1/dead-letters/redrive", "/api/v1/dead-letters/redrive"),
        ("GET", "/api/v1/executions", "/api/v1/executions"),
        ("DELETE", "/api/v1/jobs/{id}", f"/api/v1/jobs/{job}"),
        ("GET", "/health", "/health"),
    ):
        body = {"filter": {"all": True}} if path.endswith("redrive") else JOB
        sends_body = method in ("PUT", "PATCH") or path in ("/api/v1/jobs", "/api/v1/dead-letters/redrive")
        options = {"json": body} if sends_body and method != "GET" else {}
        responses = spec["paths"][path][method.lower()]["responses"]
        for key in ("admin", None):
            answer = api.call(method, concrete, key=key, **options)
            documented = described & set(responses[str(answer.status_code)].get("headers", {}))
            assert documented == described & set(answer.headers.keys()), (method, path, answer.status_code)


def test_json_answers_end_their_line(api: Api) -> None:
    for path in ("/health", "/openapi.json", "/api/v1/jobs", "/nowhere"):
        assert api.call("GET", path).data.endswith(b"}\n")


def test_the_page_for_people_asks_no_other_host_and_runs_no_script(api: Api) -> None:
    page = api.call("GET", "/docs", key=None)
    assert page.status_code == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "<script" not in page.text
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page.text)) == {"/docs/style.css", "/openapi.json"}
    assert "/api/v1/dead-letters/redrive" in page.text
    assert "Body: A report on weekdays" in page.text
    assert "&#34;schedule&#34;: &#34;0 3 * * MON-FRI&#34;" in page.text
    style = api.call("GET", "/docs/style.css", key=None)
    assert style.content_type.startswith("text/css")

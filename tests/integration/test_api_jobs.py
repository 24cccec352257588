"""The routes of jobs."""

import threading
from typing import Any

from tests.integration.api_rig import JOB, Api, api, assert_problem

__all__ = ["api"]


def test_a_created_job_is_answered_whole_and_found_at_its_location(api: Api) -> None:
    answer = api.call(
        "POST", "/api/v1/jobs", json={**JOB, "name": "é", "payload": {"b": 1, "a": [1.5, None]}}
    )
    assert answer.status_code == 201
    job = answer.get_json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert list(job["payload"]) == ["b", "a"]
    assert job["nextExecutionTime"].endswith("Z")
    found = api.call("GET", answer.headers["Location"], key="read")
    assert found.get_json() == job
    assert found.headers["ETag"] == '"1"'


def test_a_job_answers_exactly_the_documented_fields(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    assert set(api.create()) == set(spec["components"]["schemas"]["Job"]["properties"])


def test_every_fault_is_named_with_its_pointer(api: Api) -> None:
    body = {"schedule": "61 * * * *", "api": "ftp://x", "prioritty": 5, "maxRetryCount": 101, "tags": ["", 1]}
    problem = assert_problem(api.call("POST", "/api/v1/jobs", json=body), 422)
    pointers = {fault["pointer"] for fault in problem["errors"]}
    assert {"/schedule", "/api", "/prioritty", "/maxRetryCount"} <= pointers
    assert any("priority" in fault["message"] for fault in problem["errors"])
    assert api.sql("SELECT count(*) FROM job") == [(0,)]


def test_a_refused_address_is_422_at_api(api: Api) -> None:
    problem = assert_problem(api.call("POST", "/api/v1/jobs", json={**JOB, "api": "http://127.0.0.1/"}), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/api"]


def test_a_key_that_exists_is_409(api: Api) -> None:
    api.create(key="nightly")
    assert_problem(api.call("POST", "/api/v1/jobs", json={**JOB, "key": "nightly"}), 409)
    other = api.create(key="other")
    assert_problem(api.call("PATCH", f"/api/v1/jobs/{other['id']}", json={"key": "nightly"}), 409)


def test_secret_headers_are_masked_in_every_answer_and_kept_when_sent_back(api: Api) -> None:
    headers = {"Authorization": "Bearer one", "x-api-key": "two", "X-Mine": "three", "X-Plain": "four"}
    masked = {"Authorization": "***", "x-api-key": "***", "X-Mine": "***", "X-Plain": "four"}
    job = api.create(headers=headers, secretHeaders=["x-mine"])
    path = f"/api/v1/jobs/{job['id']}"
    answers = [
        job,
        api.call("GET", path).get_json(),
        api.call("GET", "/api/v1/jobs").get_json()["items"][0],
        api.call("PATCH", path, json={"name": "n"}).get_json(),
        api.call("POST", f"{path}/pause").get_json(),
        api.call("POST", f"{path}/resume").get_json(),
    ]
    whole = answers[-1]
    answers.append(api.call("PUT", path, json=whole).get_json())
    assert [answer["headers"] for answer in answers] == [masked] * len(answers)
    assert api.sql("SELECT headers FROM job") == [(headers,)]


def test_an_answer_can_be_put_back_as_it_is(api: Api) -> None:
    job = api.create(name="n", tags=["a"], payload=[1])
    again = api.call("PUT", f"/api/v1/jobs/{job['id']}", json=job)
    assert again.status_code == 200
    assert again.get_json() == job


def test_put_replaces_and_patch_merges(api: Api) -> None:
    job = api.create(name="n", description="d", headers={"A": "1"}, payload={"x": 1, "y": 2})
    path = f"/api/v1/jobs/{job['id']}"
    patched = api.call(
        "PATCH",
        path,
        data=b'{"name": null, "payload": {"x": 3}, "headers": {"B": "2"}}',
        content_type="application/merge-patch+json",
    ).get_json()
    assert (patched["name"], patched["description"]) == (None, "d")
    assert (patched["payload"], patched["headers"]) == ({"x": 3}, {"B": "2"})
    assert patched["version"] == 2
    assert patched["nextExecutionTime"] == job["nextExecutionTime"]
    replaced = api.call("PUT", path, json=JOB).get_json()
    assert (replaced["description"], replaced["payload"], replaced["headers"]) == (None, None, {})


def test_read_only_fields_must_be_the_present_ones(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}"
    assert api.call("PATCH", path, json={"version": 1, "name": "n"}).status_code == 200
    problem = assert_problem(api.call("PATCH", path, json={"version": 1, "id": 7}), 422)
    assert {fault["pointer"] for fault in problem["errors"]} == {"/version", "/id"}


def test_if_match_guards_against_lost_updates(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}"
    assert api.call("PATCH", path, json={"name": "a"}, headers={"If-Match": '"1"'}).status_code == 200
    for stale in ('"1"', "1", '"x"', 'W/"2"', '"1", "3"', ""):
        for method, body in (("PATCH", {"name": "b"}), ("PUT", JOB), ("DELETE", None)):
            answer = api.call(method, path, json=body, headers={"If-Match": stale})
            assert_problem(answer, 412)
    for fresh, name in (('"2"', "c"), ('"1", "3"', "d"), ("*", "e")):
        answer = api.call("PATCH", path, json={"name": name}, headers={"If-Match": fresh})
        assert answer.status_code == 200, fresh
    assert api.call("DELETE", path, headers={"If-Match": '"5"'}).status_code == 204


def test_of_two_edits_of_one_version_one_wins(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}"
    barrier = threading.Barrier(2)
    statuses = []

    def edit(name: str) -> None:
        barrier.wait()
        answer = api.call("PATCH", path, json={"name": name}, headers={"If-Match": '"1"'})
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=edit, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412]


def test_pause_and_resume_answer_the_job_also_when_repeated(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}"
    for call, active in (("pause", False), ("pause", False), ("resume", True), ("resume", True)):
        answer = api.call("POST", f"{path}/{call}")
        assert answer.status_code == 200
        assert answer.get_json()["isActive"] is active


def test_a_deleted_job_is_gone_but_its_history_is_not(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}"
    run = api.call("POST", f"{path}/run").get_json()
    deleted = api.call("DELETE", path)
    assert (deleted.status_code, deleted.data) == (204, b"")
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/pause")):
        assert_problem(api.call(method, path + suffix), 404)
    history = api.call("GET", f"{path}/executions").get_json()["items"]
    assert [(item["id"], item["state"]) for item in history] == [(run["id"], "cancelled")]


def test_run_answers_202_with_the_execution(api: Api) -> None:
    job = api.create(payload={"a": 1}, isActive=False)
    path = f"/api/v1/jobs/{job['id']}/run"
    answer = api.call("POST", path)
    execution = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/executions/{execution['id']}"
    assert (execution["trigger"], execution["state"], execution["jobId"]) == ("manual", "pending", job["id"])
    assert api.call("GET", answer.headers["Location"]).get_json() == execution
    assert api.call("POST", f"{path}?force=true", json={"payload": {"b": 2}}).status_code == 202
    assert api.sql("SELECT payload, force FROM execution ORDER BY id") == [(None, False), ({"b": 2}, True)]


def test_a_run_takes_a_payload_and_nothing_else(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}/run"
    for body in (b"null", b"[]", b'{"paylod": 1}'):
        assert_problem(api.call("POST", path, data=body, content_type="application/json"), 422)
    assert_problem(api.call("POST", path, data=b"payload=1"), 415)
    assert_problem(api.call("POST", f"{path}?force=1"), 422)
    assert api.sql("SELECT count(*) FROM execution") == [(0,)]


def test_a_run_takes_no_payload_where_the_method_carries_none(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create(method='GET')['id']}/run"
    problem = assert_problem(api.call("POST", path, json={"payload": {"a": 1}}), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/payload"]
    assert api.call("POST", path, json={"payload": None}).status_code == 202


def test_lists_go_from_new_to_old_and_page_without_gaps(api: Api) -> None:
    ids = [api.create()["id"] for _ in range(5)]
    first = api.call("GET", "/api/v1/jobs?limit=2").get_json()
    api.create()
    api.call("DELETE", f"/api/v1/jobs/{ids[1]}")
    second = api.call("GET", f"/api/v1/jobs?limit=2&cursor={first['nextCursor']}").get_json()
    pages = [[job["id"] for job in page["items"]] for page in (first, second)]
    assert pages == [[ids[4], ids[3]], [ids[2], ids[0]]]
    assert second["nextCursor"] is None


def test_jobs_are_filtered(api: Api) -> None:
    api.create(name="Alpha 100%", tags=["x"], pool="eu")
    api.create(description="an alpha_beta", tags=["y"], isActive=False)
    api.create(key="gamma", tags=["z"])

    def names(query: str) -> list[Any]:
        return [job["tags"][0] for job in api.call("GET", f"/api/v1/jobs?{query}").get_json()["items"]]

    assert names("q=alpha") == ["y", "x"]
    assert names("q=100%25") == ["x"]
    assert names("q=a_b") == ["y"]
    assert names("q=gamma&isActive=true") == ["z"]
    assert names("isActive=false") == ["y"]
    assert names("pool=eu") == ["x"]
    assert names("tag=x&tag=z") == ["z", "x"]
    assert names("state=failed&state=succeeded") == []
    assert names("q=") == ["z", "y", "x"]


def test_only_what_is_due_soon_wakes_the_pollers(api: Api) -> None:
    api.create()
    assert api.wakes == []
    soon = api.create(schedule="@every 1s")
    assert len(api.wakes) == 1
    path = f"/api/v1/jobs/{soon['id']}"
    api.call("POST", f"{path}/pause")
    assert len(api.wakes) == 1
    api.call("POST", f"{path}/resume")
    api.call("POST", f"{path}/run")
    assert len(api.wakes) == 3


def test_a_job_of_another_project_does_not_exist(api: Api) -> None:
    job = api.create()
    api.sql("INSERT INTO project (id, name) VALUES (2, 'other')")
    api.sql("UPDATE job SET project_id = 2")
    path = f"/api/v1/jobs/{job['id']}"
    calls = (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/run"), ("GET", "/executions"))
    for method, suffix in calls:
        body = {"name": "n"} if method == "PATCH" else None
        assert_problem(api.call(method, path + suffix, json=body), 404)
    assert api.call("GET", "/api/v1/jobs").get_json() == {"items": [], "nextCursor": None}


def test_numbers_in_a_payload_come_back_as_they_were_sent(api: Api) -> None:
    sent = [2**63 - 1, 2**64, -(10**30), 1e22, 5e-324, 0.1, -0.0]
    job = api.create(payload=sent)
    for path in (f"/api/v1/jobs/{job['id']}", "/api/v1/jobs"):
        answer = api.call("GET", path).get_json()
        [found] = answer.get("items", [answer])
        assert repr(found["payload"]) == repr(sent)

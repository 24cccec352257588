"""Many jobs at once: how they are cut into requests, and what comes back."""

import json

import pytest

from jobsched.client import ApiError, Invalid, bulk

PATH = "/api/v1/jobs/bulk"


def test_many_jobs_are_one_request_of_the_apis_names(api, client):
    answer = {"created": 2, "ids": [8, 9], "errors": []}
    api.answer("POST", PATH, answer, 201)
    jobs = ({"schedule": "@daily", "max_retry_count": n, "payload": {"a_b": n}} for n in range(2))
    assert client.jobs.create_many(jobs) == answer
    (asked,) = api.asked
    assert (asked.query, asked.headers["content-type"]) == ([], "application/json")
    assert asked.body == [{"schedule": "@daily", "maxRetryCount": n, "payload": {"a_b": n}} for n in range(2)]


def test_no_jobs_are_no_request(api, client):
    assert client.jobs.create_many([]) == {"created": 0, "ids": [], "errors": []}
    assert client.jobs.create_many([], partial=True) == {"created": 0, "ids": [], "errors": []}
    assert api.asked == []


def test_one_fault_refuses_all_and_says_where_it_is(api, client):
    fault = {"pointer": "/71/priority", "message": "is too large"}
    api.problem("POST", PATH, 422, "The jobs are not valid.", errors=[fault])
    with pytest.raises(Invalid) as caught:
        client.jobs.create_many([{}])
    assert caught.value.faults == (("/71/priority", "is too large"),)
    assert caught.value.done is None


def test_all_or_none_has_the_limit_of_one_request(api, client):
    with pytest.raises(ValueError, match="10001 jobs cannot be created all or none"):
        client.jobs.create_many({} for _ in range(10_001))
    assert api.asked == []


def test_partly_more_are_several_requests_and_one_result(api, client):
    fault = [{"pointer": "/api", "message": "is missing"}]
    api.answer("POST", PATH, {"created": 9_999, "ids": [1, 2], "errors": [{"index": 7, "errors": fault}]})
    api.answer("POST", PATH, {"created": 1, "ids": [3], "errors": [{"index": 1, "errors": fault}]})
    result = client.jobs.create_many(({"name": n} for n in range(10_002)), partial=True, idempotency_key="k")
    assert result == {
        "created": 10_000,
        "ids": [1, 2, 3],
        "errors": [{"index": 7, "errors": fault}, {"index": 10_001, "errors": fault}],
    }
    assert [asked.query for asked in api.asked] == [[("partial", "true")]] * 2
    assert [len(asked.body) for asked in api.asked] == [10_000, 2]
    assert api.asked[1].body == [{"name": 10_000}, {"name": 10_001}]
    # The second request has another body, for which the server would refuse the same key.
    assert [asked.headers["idempotency-key"] for asked in api.asked] == ["k", "k-10000"]


def test_what_was_done_before_a_request_failed_is_not_lost(api, client):
    api.answer("POST", PATH, {"created": 1, "ids": [1], "errors": []})
    api.problem("POST", PATH, 500, "Oh.")
    with pytest.raises(ApiError) as caught:
        client.jobs.create_many(({} for _ in range(10_001)), partial=True)
    assert caught.value.done == {"created": 1, "ids": [1], "errors": []}


def test_a_job_that_cannot_be_sent_sends_none(api, client):
    jobs = [*({} for _ in range(10_000)), {"payload": {1, 2}}]
    with pytest.raises(TypeError, match="set cannot be sent as JSON"):
        client.jobs.create_many(jobs, partial=True)
    with pytest.raises(ValueError, match="JSON compliant"):
        client.jobs.create_many([{"payload": float("nan")}])
    assert api.asked == []


def test_batches_keep_to_the_servers_limit_of_bytes(monkeypatch):
    monkeypatch.setattr(bulk, "MOST_BYTES", 20)
    items = [json.dumps("x" * size).encode() for size in (6, 6, 7, 30, 3, 4, 5)]
    found = list(bulk.batches(items))
    assert [value for batch in found for value in json.loads(batch.body)] == [
        "x" * size for size in (6, 6, 7, 30, 3, 4, 5)
    ]
    assert [(batch.first, len(batch.body)) for batch in found] == [(0, 19), (2, 11), (3, 34), (4, 14), (6, 9)]

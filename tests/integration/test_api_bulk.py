"""POST /api/v1/jobs/bulk."""

import io
import json
from typing import Any

import pytest

from jobsched.domain.bulk import MAX_JOBS
from jobsched.web.body import MAX_BODY_BYTES
from tests.integration.api_rig import JOB, Api, api, assert_problem

__all__ = ["api"]

BULK = "/api/v1/jobs/bulk"
LINES = {"content_type": "application/x-ndjson"}


def jobs(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**JOB, "name": str(n), **fields} for n in range(count)]


def ndjson(documents: list[Any]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def count(api: Api) -> int:
    return api.sql("SELECT count(*) FROM job")[0][0]


def test_ids_come_in_the_order_given(api: Api) -> None:
    answer = api.call("POST", BULK, json=jobs(30), key="write")
    assert answer.status_code == 201, answer.text
    made = answer.get_json()
    assert (made["created"], made["errors"]) == (30, [])
    names = [api.call("GET", f"/api/v1/jobs/{job_id}").get_json()["name"] for job_id in made["ids"][::7]]
    assert names == ["0", "7", "14", "21", "28"]


def test_lines_do_as_well_and_empty_ones_do_not_count(api: Api) -> None:
    text = f"\n{ndjson(jobs(2))}\r\n  \n{json.dumps(JOB)}"
    answer = api.call("POST", BULK, data=text, **LINES)
    assert answer.status_code == 201, answer.text
    assert answer.get_json()["created"] == count(api) == 3


def test_a_job_of_a_bulk_is_answered_as_one_created_alone(api: Api) -> None:
    fields = {"key": "k", "payload": {"b": 1, "a": [1.50, None]}, "headers": {"Cookie": "c"}, "tags": ["x"]}
    [job_id] = api.call("POST", BULK, json=[{**JOB, **fields}]).get_json()["ids"]
    bulk = api.call("GET", f"/api/v1/jobs/{job_id}").get_json()
    alone = api.create(**fields | {"key": "other"})
    own = {"id", "key", "createdAt", "updatedAt", "nextExecutionTime"}
    assert {name: bulk[name] for name in bulk.keys() - own} == {
        name: alone[name] for name in alone.keys() - own
    }


def test_a_fault_names_item_and_field_and_leaves_nothing(api: Api) -> None:
    documents = jobs(MAX_JOBS)
    documents[7123]["priority"] = 11
    for options in ({"json": documents}, {"data": ndjson(documents), **LINES}):
        problem = assert_problem(api.call("POST", BULK, **options), 422)
        assert problem["errors"] == [{"pointer": "/7123/priority", "message": "must be at most 10"}]
        assert count(api) == 0


def test_partial_creates_the_good_ones_and_names_the_others(api: Api) -> None:
    api.create(key="taken")
    documents = [JOB, {**JOB, "priority": 11, "colour": 1}, {**JOB, "key": "taken"}, {**JOB, "key": "new"}, 7]
    answer = api.call("POST", BULK, json=documents, query_string={"partial": "true"})
    assert answer.status_code == 200, answer.text
    made = answer.get_json()
    assert [api.call("GET", f"/api/v1/jobs/{job_id}").get_json()["key"] for job_id in made["ids"]] == [
        None,
        "new",
    ]
    assert made["created"] == 2
    pointers = [
        (item["index"], sorted(fault["pointer"] for fault in item["errors"])) for item in made["errors"]
    ]
    assert pointers == [(1, ["/colour", "/priority"]), (2, ["/key"]), (4, [""])]


@pytest.mark.parametrize("in_a_transaction", [False, True])
def test_a_large_bulk_with_a_key_that_exists_is_judged_like_a_small_one(
    api: Api, in_a_transaction: bool
) -> None:
    api.create(key="taken")
    documents = jobs(2000)
    documents[1700]["key"] = "taken"
    documents[1800]["key"] = documents[1801]["key"] = "new"
    headers = {"Idempotency-Key": "once"} if in_a_transaction else {}
    problem = assert_problem(api.call("POST", BULK, json=documents, headers=headers), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/1700/key", "/1801/key"]
    assert count(api) == 1
    answer = api.call("POST", f"{BULK}?partial=true", data=ndjson(documents), headers=headers, **LINES)
    made = answer.get_json()
    assert (made["created"], [item["index"] for item in made["errors"]]) == (1998, [1700, 1801])
    names = [api.call("GET", f"/api/v1/jobs/{job_id}").get_json()["name"] for job_id in made["ids"][::400]]
    assert names == ["0", "400", "800", "1200", "1600"]


@pytest.mark.parametrize("tail", ["x]", ',{"api":1,"api":2}]', ",{}"])
def test_a_large_array_that_breaks_at_its_end_leaves_nothing(api: Api, tail: str) -> None:
    body = json.dumps(jobs(2000))[:-1] + tail
    for query in ("", "?partial=true"):
        answer = api.call("POST", BULK + query, data=body, content_type="application/json")
        assert_problem(answer, 400)
    assert count(api) == 0


def test_partial_without_a_good_one_is_200_all_the_same(api: Api) -> None:
    answer = api.call("POST", f"{BULK}?partial=true", json=[{}])
    assert (answer.status_code, answer.get_json()["ids"]) == (200, [])


def test_a_broken_line_is_that_items_fault(api: Api) -> None:
    text = f"{json.dumps(JOB)}\n{{broken\n{json.dumps(JOB)}\n"
    problem = assert_problem(api.call("POST", BULK, data=text, **LINES), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/1"]
    made = api.call("POST", f"{BULK}?partial=true", data=text, **LINES).get_json()
    assert (made["created"], [item["index"] for item in made["errors"]]) == (2, [1])


def test_a_key_that_exists_or_comes_twice_is_a_fault_of_its_item(api: Api) -> None:
    api.create(key="taken")
    documents = [{**JOB, "key": key} for key in ("a", "taken", "a")]
    problem = assert_problem(api.call("POST", BULK, json=documents), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/1/key", "/2/key"]
    assert count(api) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("[]", 422),
        ("{}", 422),
        ("", 400),
        ("[{]", 400),
        ('[{"a":1,"a":2}]', 400),
        ("\ufeff[]", 400),
        ("[1,2]x", 400),
    ],
)
def test_what_is_no_array_of_jobs_is_refused(api: Api, body: str, status: int) -> None:
    for query in ("", "?partial=true"):
        assert_problem(
            api.call("POST", BULK + query, data=body.encode(), content_type="application/json"), status
        )


def test_no_line_is_refused(api: Api) -> None:
    for body in ("", "\n\n"):
        assert_problem(api.call("POST", BULK, data=body, **LINES), 422)


def test_other_media_types_are_415(api: Api) -> None:
    for kind in ("text/plain", "application/json-seq", "application/merge-patch+json"):
        assert_problem(api.call("POST", BULK, data="[]", content_type=kind), 415)
    assert_problem(api.call("POST", BULK, data="[]"), 415)


def test_more_than_ten_thousand_are_413(api: Api) -> None:
    documents = jobs(MAX_JOBS + 1)
    for options in ({"json": documents}, {"data": ndjson(documents), **LINES}):
        for query in ("", "?partial=true"):
            problem = assert_problem(api.call("POST", BULK + query, **options), 413)
            assert problem["type"] == "urn:jobsched:error:too_many_jobs"
    assert count(api) == 0


def test_a_body_beyond_64_mib_is_413_however_it_comes(api: Api) -> None:
    line = b"\n" * (1024 * 1024)
    stream = io.BytesIO(line * 64 + b"\n")
    headers = {"Content-Length": str(64 * 1024 * 1024 + 1)}
    assert_problem(api.call("POST", BULK, input_stream=stream, headers=headers, **LINES), 413)

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"\n" * len(buffer)
            return len(buffer)

    environ = {"wsgi.input_terminated": True, "wsgi.input": Endless()}
    answer = api.call("POST", BULK, environ_overrides=environ, **LINES)
    assert_problem(answer, 413)


def test_a_body_larger_than_that_of_other_calls_is_taken(api: Api) -> None:
    answer = api.call("POST", BULK, json=jobs(12, payload="x" * 200_000))
    assert answer.request.content_length > 2 * MAX_BODY_BYTES
    assert answer.status_code == 201


def test_at_most_a_hundred_faults_are_listed(api: Api) -> None:
    problem = assert_problem(api.call("POST", BULK, json=jobs(500, priority=99)), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == [f"/{n}/priority" for n in range(100)]
    made = api.call("POST", f"{BULK}?partial=true", json=jobs(500, priority=99)).get_json()
    assert len(made["errors"]) == 500


def test_pollers_are_woken_only_for_what_is_due_soon(api: Api) -> None:
    api.call("POST", BULK, json=jobs(2))
    assert len(api.wakes) == 0
    api.call("POST", BULK, json=[*jobs(2), {**JOB, "schedule": "@every 1s"}])
    assert len(api.wakes) == 1


def test_a_repeated_bulk_gets_the_first_answer(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = api.call("POST", BULK, json=jobs(3, payload="x" * 250_000) * 3, headers=headers)
    assert first.status_code == 201, first.text
    again = api.call("POST", BULK, json=jobs(3, payload="x" * 250_000) * 3, headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.get_json() == first.get_json()
    assert count(api) == 9


def test_a_refused_address_is_a_fault_of_its_item(api: Api) -> None:
    documents = [JOB, {**JOB, "api": "http://127.0.0.1/"}]
    problem = assert_problem(api.call("POST", BULK, json=documents), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/1/api"]


def test_an_unknown_parameter_is_refused(api: Api) -> None:
    for query in ("partially=true", "partial=yes", "partial=true&partial=true"):
        assert_problem(api.call("POST", f"{BULK}?{query}", json=[JOB]), 422)

"""A job by its key: created or replaced, read, and whether a copy of it is still good."""

import threading
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.api_rig import JOB, Api, api, assert_problem
from tests.integration.stored import Stored

__all__ = ["api"]


def path(key: str) -> str:
    return f"/api/v1/jobs/key/{quote(key, safe='')}"


def put(api: Api, at: str, conditions: dict[str, str] | None = None, /, **fields: Any) -> Any:
    return api.call("PUT", path(at), json={**JOB, **fields}, headers=conditions or {}, key="write")


def test_a_job_is_created_then_left_alone_then_replaced(api: Api) -> None:
    created = put(api, "nightly", name="n", description="d")
    assert created.status_code == 201, created.text
    job = created.get_json()
    assert (job["key"], job["version"]) == ("nightly", 1)
    assert created.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert created.headers["ETag"] == '"1"'
    same = put(api, "nightly", name="n", description="d")
    assert (same.status_code, same.get_json(), same.headers["ETag"]) == (200, job, '"1"')
    assert "Location" not in same.headers
    changed = put(api, "nightly", key="nightly", name="m")
    assert changed.status_code == 200
    assert changed.get_json() == job | {
        "name": "m", "description": None, "version": 2, "updatedAt": changed.get_json()["updatedAt"]
    }  # fmt: skip
    assert api.call("GET", f"/api/v1/jobs/{job['id']}").get_json() == changed.get_json()


KEYS = [
    "a",
    "a/b",
    "/a//b/",
    "..",
    "a b+c",
    "100%",
    "%2F",
    "ü🙂",
    "a?b#c&d=e",
    "line\nend",
    "\t ",
    "next",
    "1",
    "x" * 200,
    "é" * 200,
]


@pytest.mark.parametrize("key", KEYS)
def test_any_text_is_a_key(api: Api, key: str) -> None:
    created = put(api, key)
    assert created.status_code == 201, created.text
    assert created.get_json()["key"] == key
    assert put(api, key, name="n").get_json()["id"] == created.get_json()["id"]
    assert api.call("GET", path(key), key="read").get_json()["name"] == "n"
    assert api.sql("SELECT key FROM job") == [(key,)]


def test_what_cannot_be_a_key_is_refused(api: Api) -> None:
    for wrong in ("x" * 201, "a\0b", "\xff", "\xc3"):
        for method in ("PUT", "GET"):
            # As a server hands it over: the bytes of the path, each as a character.
            environ = {"PATH_INFO": f"/api/v1/jobs/key/{wrong}"}
            body = JOB if method == "PUT" else None
            problem = assert_problem(api.call(method, "/", json=body, environ_overrides=environ), 422)
            assert [fault["parameter"] for fault in problem["errors"]] == ["key"]
    assert_problem(api.call("PUT", "/api/v1/jobs/key/", json=JOB), 404)
    assert api.sql("SELECT count(*) FROM job") == [(0,)]


def test_the_body_names_no_other_key(api: Api) -> None:
    assert put(api, "a", key=None).status_code == 201
    for key in ("b", 1, "", False, ["a"]):
        problem = assert_problem(put(api, "a", key=key, priority=11), 422)
        assert [fault["pointer"] for fault in problem["errors"]] == ["/key", "/priority"]
        problem = assert_problem(put(api, "a", key=key), 422)
        assert [fault["pointer"] for fault in problem["errors"]] == ["/key"]


def test_faults_are_named_as_in_other_calls(api: Api) -> None:
    put(api, "a")
    for key in ("a", "b"):
        problem = assert_problem(put(api, key, api="http://127.0.0.1/", colour=1), 422)
        assert {fault["pointer"] for fault in problem["errors"]} == {"/api", "/colour"}
        assert_problem(api.call("PUT", path(key), json=[]), 422)
        assert_problem(api.call("PUT", path(key), data=b"{", content_type="application/json"), 400)
        assert_problem(api.call("PUT", path(key), data=b"{}"), 415)


def test_read_only_fields_must_be_the_present_ones(api: Api) -> None:
    job = put(api, "a").get_json()
    assert api.call("PUT", path("a"), json=job).get_json() == job
    assert_problem(api.call("PUT", path("a"), json=job | {"version": 7}), 422)
    assert_problem(api.call("PUT", path("b"), json=job | {"key": "b"}), 422)


def test_a_secret_sent_back_masked_is_kept(api: Api) -> None:
    put(api, "a", headers={"Authorization": "Bearer one"})
    answer = put(api, "a", headers={"Authorization": "***"}, name="n").get_json()
    assert answer["headers"] == {"Authorization": "***"}
    assert api.sql("SELECT headers FROM job") == [({"Authorization": "Bearer one"},)]
    assert_problem(put(api, "b", headers={"Authorization": "***"}), 422)


def test_if_match_edits_only_that_version(api: Api) -> None:
    for header in ('"1"', "*", '"1", "2"'):
        assert_problem(put(api, "a", {"If-Match": header}), 412)
    put(api, "a")
    assert_problem(put(api, "a", {"If-Match": '"2"'}, name="x"), 412)
    assert_problem(put(api, "a", {"If-Match": '"2", "3"'}, name="x"), 412)
    assert put(api, "a", {"If-Match": '"1"'}, name="b").get_json()["version"] == 2
    assert put(api, "a", {"If-Match": '"1", "2"'}, name="c").get_json()["version"] == 3
    assert put(api, "a", {"If-Match": "*"}, name="d").get_json()["version"] == 4


def test_if_none_match_only_creates(api: Api) -> None:
    assert put(api, "a", {"If-None-Match": "*"}).status_code == 201
    assert_problem(put(api, "a", {"If-None-Match": "*"}, name="x"), 412)
    assert_problem(put(api, "a", {"If-None-Match": '"1"'}), 422)
    assert api.sql("SELECT version FROM job") == [(1,)]


def test_a_deleted_jobs_key_makes_a_new_job(api: Api) -> None:
    first = put(api, "a").get_json()
    api.call("DELETE", f"/api/v1/jobs/{first['id']}")
    assert_problem(api.call("GET", path("a")), 404)
    second = put(api, "a")
    assert second.status_code == 201
    assert second.get_json()["id"] > first["id"]


def test_of_many_at_once_one_creates_and_the_others_replace(api: Api) -> None:
    barrier = threading.Barrier(4)
    answers: list[Any] = []

    def work(number: int) -> None:
        barrier.wait()
        answers.append(put(api, "a", name=str(number)))

    for _ in range(5):
        api.sql("DELETE FROM job")
        answers.clear()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
        assert len({answer.get_json()["id"] for answer in answers}) == 1
        assert api.sql("SELECT version FROM job") == [(4,)]


def test_a_job_that_appears_meanwhile_is_replaced(stored: Stored) -> None:
    """The other one commits between the look and the insert."""
    calls = []

    def change(job: Any) -> Any:
        if job is None:
            calls.append(stored.job(key="a", name="other").id)
        return definition

    definition = stored.job(key="b", name="mine").spec
    stored.jobs.delete(1, stored.jobs.find_key(1, "b").id)  # type: ignore[union-attr]
    definition = replace(definition, key="a")
    saved, created = stored.jobs.upsert(1, "a", change)
    assert (saved.job.id, saved.job.spec.name, created) == (calls[0], "mine", False)


def test_a_job_that_gets_another_key_meanwhile_is_left_alone(stored: Stored) -> None:
    old = stored.job(key="a", name="old")
    definition = replace(old.spec, name="new")
    find, jobs = stored.jobs.find_key, stored.jobs

    class Renaming(type(jobs)):  # type: ignore[misc]
        """Somebody renames the job as soon as it was found."""

        def find_key(self, project_id: int, key: str) -> Any:
            found = find(project_id, key)
            if found is not None and found.id == old.id:
                jobs.update(1, old.id, lambda job: replace(job.spec, key="b"))
            return found

    saved, created = Renaming(stored.pool).upsert(1, "a", lambda job: definition)
    assert created is True
    assert jobs.get(1, old.id).spec == replace(old.spec, key="b")
    assert saved.job.id != old.id


@pytest.fixture
def stored(database_url: str) -> Any:
    from jobsched.db.connection import open_pool

    pool = open_pool(database_url, "test", 4)
    made = Stored(pool, database_url)
    yield made
    made.link.close()
    pool.close_all()


def test_a_copy_that_is_still_good_is_304(api: Api) -> None:
    job = put(api, "a").get_json()
    for where in (path("a"), f"/api/v1/jobs/{job['id']}"):
        for header in ('"1"', 'W/"1"', '"7", "1"', "*"):
            answer = api.call("GET", where, headers={"If-None-Match": header})
            assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", '"1"'), header
            assert "Content-Type" not in answer.headers or answer.headers["Content-Type"].startswith(
                "text/html"
            )
        for header in ('"2"', '"x"', "", "W/"):
            answer = api.call("GET", where, headers={"If-None-Match": header})
            assert (answer.status_code, answer.headers["ETag"]) == (200, '"1"'), header


def test_an_edit_ends_a_copy_and_a_run_does_not(api: Api) -> None:
    job = put(api, "a").get_json()
    where, headers = f"/api/v1/jobs/{job['id']}", {"If-None-Match": '"1"'}
    api.sql(
        "INSERT INTO job_last (job_id, last_execution_time, last_state) VALUES (%s, now(), 'failed')",
        (job["id"],),
    )
    assert api.call("GET", where, headers=headers).status_code == 304
    api.call("PATCH", where, json={"name": "n"})
    assert api.call("GET", where, headers=headers).status_code == 200

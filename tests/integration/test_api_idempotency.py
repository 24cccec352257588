"""Idempotency-Key: what is sent again is answered again, and done once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from werkzeug.test import TestResponse

from jobsched.db import idempotency
from jobsched.db.connection import Link
from jobsched.poller.housekeeping import PICTURE_EVERY, PRUNE_PAUSE, Housekeeping
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.conftest import eventually
from tests.integration.api_rig import JOB, Api, api, assert_problem, fresh_api

__all__ = ["api", "fresh_api"]

JOBS = "/api/v1/jobs"

_WAITING = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def post(api: Api, path: str = JOBS, *, key: str = "k1", role: str = "write", **options: Any) -> TestResponse:
    """A POST with an Idempotency-Key; of a job where nothing else is said."""
    if path == JOBS:
        options = {"json": JOB} | options
    return api.call("POST", path, key=role, headers={"Idempotency-Key": key}, **options)


def counts(api: Api) -> tuple[int, int]:
    """How many jobs and kept answers there are."""
    [(jobs, kept)] = api.sql("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM idempotency_key)")
    return jobs, kept


def code(answer: TestResponse, status: int) -> str:
    """The last part of a problem's type."""
    return str(assert_problem(answer, status)["type"]).rpartition(":")[2]


@contextmanager
def inside(api: Api, url: str, *, key: str = "k1") -> Iterator[list[TestResponse]]:
    """While the block runs, a POST of a job stands inside its transaction; then it goes on and ends."""
    answers: list[TestResponse] = []
    thread = threading.Thread(target=lambda: answers.append(post(api, key=key, json={**JOB, "key": "mine"})))
    with psycopg.connect(url) as beside:
        beside.execute(
            "INSERT INTO job (project_id, key, schedule, api, is_recurring) VALUES (1, 'mine', '@daily', 'x', true)"
        )
        thread.start()
        eventually(lambda: _equal(api.sql(f"SELECT count(*) {_WAITING}"), [(1,)]))
        yield answers
        beside.rollback()
    thread.join()


def _equal(one: Any, other: Any) -> None:
    assert one == other


def test_a_repeated_create_is_answered_again_and_makes_one_job(api: Api) -> None:
    first, second = post(api), post(api)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.data == second.data
    for name in ("Content-Type", "Location", "ETag"):
        assert first.headers[name] == second.headers[name]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert counts(api) == (1, 1)


def test_the_answer_is_the_first_one_whatever_came_since(api: Api) -> None:
    job = post(api).get_json()
    api.call("DELETE", f"{JOBS}/{job['id']}")
    again = post(api)
    assert (again.status_code, again.get_json()) == (201, job)


def test_without_a_key_nothing_is_kept(api: Api) -> None:
    api.create()
    api.create()
    assert counts(api) == (2, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"json": {**JOB, "name": "other"}},
        {"data": b"", "content_type": "application/json", "json": None},
        {"data": b'{"schedule":"@every 1h","api":"https://example.com/hook"}', "json": None},
        {"query_string": "a=b"},
    ],
)
def test_another_request_under_the_same_key_is_refused(api: Api, change: dict[str, Any]) -> None:
    post(api)
    assert code(post(api, **change), 422) == "idempotency_mismatch"
    assert counts(api) == (1, 1)


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
def test_an_impossible_key_is_named(api: Api, key: str) -> None:
    problem = assert_problem(post(api, key=key), 422)
    [fault] = problem["errors"]
    assert fault["parameter"] == "Idempotency-Key"
    assert counts(api) == (0, 0)


@pytest.mark.parametrize("key", ["x", "x" * 255, '"8e03978e-40d5-43dd"', "a b~!"])
def test_a_possible_key_is_taken_as_it_is(api: Api, key: str) -> None:
    assert post(api, key=key).status_code == 201
    assert post(api, key=key).headers["Idempotent-Replayed"] == "true"


def test_a_key_counts_for_one_path(api: Api) -> None:
    job = post(api).get_json()["id"]
    assert post(api, f"{JOBS}/{job}/pause").status_code == 200
    assert post(api, f"{JOBS}/{job}/resume").get_json()["isActive"] is True
    assert post(api, f"{JOBS}/{job}/pause").headers["Idempotent-Replayed"] == "true"
    assert counts(api) == (1, 3)
    assert api.call("GET", f"{JOBS}/{job}").get_json()["isActive"] is True


def test_a_key_counts_for_one_project(api: Api) -> None:
    api.sql("INSERT INTO project (id, name) VALUES (2, 'other')")
    api.sql(
        "INSERT INTO api_key (project_id, name, role, secret_hash) VALUES (2, 'other', 'write', sha256('jsk_other'))"
    )
    one, two = post(api).get_json(), post(api, role="jsk_other").get_json()
    assert one["id"] != two["id"]
    assert counts(api) == (2, 2)


def test_a_key_with_a_smaller_role_gets_no_replay(api: Api) -> None:
    post(api)
    assert_problem(post(api, role="read"), 403)


def test_what_is_refused_is_not_kept(api: Api) -> None:
    assert_problem(post(api, json={**JOB, "schedule": "never"}), 422)
    assert_problem(post(api, f"{JOBS}/1/run"), 404)
    assert_problem(post(api, data=b"{", content_type="application/json", json=None), 400)
    api.create(key="taken")
    assert code(post(api, json={**JOB, "key": "taken"}), 409) == "conflict"
    assert counts(api) == (1, 0)
    assert post(api).status_code == 201


def test_a_body_that_is_too_large_is_refused_before_anything_else(api: Api) -> None:
    answer = post(api, data=b"x" * (1024 * 1024 + 1), content_type="application/json", json=None)
    assert_problem(answer, 413)
    assert counts(api) == (0, 0)


def test_after_a_day_the_key_is_free_again(api: Api) -> None:
    first = post(api).get_json()
    api.sql("UPDATE idempotency_key SET created_at = created_at - interval '23 hours 59 minutes'")
    assert post(api).get_json() == first
    api.sql("UPDATE idempotency_key SET created_at = created_at - interval '1 minute'")
    second = post(api, json={**JOB, "name": "another"})
    assert (second.status_code, second.headers.get("Idempotent-Replayed")) == (201, None)
    assert post(api, json={**JOB, "name": "another"}).get_json() == second.get_json()
    assert counts(api) == (2, 1)


def test_while_the_first_is_running_a_repetition_is_refused_at_once(api: Api, database_url: str) -> None:
    body = {**JOB, "key": "mine"}
    with inside(api, database_url) as answers:
        assert code(post(api, json=body), 409) == "idempotency_in_progress"
        assert post(api, key="k2").status_code == 201
    assert [answer.status_code for answer in answers] == [201]
    again = post(api, json=body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.data == answers[0].data
    assert counts(api) == (2, 2)


def test_repetitions_do_not_refuse_each_other_once_the_first_is_done(api: Api, database_url: str) -> None:
    first = post(api)
    answers: list[TestResponse] = []
    threads = [threading.Thread(target=lambda: answers.append(post(api))) for _ in range(3)]
    with psycopg.connect(database_url) as beside:
        beside.execute("LOCK TABLE idempotency_key IN ACCESS EXCLUSIVE MODE")
        for thread in threads:
            thread.start()
        # All of them stand where one would hold the key against the others.
        eventually(lambda: _equal(api.sql(f"SELECT count(*) {_WAITING}"), [(3,)]))
    for thread in threads:
        thread.join()
    assert [(answer.status_code, answer.data) for answer in answers] == [(201, first.data)] * 3


def test_a_connection_that_dies_inside_leaves_nothing(api: Api, database_url: str) -> None:
    with inside(api, database_url) as answers:
        api.sql(f"SELECT pg_terminate_backend(pid) {_WAITING}")
        eventually(lambda: _equal(len(answers), 1))
        assert code(answers[0], 503) == "database_unavailable"
    assert counts(api) == (0, 0)
    assert post(api).status_code == 201


def test_a_connection_that_dies_at_the_commit_leaves_neither_the_work_nor_the_answer(fresh_api: Api) -> None:
    fresh_api.sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
    )
    fresh_api.sql(
        "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON idempotency_key DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()"
    )
    assert code(post(fresh_api), 503) == "database_unavailable"
    assert counts(fresh_api) == (0, 0)
    fresh_api.sql("DROP TRIGGER dies ON idempotency_key")
    assert post(fresh_api).status_code == 201
    assert counts(fresh_api) == (1, 1)


def test_pollers_are_woken_when_the_rows_can_be_seen(api: Api) -> None:
    job = api.create()["id"]
    seen = []
    api.on_wake = lambda: seen.append(api.sql("SELECT count(*) FROM execution"))
    first = post(api, f"{JOBS}/{job}/run")
    assert (first.status_code, seen) == (202, [[(1,)]])
    assert post(api, f"{JOBS}/{job}/run").get_json() == first.get_json()
    assert api.sql("SELECT count(*) FROM execution") == [(1,)]
    # Without a key as ever: when the view says so.
    api.call("POST", f"{JOBS}/{job}/run")
    assert seen[-1] == [(2,)]


def test_a_wide_redrive_may_take_its_time_inside(api: Api) -> None:
    """The statement's own limit of time is set inside the transaction; the savepoint keeps it."""
    answer = post(api, "/api/v1/dead-letters/redrive", json={"filter": {"all": True}})
    assert answer.status_code == 202
    again = post(api, "/api/v1/dead-letters/redrive", json={"filter": {"all": True}})
    assert again.get_json() == answer.get_json()
    assert again.headers["Location"] == answer.headers["Location"]


def test_every_post_says_that_it_takes_a_key(api: Api) -> None:
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
            replayed = [
                "Idempotent-Replayed" in answer.get("headers", {})
                for status, answer in operation["responses"].items()
                if status.startswith("2")
            ]
            assert ("Idempotency-Key" in named) is (method == "post"), path
            assert all(replayed) is (method == "post"), path


def housekeeping(link: Link, redis_url: str) -> Callable[[], float]:
    return Housekeeping(link, Broker(connect(redis_url)), history_days=30).run_once


def test_what_has_expired_is_deleted_in_batches(link: Link, redis_url: str) -> None:
    link.execute(
        "INSERT INTO idempotency_key (project_id, path, key, fingerprint, status, headers, created_at) "
        "SELECT 1, '/x', n::text, '', 201, '{}', clock_timestamp() - interval '23 hours' - n * interval '1 hour' "
        "FROM generate_series(0, 1501) AS n"
    )
    run_once = housekeeping(link, redis_url)
    assert run_once() == PRUNE_PAUSE
    assert link.execute("SELECT count(*) FROM idempotency_key") == [(502,)]
    assert PRUNE_PAUSE < run_once() <= PICTURE_EVERY
    assert link.execute("SELECT key FROM idempotency_key") == [("0",)]


def test_rows_that_another_poller_deletes_are_left_to_it(link: Link, database_url: str) -> None:
    link.execute(
        "INSERT INTO idempotency_key (project_id, path, key, fingerprint, status, headers, created_at) "
        "SELECT 1, '/x', n::text, '', 201, '{}', '2020-01-01' FROM generate_series(1, 3) AS n"
    )
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM idempotency_key WHERE key = '2' FOR UPDATE")
        assert idempotency.prune(link) == 2
    assert idempotency.prune(link) == 1

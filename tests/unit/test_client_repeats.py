"""What the client sends again when no answer came, and what it never does."""

import socket

import pytest

from jobsched.client import ApiError, Client, Conflict, NotFound, Unreachable
from tests.unit.canned_api import EXECUTION, JOB, PREVIEW, SECRETS


def test_a_read_is_tried_again_until_the_server_is_back(api, client, naps):
    for status in (502, 503, 504):
        api.answer("GET", "/api/v1/jobs/7", "<html>", status)
    api.answer("GET", "/api/v1/jobs/7", JOB)
    assert client.jobs.get(7) == JOB
    assert len(naps) == 3
    assert naps == sorted(naps)


def test_a_read_is_tried_four_times_at_most(api, client, naps):
    api.answer("GET", "/api/v1/jobs/7", "<html>", 502)
    with pytest.raises(Unreachable) as caught:
        client.jobs.get(7)
    assert caught.value.status == 502
    assert len(api.asked) == 4


def test_retry_after_lengthens_the_pause_and_a_long_one_ends_the_tries(api, client, naps):
    api.problem("GET", "/api/v1/jobs/7", 503, "Busy.")
    api._answers["GET", "/api/v1/jobs/7"][0].headers["Retry-After"] = "3"
    api.problem("GET", "/api/v1/jobs/7", 503, "Busy.")
    api._answers["GET", "/api/v1/jobs/7"][1].headers["Retry-After"] = "600"
    with pytest.raises(ApiError) as caught:
        client.jobs.get(7)
    assert (naps, caught.value.status, len(api.asked)) == ([3.0], 503, 2)


def test_a_lost_answer_to_a_change_says_that_it_may_have_happened():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.1) as client, pytest.raises(Unreachable) as caught:
            client.jobs.create()
    assert str(caught.value) == (
        f"Cannot reach {url}: no answer within 0.1 s. The request may have been carried out."
    )


def test_a_read_that_has_waited_its_whole_timeout_is_not_tried_again(naps):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.1) as client, pytest.raises(Unreachable) as caught:
            client.jobs.get(1)
    assert (str(caught.value), naps) == (f"Cannot reach {url}: no answer within 0.1 s.", [])


ONCE = {
    "/api/v1/jobs": lambda client, **key: client.jobs.create(JOB, **key),
    "/api/v1/jobs/bulk": lambda client, **key: client.jobs.create_many([JOB], **key),
    "/api/v1/jobs/7/run": lambda client, **key: client.jobs.run(7, payload=[1], force=True, **key),
    "/api/v1/executions/7/cancel": lambda client, **key: client.executions.cancel(7, **key),
    "/api/v1/executions/7/retry": lambda client, **key: client.executions.retry(7, **key),
    "/api/v1/dead-letters/redrive": lambda client, **key: client.dead_letters.redrive([7], **key),
    "/api/v1/dead-letters/discard": lambda client, **key: client.dead_letters.discard([7], **key),
}


@pytest.mark.parametrize("path", ONCE)
def test_a_post_that_does_something_is_repeated_under_one_idempotency_key(api, client, naps, path):
    api.breaks("POST", path)
    api.answer("POST", path, "<html>", 502)
    api.answer("POST", path, {"done": True}, 201, Idempotent_Replayed="true")
    assert ONCE[path](client) == {"done": True}
    assert ONCE[path](client, idempotency_key="deploy 42") == {"done": True}
    keys = [asked.headers["idempotency-key"] for asked in api.asked]
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1
    assert len(keys[0]) == 32
    assert keys[3] == "deploy 42"
    assert len({repr(asked._replace(headers={})) for asked in api.asked}) == 1


def test_two_calls_never_share_a_key_that_the_client_made(api, client):
    api.answer("POST", "/api/v1/jobs/7/run", EXECUTION, 202)
    client.jobs.run(7)
    client.jobs.run(7)
    assert len({asked.headers["idempotency-key"] for asked in api.asked}) == 2


def test_a_first_try_that_is_still_being_carried_out_is_waited_for(api, client, naps):
    busy = {"type": "urn:jobsched:error:idempotency_in_progress"}
    api.breaks("POST", "/api/v1/jobs")
    api.problem("POST", "/api/v1/jobs", 409, "Still running.", **busy)
    api.answer("POST", "/api/v1/jobs", JOB, 201)
    assert client.jobs.create(JOB) == JOB
    assert (len(api.asked), len(naps)) == (3, 2)


def test_any_other_conflict_is_an_answer(api, client, naps):
    api.problem("POST", "/api/v1/jobs", 409, "There is a job with this key.")
    with pytest.raises(Conflict, match="There is a job with this key"):
        client.jobs.create(JOB)
    assert (len(api.asked), naps) == (1, [])


@pytest.mark.parametrize("key", ["", " a", "a\n", "ü", "a" * 256])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(api, client, key):
    api.answer("POST", "/api/v1/signing-secrets/rotate", SECRETS)
    with pytest.raises(ValueError, match="printable ASCII"):
        client.signing_secrets.rotate(idempotency_key=key)
    with pytest.raises(ValueError, match="printable ASCII"):
        client.jobs.create(JOB, idempotency_key=key)
    assert api.asked == []


REPEATABLE = {
    ("PUT", "/api/v1/jobs/7"): lambda client: client.jobs.replace(7, JOB),
    ("PUT", "/api/v1/jobs/key/nightly"): lambda client: client.jobs.upsert("nightly", JOB),
    ("DELETE", "/api/v1/jobs/7"): lambda client: client.jobs.delete(7, version=4),
    ("POST", "/api/v1/jobs/7/pause"): lambda client: client.jobs.pause(7),
    ("POST", "/api/v1/jobs/7/resume"): lambda client: client.jobs.resume(7),
    ("POST", "/api/v1/schedules/preview"): lambda client: client.schedules.preview("@daily"),
}


@pytest.mark.parametrize("call", REPEATABLE)
def test_what_comes_to_the_same_when_repeated_is_repeated_without_a_key(api, client, naps, call):
    api.breaks(*call)
    api.answer(*call, PREVIEW)
    REPEATABLE[call](client)
    assert ["idempotency-key" in asked.headers for asked in api.asked] == [False, False]


SENT_ONCE = {
    ("PUT", "/api/v1/jobs/key/new"): lambda client: client.jobs.upsert("new", JOB, only_new=True),
    ("PATCH", "/api/v1/jobs/7"): lambda client: client.jobs.update(7, priority=9),
    ("PUT", "/api/v1/jobs/7"): lambda client: client.jobs.replace(7, JOB, version=4),
    ("PUT", "/api/v1/jobs/key/nightly"): lambda client: client.jobs.upsert("nightly", JOB, version=4),
    ("POST", "/api/v1/signing-secrets/rotate"): lambda client: client.signing_secrets.rotate(),
}


@pytest.mark.parametrize("call", SENT_ONCE)
def test_what_would_do_more_or_be_refused_when_repeated_is_sent_once(api, client, naps, call):
    api.breaks(*call)
    with pytest.raises(Unreachable, match="The request may have been carried out"):
        SENT_ONCE[call](client)
    assert (len(api.asked), naps) == (1, [])


def test_a_rotation_with_a_key_learns_that_its_first_try_succeeded(api, client, naps):
    api.breaks("POST", "/api/v1/signing-secrets/rotate")
    api.problem("POST", "/api/v1/signing-secrets/rotate", 409, "It has succeeded.")
    with pytest.raises(Conflict, match="It has succeeded"):
        client.signing_secrets.rotate(idempotency_key="k")
    assert [asked.headers["idempotency-key"] for asked in api.asked] == ["k", "k"]


@pytest.mark.parametrize("lost", [0, 504])
def test_a_repeated_delete_that_finds_nothing_has_done_its_work_before(api, client, naps, lost):
    api.answer("DELETE", "/api/v1/jobs/7", "<html>", lost)
    api.problem("DELETE", "/api/v1/jobs/7", 404, "There is no job 7.", requestId="r")
    assert client.jobs.delete(7) is None
    with pytest.raises(NotFound):
        client.jobs.delete(7)


def test_a_call_that_never_reached_the_server_may_not_have_been_carried_out(naps):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url) as client:
        with pytest.raises(Unreachable) as caught:
            client.jobs.update(7, priority=9)
        assert naps == []
        with pytest.raises(Unreachable):
            client.jobs.create(JOB)
    assert str(caught.value) == f"Cannot reach {url}: connection refused."
    assert len(naps) == 3

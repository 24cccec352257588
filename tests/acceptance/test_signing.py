"""Signatures, end to end: what the API shows verifies what workers send; without the right key nothing is sent."""

import subprocess

import pytest
from standardwebhooks import Webhook

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import assert_signed, calls_of
from tests.conftest import eventually

SECRET_KEY = "a-secret-key-of-this-test-with-32-characters"


def run(client: Client, url: str) -> None:
    job = client.jobs.create({"schedule": "@yearly", "api": url, "payload": {"n": 1}})
    client.jobs.run(job["id"])


def test_calls_are_verified_with_what_the_api_shows_through_a_rotation() -> None:
    with Target() as target, Stand(JOBSCHED_SECRET_KEY=SECRET_KEY) as stand:
        stand.start_api()
        stand.start("poller", "poller")
        stand.start("w1", "worker", "--name", "w1")
        client = stand.client()
        run(client, target.url + "/ok")
        assert_signed(client, calls_of(target.wait_for(1)))
        assert stand.stop("w1") == 0

        rotated = [one["secret"] for one in client.signing_secrets.rotate()["items"]]
        assert len(rotated) == 2
        stand.start("w2", "worker", "--name", "w2")
        run(client, target.url + "/ok")
        second = target.wait_for(2)[1]
        for secret in rotated:
            Webhook(secret).verify(second.body, dict(second.headers))
        eventually(lambda: _equal(client.executions.page(state="succeeded")["items"][1:2] != [], True))
        assert stand.stop("w2") == 0

        # Encrypted at rest, and in no log.
        assert stand.query("SELECT count(*) FROM signing_secret WHERE secret LIKE 'v1:%%'") == [(2,)]
        said = "".join(stand.log_of(name) for name in ("api", "poller", "w1", "w2"))
        for canary in (*rotated, SECRET_KEY):
            assert canary.removeprefix("whsec_") not in said

        stand.settings["JOBSCHED_SECRET_KEY"] = "another-secret-key-with-at-least-32-characters"
        stand.start("w3", "worker", "--name", "w3")
        assert stand.wait_for_end("w3") == 2
        assert "another JOBSCHED_SECRET_KEY" in stand.log_of("w3")
        assert "Traceback" not in stand.log_of("w3")
        with pytest.raises(subprocess.CalledProcessError) as doctor:
            stand.run("doctor")
        assert "FAIL  signing secrets can be read" in doctor.value.stdout


def _equal(found: object, wanted: object) -> None:
    assert found == wanted

"""A worker signs every call, or makes none."""

import json

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from jobsched import wiring
from jobsched.db.connection import open_pool
from jobsched.db.signing import SigningSecrets
from jobsched.db.vault import Vault
from jobsched.errors import SecretsUnreadable
from jobsched.queue.connection import connect
from jobsched.worker import tasks
from tests.conftest import eventually
from tests.integration.factories import make_execution, make_job
from tests.integration.test_worker import ended, enqueue, history, settings, worker

__all__ = ["settings", "worker"]

PLAIN = Vault(None)
OTHER = Vault(SecretStr("o" * 32))


@pytest.fixture
def secrets(database_url):
    """Makes secrets with a vault, and gives them newest first."""
    pool = open_pool(database_url, "signing", 1)
    yield lambda vault=PLAIN: [one.secret for one in SigningSecrets(pool, vault).active(1)]
    pool.close()
    pool.close_all()


def verified(arrival, secret):
    Webhook(secret).verify(arrival.body, dict(arrival.headers), json_parse=False)


def test_every_call_is_signed_with_the_projects_secret(link, broker, worker, target, secrets):
    enqueue(link, broker, make_job(link, api=f"{target.url}/ok", payload={"n": 1}), n=3)
    enqueue(link, broker, make_job(link, api=f"{target.url}/ok", method="GET"), n=3)
    eventually(ended(link, 6))
    [secret] = secrets()
    for arrival in target.arrivals:
        verified(arrival, secret)
    assert sorted({(arrival.method, arrival.body) for arrival in target.arrivals}) == [
        ("GET", b""),
        ("POST", b'{"n":1}'),
    ]


def test_no_secret_reaches_redis_the_history_or_the_log(
    capfd, link, broker, worker, target, secrets, redis_url
):
    [secret] = secrets()
    enqueue(link, broker, make_job(link, api=f"{target.url}/echo", payload={"n": 1}))
    enqueue(link, broker, make_job(link, api="http://127.0.0.1:1/", payload={"n": 1}, max_retry_count=0))
    eventually(ended(link, 2))
    client = connect(redis_url)
    kept = [client.dump(key) or b"" for key in client.scan_iter()]
    client.close()
    said = [text.encode() for text in capfd.readouterr()]
    rows = [json.dumps(row, default=repr).encode() for row in history(link, "*")]
    canary = secret.removeprefix("whsec_").encode()
    assert kept
    assert rows
    assert b"worker_registered" in said[0]
    assert not [text for text in kept + said + rows if canary in text]


def test_with_secrets_that_it_cannot_read_a_worker_sends_nothing(link, broker, worker, target, secrets):
    secrets(OTHER)
    [execution] = enqueue(link, broker, make_job(link, api=f"{target.url}/ok"))

    def given_back():
        [(attempt,)] = link.execute("SELECT attempt FROM execution WHERE id = %s", (execution,))
        assert attempt >= 2

    eventually(given_back)
    assert target.arrivals == []
    link.execute("DELETE FROM signing_secret")
    eventually(ended(link, 1), 30)
    [arrival] = target.arrivals
    verified(arrival, secrets()[0])
    assert history(link) == [("succeeded",)]


def test_a_worker_with_the_wrong_key_does_not_start(settings, secrets):
    wiring.check_signing_secrets(settings)
    secrets(OTHER)
    with pytest.raises(SecretsUnreadable, match="JOBSCHED_SECRET_KEY is not set"):
        wiring.check_signing_secrets(settings)


@pytest.fixture
def stock_environment(database_url, redis_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("JOBSCHED_ALLOW_TARGETS", "127.0.0.0/8")


def test_a_stock_worker_signs_too(link, target, secrets, stock_environment):
    assert tasks.deliver(make_execution(link, make_job(link, api=f"{target.url}/ok"))) == "succeeded"
    verified(target.arrivals[0], secrets()[0])


def test_a_stock_worker_that_cannot_sign_sends_nothing_and_gives_it_back(
    link, target, secrets, stock_environment
):
    secrets(OTHER)
    execution = make_execution(link, make_job(link, api=f"{target.url}/ok"))
    with pytest.raises(SecretsUnreadable):
        tasks.deliver(execution)
    assert target.arrivals == []
    assert link.execute("SELECT id, state, worker_id FROM execution") == [(execution, "queued", None)]

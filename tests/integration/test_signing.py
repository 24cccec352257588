"""Signing secrets: made, shown, rotated, encrypted, and what workers do with them."""

import base64
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from jobsched.db import signing
from jobsched.db.connection import Link, open_pool
from jobsched.db.signing import SigningSecrets, check_readable, signing_keys
from jobsched.db.vault import Vault
from jobsched.errors import SecretsUnreadable
from jobsched.worker.signers import READ_EVERY, Signers
from tests.integration.api_rig import Api, api, assert_problem
from tests.integration.stored import at_once

__all__ = ["api"]

SECRETS = "/api/v1/signing-secrets"
ROTATE = f"{SECRETS}/rotate"
KEY = SecretStr("k" * 32)
DAY = 86_400


@pytest.fixture
def pool(database_url: str) -> Iterator[Any]:
    pool = open_pool(database_url, "signing", 4)
    yield pool
    pool.close()
    pool.close_all()


def items(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return list(answer.get_json()["items"])


def left(item: dict[str, Any], api: Api) -> float:
    """Seconds until a secret expires."""
    [(now,)] = api.sql("SELECT clock_timestamp()")
    return (datetime.fromisoformat(item["expiresAt"]) - now).total_seconds()


def test_the_first_secret_is_made_when_somebody_asks(api: Api) -> None:
    [one] = items(api.call("GET", SECRETS))
    assert set(one) == {"id", "secret", "createdAt", "expiresAt"}
    assert one["expiresAt"] is None
    assert one["secret"].startswith("whsec_")
    assert len(base64.b64decode(one["secret"].removeprefix("whsec_"), validate=True)) == 32
    assert items(api.call("GET", SECRETS)) == [one]


@pytest.mark.parametrize(("method", "path"), [("GET", SECRETS), ("POST", ROTATE)])
def test_only_an_admin_may(api: Api, method: str, path: str) -> None:
    for role in ("write", "read"):
        assert_problem(api.call(method, path, key=role), 403)
    assert api.sql("SELECT count(*) FROM signing_secret") == [(0,)]


def test_a_rotation_makes_a_new_one_and_keeps_the_old_one_for_a_day(api: Api) -> None:
    [old] = items(api.call("GET", SECRETS))
    new, kept = items(api.call("POST", ROTATE))
    assert (kept["id"], kept["secret"]) == (old["id"], old["secret"])
    assert new["secret"] != old["secret"]
    assert new["expiresAt"] is None
    assert left(kept, api) == pytest.approx(DAY, abs=30)
    assert items(api.call("GET", SECRETS)) == [new, kept]


def test_a_rotation_may_be_the_first_call(api: Api) -> None:
    [one] = items(api.call("POST", ROTATE))
    assert one["expiresAt"] is None


@pytest.mark.parametrize(
    ("grace", "seconds"), [("60", 60), ("1.5", 1.5), ("24h", DAY), ("1h30m", 5400), ("604800", 604_800)]
)
def test_grace_is_seconds_or_a_duration(api: Api, grace: str, seconds: float) -> None:
    api.call("GET", SECRETS)
    _new, old = items(api.call("POST", f"{ROTATE}?grace={grace}"))
    assert left(old, api) == pytest.approx(seconds, abs=30)


@pytest.mark.parametrize(
    "grace", ["", "-1", "604801", "200h", "1d", "soon", "NaN", "inf", "1e3", "60&grace=6"]
)
def test_an_impossible_grace_is_refused(api: Api, grace: str) -> None:
    problem = assert_problem(api.call("POST", f"{ROTATE}?grace={grace}"), 422)
    assert [fault["parameter"] for fault in problem["errors"]] == ["grace"]
    assert api.sql("SELECT count(*) FROM signing_secret") == [(0,)]


def test_a_grace_in_the_body_is_not_passed_over(api: Api) -> None:
    [old] = items(api.call("GET", SECRETS))
    problem = assert_problem(api.call("POST", ROTATE, json={"grace": 0}), 422)
    assert "query string" in problem["errors"][0]["message"]
    assert items(api.call("GET", SECRETS)) == [old]
    assert len(items(api.call("POST", ROTATE, json={}))) == 2


def test_without_grace_all_older_ones_end_at_once(api: Api) -> None:
    api.call("GET", SECRETS)
    api.call("POST", ROTATE)
    assert len(items(api.call("POST", f"{ROTATE}?grace=0"))) == 1


def test_an_expiry_is_never_put_off(api: Api) -> None:
    api.call("GET", SECRETS)
    items(api.call("POST", f"{ROTATE}?grace=60"))
    _new, second, first = items(api.call("POST", ROTATE))
    assert left(first, api) == pytest.approx(60, abs=30)
    assert left(second, api) == pytest.approx(DAY, abs=30)


def test_of_many_rotations_the_newest_few_stay(api: Api) -> None:
    for _ in range(8):
        active = items(api.call("POST", ROTATE))
    assert len(active) == signing.MOST_ACTIVE
    ids = [one["id"] for one in active]
    assert ids == sorted(ids, reverse=True)


def test_expired_ones_are_neither_shown_nor_used_and_are_deleted(api: Api, link: Link) -> None:
    api.call("GET", SECRETS)
    new, _old = items(api.call("POST", ROTATE))
    api.sql(
        "UPDATE signing_secret SET expires_at = clock_timestamp() - interval '1 s' WHERE expires_at IS NOT NULL"
    )
    assert items(api.call("GET", SECRETS)) == [new]
    assert signing_keys(link, Vault(None), [1]) == {1: [_key(new["secret"])]}
    assert signing.prune(link) == 1
    assert api.sql("SELECT id FROM signing_secret") == [(new["id"],)]


def test_the_answer_of_a_rotation_is_never_stored(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    [one] = items(api.call("POST", ROTATE, headers=headers))
    assert api.sql("SELECT status, body FROM idempotency_key") == [(200, None)]
    problem = assert_problem(api.call("POST", ROTATE, headers=headers), 409)
    assert problem["type"] == "urn:jobsched:error:idempotency_secret_answer"
    other = api.call("POST", f"{ROTATE}?grace=0", headers=headers)
    assert assert_problem(other, 422)["type"] == "urn:jobsched:error:idempotency_mismatch"
    assert items(api.call("GET", SECRETS)) == [one]


def test_each_project_has_its_own(api: Api, link: Link) -> None:
    api.sql("INSERT INTO project (id, name) VALUES (2, 'other')")
    keys = signing_keys(link, Vault(None), [1, 2])
    assert keys[1] != keys[2]
    [mine] = items(api.call("GET", SECRETS))
    assert keys[1] == [_key(mine["secret"])]
    api.call("POST", f"{ROTATE}?grace=0")
    assert signing_keys(link, Vault(None), [2]) == {2: keys[2]}
    api.sql("DELETE FROM signing_secret")


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def test_first_uses_and_rotations_at_the_same_time_leave_one_current(pool: Any, link: Link) -> None:
    secrets = SigningSecrets(pool, Vault(None))
    for _ in range(5):
        results = at_once(
            pool,
            lambda: secrets.active(1),
            lambda: secrets.rotate(1, timedelta(hours=1)),
            lambda: secrets.active(1),
            lambda: secrets.rotate(1, timedelta(hours=1)),
        )
        assert [one for one in results if isinstance(one, BaseException)] == []
        assert link.execute("SELECT count(*) FROM signing_secret WHERE expires_at IS NULL") == [(1,)]
        link.execute("DELETE FROM signing_secret")


def test_with_a_key_the_row_does_not_hold_the_secret(pool: Any, link: Link) -> None:
    [one] = SigningSecrets(pool, Vault(KEY)).active(1)
    [(stored,)] = link.execute("SELECT secret FROM signing_secret")
    assert stored.startswith("v1:")
    assert one.secret.removeprefix("whsec_") not in stored
    assert signing_keys(link, Vault(KEY), [1]) == {1: [_key(one.secret)]}
    check_readable(link, Vault(KEY))


def test_a_key_that_comes_later_leaves_what_is_there_readable_and_encrypts_what_is_new(
    pool: Any, link: Link
) -> None:
    [plain] = SigningSecrets(pool, Vault(None)).active(1)
    new, old = SigningSecrets(pool, Vault(KEY)).rotate(1, timedelta(hours=1))
    assert old.secret == plain.secret
    stored = [row[0][:3] for row in link.execute("SELECT secret FROM signing_secret ORDER BY id")]
    assert stored == ["whs", "v1:"]
    assert new.secret.startswith("whsec_")


@pytest.mark.parametrize("vault", [Vault(None), Vault(SecretStr("o" * 32))])
def test_with_another_key_or_none_they_are_refused(pool: Any, link: Link, vault: Vault) -> None:
    SigningSecrets(pool, Vault(KEY)).active(1)
    with pytest.raises(SecretsUnreadable, match="JOBSCHED_SECRET_KEY"):
        check_readable(link, vault)
    with pytest.raises(SecretsUnreadable):
        SigningSecrets(pool, vault).active(1)
    assert isinstance(signing_keys(link, vault, [1])[1], SecretsUnreadable)


def test_a_row_moved_to_another_project_is_refused(pool: Any, link: Link) -> None:
    SigningSecrets(pool, Vault(KEY)).active(1)
    link.execute("INSERT INTO project (id, name) VALUES (2, 'other')")
    link.execute("UPDATE signing_secret SET project_id = 2")
    with pytest.raises(SecretsUnreadable, match="damaged"):
        check_readable(link, Vault(KEY))
    link.execute("DELETE FROM signing_secret")


def test_the_api_says_so_when_it_cannot_read_them_and_a_rotation_without_grace_starts_afresh(
    api: Api, pool: Any
) -> None:
    api.sql("INSERT INTO signing_secret (project_id, secret) VALUES (1, 'v1:00000000:AAAA')")
    problem = assert_problem(api.call("GET", SECRETS), 503)
    assert problem["type"] == "urn:jobsched:error:secrets_unreadable"
    assert "JOBSCHED_SECRET_KEY" in problem["detail"]
    assert_problem(api.call("POST", ROTATE), 503)
    assert api.sql("SELECT count(*) FROM signing_secret") == [(1,)]
    [one] = items(api.call("POST", f"{ROTATE}?grace=0"))
    assert one["expiresAt"] is None


def test_a_worker_reads_them_every_few_seconds_and_signs_on_while_the_database_is_away(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("jobsched.clock.monotonic", lambda: now[0])
    signers = Signers(link, Vault(None))
    with pytest.raises(SecretsUnreadable):
        signers.of(1)
    signers.refresh({1})
    first = signers.of(1)
    link.execute("DELETE FROM signing_secret")
    signers.refresh({1})
    assert signers.of(1) is first
    now[0] += READ_EVERY
    signers.refresh({1})
    second = signers.of(1)
    assert second("id", 1, b"") != first("id", 1, b"")
    link.execute("ALTER TABLE signing_secret RENAME TO signing_secret_away")
    now[0] += READ_EVERY
    signers.refresh({1})
    link.execute("ALTER TABLE signing_secret_away RENAME TO signing_secret")
    assert signers.of(1) is second


def test_what_a_worker_signs_is_verified_with_what_the_api_shows(api: Api, link: Link) -> None:
    signers = Signers(link, Vault(None))
    signers.refresh({1})
    [(seconds,)] = api.sql("SELECT extract(epoch FROM now())::bigint")
    [shown] = items(api.call("GET", SECRETS))
    headers = {
        "webhook-id": "exec_abc123_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": signers.of(1)("exec_abc123_1", seconds, b"{}"),
    }
    assert Webhook(shown["secret"]).verify(b"{}", headers) == {}

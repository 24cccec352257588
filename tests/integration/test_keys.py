import re
import zlib

import pytest

from jobsched.db import keys as module
from jobsched.db.connection import open_pool
from jobsched.db.keys import Keys, Principal, ensure_admin_key, new_key
from jobsched.errors import InvalidInput, NotFound
from tests.integration.stored import at_once


@pytest.fixture
def pool(database_url):
    pool = open_pool(database_url, "test", 10)
    yield pool
    pool.close_all()


def test_a_key_is_recognised_and_only_its_hash_is_stored(pool):
    keys = Keys(pool)
    key_id, key = keys.create(1, "deploy", "write")
    assert keys.authenticate(key) == Principal(1, key_id, "write", "deploy")
    stored = pool.execute_sql("SELECT api_key::text, encode(secret_hash, 'hex') FROM api_key").fetchone()
    assert key not in stored[0]
    assert len(stored[1]) == 64


def test_keys_can_be_told_from_other_strings_by_scanners():
    key = new_key()
    assert re.fullmatch(r"jsk_[0-9A-Za-z]{49}", key)
    number = 0
    for character in key[-6:]:
        number = number * 62 + module._ALPHABET.index(character)
    assert number == zlib.crc32(key[:-6].encode())
    assert len({new_key() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("key", ["", "x", "jsk_" + "0" * 49, "a\0b", "\ud800", "k" * 100_000])
def test_what_is_no_key_is_nobody(pool, key):
    assert Keys(pool).authenticate(key) is None


def test_a_revoked_key_is_worthless_here_at_once_and_elsewhere_within_seconds(pool, monkeypatch):
    here, elsewhere = Keys(pool), Keys(pool)
    key_id, key = here.create(1, "n", "admin")
    assert here.authenticate(key) == elsewhere.authenticate(key)
    here.revoke(1, key_id)
    here.revoke(1, key_id)
    assert here.authenticate(key) is None
    later = module.monotonic() + module.CACHE_SECONDS
    monkeypatch.setattr(module, "monotonic", lambda: later)
    assert elsewhere.authenticate(key) is None


def test_the_last_use_is_written_once_a_minute(pool):
    key_id, key = Keys(pool).create(1, "n", "read")
    at_once(pool, *[lambda: Keys(pool).authenticate(key)] * 4)
    first = Keys(pool).list(1)[0].last_used_at
    assert first is not None
    Keys(pool).authenticate(key)
    assert Keys(pool).list(1)[0].last_used_at == first
    pool.execute_sql(
        "UPDATE api_key SET last_used_at = last_used_at - interval '61 s' WHERE id = %s", (key_id,)
    )
    Keys(pool).authenticate(key)
    assert Keys(pool).list(1)[0].last_used_at > first


def test_a_server_that_only_reads_refuses_nobody(pool):
    _, key = Keys(pool).create(1, "n", "read")
    pool.execute_sql("SET default_transaction_read_only = on")
    assert Keys(pool).authenticate(key).name == "n"


def test_keys_are_listed_newest_first_with_the_revoked_and_without_secrets(pool):
    keys = Keys(pool)
    first, _ = keys.create(1, "a", "read")
    second, _ = keys.create(1, "b", "admin")
    keys.revoke(1, first)
    listed = keys.list(1)
    assert [(key.id, key.name, key.role, key.revoked_at is None) for key in listed] == [
        (second, "b", "admin", True),
        (first, "a", "read", False),
    ]
    assert keys.list(2) == []


@pytest.mark.parametrize("key_id", [0, 999, 2**63])
def test_unknown_keys_cannot_be_revoked(pool, key_id):
    keys = Keys(pool)
    mine, _ = keys.create(1, "a", "read")
    for project, wanted in ((1, key_id), (2, mine)):
        with pytest.raises(NotFound):
            keys.revoke(project, wanted)


@pytest.mark.parametrize(
    ("name", "role"), [("", "read"), ("x" * 201, "read"), ("a\0", "read"), ("n", "owner")]
)
def test_names_and_roles_are_checked(pool, name, role):
    with pytest.raises(InvalidInput):
        Keys(pool).create(1, name, role)


def test_the_admin_key_of_the_environment_is_made_once(pool):
    key = "given-by-the-operator-1234567890"
    assert sum(at_once(pool, *[lambda: ensure_admin_key(pool, key)] * 3)) == 1
    keys = Keys(pool)
    assert keys.authenticate(key).role == "admin"
    keys.revoke(1, keys.list(1)[0].id)
    assert not ensure_admin_key(pool, key)
    assert keys.authenticate(key) is None

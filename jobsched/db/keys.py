"""API keys: made, listed, revoked, recognised.

A key is 256 random bits, so one round of SHA-256 is enough to store it: there is nothing to guess. Only the
hash is kept. ``jsk_`` and the checksum at the end let scanners of repositories find a leaked key without
false alarms (as GitHub's tokens do).
"""

import hashlib
import secrets
import threading
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from peewee import SQL, Database

from jobsched.clock import monotonic
from jobsched.db.connection import converted
from jobsched.db.models import ApiKey
from jobsched.domain.json_text import unstorable
from jobsched.errors import DatabaseError, Fault, InvalidInput, NotFound

Role = Literal["admin", "write", "read"]
ROLES: tuple[Role, ...] = ("admin", "write", "read")

#: Seconds for which a process goes on believing what it has read of a key. A revoked key works no longer than
#: that, and not at all in the process that revoked it.
CACHE_SECONDS = 2.0

PREFIX = "jsk_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CACHE_LIMIT = 10_000
_LONGEST_KEY = 500


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a key of a project, and what it may do."""

    project_id: int
    key_id: int
    role: Role
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as listings show it, without its secret. ``last_used_at`` is exact to a minute."""

    id: int
    project_id: int
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Keys:
    """The API keys in ``database``. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._lock = threading.Lock()

    def create(self, project_id: int, name: str, role: Role) -> tuple[int, str]:
        """Make a key. Returns its id and the key itself, which is shown this once. Raises InvalidInput."""
        faults = []
        if not name.strip() or len(name) > 200:
            faults.append(Fault("/name", "must have 1 to 200 characters"))
        elif reason := unstorable(name):
            faults.append(Fault("/name", reason))
        if role not in ROLES:
            faults.append(Fault("/role", f"must be one of {', '.join(ROLES)}"))
        if faults:
            raise InvalidInput(faults)
        key = new_key()
        with converted(), self._database.atomic():
            key_id: int = ApiKey.insert(
                project_id=project_id, name=name, role=role, secret_hash=_hash(key), created_at=_NOW
            ).execute()
        return key_id, key

    def list(self, project_id: int) -> list[KeyRecord]:
        """All keys of the project, newest first, revoked ones too."""
        columns = [getattr(ApiKey, name) for name in KeyRecord.__dataclass_fields__]
        query = ApiKey.select(*columns).where(ApiKey.project_id == project_id).order_by(ApiKey.id.desc())
        with converted():
            rows: Any = list(query.dicts())
        return [KeyRecord(**row) for row in rows]

    def revoke(self, project_id: int, key_id: int) -> None:
        """Make the key worthless: here at once, in other processes within CACHE_SECONDS. Raises NotFound.

        Repeating it changes nothing.
        """
        with converted(), self._database.atomic():
            mine = (ApiKey.id == key_id) & (ApiKey.project_id == project_id)
            if not 0 < key_id < 2**63 or not ApiKey.select().where(mine).exists():
                raise NotFound(f"There is no key {key_id}.")
            ApiKey.update(revoked_at=_NOW).where(mine, ApiKey.revoked_at.is_null()).execute()
        self._forget(key_id)

    def authenticate(self, key: str) -> Principal | None:
        """Whose key this is; None if it is unknown or revoked.

        ``last_used_at`` is written at most once a minute, and its failure (a read-only server) refuses nobody.
        """
        if not key or len(key) > _LONGEST_KEY or unstorable(key):
            return None
        digest = _hash(key)
        known = self._known.get(digest)
        if known is not None and monotonic() < known[1]:
            return known[0]
        read_at = monotonic()
        with converted():
            row = (
                ApiKey.select(
                    ApiKey.project_id,
                    ApiKey.id,
                    ApiKey.role,
                    ApiKey.name,
                    SQL("last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute'"),
                )
                .where(ApiKey.secret_hash == digest, ApiKey.revoked_at.is_null())
                .tuples()
                .first()
            )
        if row is None:
            self._known.pop(digest, None)
            return None
        *identity, stale = row
        principal = Principal(*identity)
        if stale:
            self._touch(principal.key_id)
        with self._lock:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[digest] = (principal, read_at + CACHE_SECONDS)
        return principal

    def _touch(self, key_id: int) -> None:
        # The condition again: of many requests at once, one writes.
        statement = (
            "UPDATE api_key SET last_used_at = clock_timestamp() WHERE id = %s "
            "AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')"
        )
        try:
            with converted(), self._database.atomic():
                self._database.execute_sql(statement, (key_id,))
        except DatabaseError:
            return

    def _forget(self, key_id: int) -> None:
        with self._lock:
            self._known = {
                digest: entry for digest, entry in self._known.items() if entry[0].key_id != key_id
            }


def new_key() -> str:
    """A fresh key: ``jsk_``, 43 characters of 256 random bits, 6 of the CRC-32 of what stands before them."""
    body = PREFIX + _base62(secrets.randbits(256), 43)
    return body + _base62(zlib.crc32(body.encode()), 6)


def ensure_admin_key(database: Database, key: str, project_id: int = 1) -> bool:
    """Make ``key`` (JOBSCHED_ADMIN_KEY) an admin key of the project. True if it was not one yet.

    A key that was revoked stays so: who revoked it meant it, whatever the environment still says.
    """
    with converted(), database.atomic():
        made = database.execute_sql(
            "INSERT INTO api_key (project_id, name, role, secret_hash) "
            "VALUES (%s, 'JOBSCHED_ADMIN_KEY', 'admin', %s) ON CONFLICT (secret_hash) DO NOTHING RETURNING id",
            (project_id, _hash(key)),
        )
        return bool(made.fetchall())


_NOW = SQL("clock_timestamp()")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))

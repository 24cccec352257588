"""The secrets that callbacks are signed with: table ``signing_secret``.

Each project has one current secret, without an expiry, and may have older ones that are still valid. The first
one is made when somebody first asks: the API for showing it, or a worker for signing with it.
"""

import base64
import binascii
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from peewee import Database

from jobsched.db.connection import Link, Row, converted, repeated
from jobsched.db.vault import Vault
from jobsched.errors import SecretsUnreadable

PREFIX: Final = "whsec_"

#: Secrets that are valid at once at most: each is a signature more on every call.
MOST_ACTIVE: Final = 5

#: Rows that one statement of ``prune`` deletes at most.
PRUNED_AT_ONCE: Final = 1000

_BYTES = 32
_ACTIVE = "(expires_at IS NULL OR expires_at > clock_timestamp())"

_READ = f"""
SELECT project_id, id, secret, created_at, expires_at
FROM signing_secret WHERE project_id = ANY(%s) AND {_ACTIVE} ORDER BY id DESC
"""

_MAKE = """
INSERT INTO signing_secret (project_id, secret) VALUES (%s, %s)
ON CONFLICT (project_id) WHERE expires_at IS NULL DO NOTHING RETURNING id
"""

# Rotations of one project come one after the other; jobs of it are written meanwhile.
_LOCK = "SELECT FROM project WHERE id = %s FOR NO KEY UPDATE"

_RETIRE = f"""
WITH old AS (SELECT id, row_number() OVER (ORDER BY id DESC) AS place FROM signing_secret
    WHERE project_id = %(project)s AND {_ACTIVE})
UPDATE signing_secret s SET expires_at = LEAST(s.expires_at, clock_timestamp()
    + CASE WHEN old.place < {MOST_ACTIVE} THEN make_interval(secs => %(grace)s) ELSE interval '0' END)
FROM old WHERE s.id = old.id
"""

_PRUNE = f"""
DELETE FROM signing_secret WHERE id = ANY(ARRAY(
    SELECT id FROM signing_secret WHERE expires_at < clock_timestamp() LIMIT {PRUNED_AT_ONCE}
    FOR UPDATE SKIP LOCKED))
RETURNING 1
"""

_Execute = Callable[[str, Any], list[Row]]


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """A secret that is valid now. ``secret`` is ``whsec_…``; ``expires_at`` None: the current one."""

    id: int
    secret: str
    created_at: datetime
    expires_at: datetime | None


class SigningSecrets:
    """The secrets as the API shows and replaces them. Safe to share between threads.

    Raises SecretsUnreadable where JOBSCHED_SECRET_KEY is not the one that encrypted them, and the database's
    errors.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def active(self, project_id: int) -> list[SigningSecret]:
        """The valid secrets, newest first; at least one."""
        with converted(), self._database.atomic():
            return _shown(_read(self._rows, self._vault, [project_id]), self._vault)

    @repeated
    def rotate(self, project_id: int, grace: timedelta) -> list[SigningSecret]:
        """Make a new current secret; the others stay valid for ``grace`` at most. Gives the valid ones."""
        with converted(), self._database.atomic():
            self._rows(_LOCK, (project_id,))
            made: list[Row] = []
            while not made:  # once more if a first secret was made meanwhile, which then is an older one
                self._rows(_RETIRE, {"project": project_id, "grace": grace.total_seconds()})
                made = self._rows(_MAKE, (project_id, _sealed(self._vault, project_id)))
            return _shown(self._rows(_READ, ([project_id],)), self._vault)

    def _rows(self, statement: str, parameters: Any) -> list[Row]:
        cursor = self._database.execute_sql(statement, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def signing_keys(
    link: Link, vault: Vault, projects: Collection[int]
) -> dict[int, list[bytes] | SecretsUnreadable]:
    """The bytes that sign for each of ``projects``, the newest secret's first; or why they cannot be read."""
    found: dict[int, list[bytes] | SecretsUnreadable] = {project: [] for project in projects}
    for project, _id, stored, _created, _expires in _read(link.execute, vault, list(projects)):
        keys = found[project]
        if isinstance(keys, SecretsUnreadable):
            continue
        try:
            keys.append(_bytes(_opened(vault, project, stored)))
        except SecretsUnreadable as error:
            found[project] = error
    return found


def check_readable(link: Link, vault: Vault) -> None:
    """Raise SecretsUnreadable if ``vault`` cannot open every secret that is valid now."""
    for project, stored in link.execute(f"SELECT project_id, secret FROM signing_secret WHERE {_ACTIVE}"):
        _bytes(_opened(vault, project, stored))


def prune(link: Link) -> int:
    """Delete some of the secrets that are not valid any more. Returns how many."""
    return len(link.execute(_PRUNE))


def _read(execute: _Execute, vault: Vault, projects: Sequence[int]) -> list[Row]:
    """The valid rows of ``projects``, newest first; makes what is missing."""
    rows = execute(_READ, (list(projects),))
    missing = set(projects) - {row[0] for row in rows if row[4] is None}
    if not missing:
        return rows
    for project in sorted(missing):
        execute(_MAKE, (project, _sealed(vault, project)))
    return execute(_READ, (list(projects),))


def _shown(rows: Sequence[Row], vault: Vault) -> list[SigningSecret]:
    return [
        SigningSecret(id, _opened(vault, project, stored), created_at, expires_at)
        for project, id, stored, created_at, expires_at in rows
    ]


def _sealed(vault: Vault, project: int) -> str:
    """A fresh secret of 256 random bits, as it is stored."""
    text = PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()
    return vault.seal(text, _purpose(project))


def _opened(vault: Vault, project: int, stored: str) -> str:
    return vault.open(stored, _purpose(project))


def _purpose(project: int) -> str:
    return f"signing secret of project {project}"


def _bytes(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise SecretsUnreadable("A stored signing secret is damaged.") from None

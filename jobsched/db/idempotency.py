"""Answers kept for the repetition of their requests: table ``idempotency_key``.

The answer is written in the transaction that does the work, so that both are there or neither is. While that
transaction is open, an advisory lock tells a repetition that the first one is still running; it ends with the
transaction, however that ends.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from peewee import Database

from jobsched.db.connection import Link, converted

#: Hours for which an answer is replayed.
KEPT_HOURS: Final = 24

#: Rows that one statement of ``prune`` deletes at most.
PRUNED_AT_ONCE: Final = 1000

# Reading 10,000 jobs takes seconds without a statement, during which the session's own limit of 10 s may pass.
_PATIENCE = "SET LOCAL idle_in_transaction_session_timeout = '60s'"

_FIND = f"""
SELECT fingerprint, status, headers, body FROM idempotency_key
WHERE project_id = %s AND path = %s AND key = %s
  AND created_at > clock_timestamp() - interval '{KEPT_HOURS} hours'
"""

_KEEP = """
INSERT INTO idempotency_key (project_id, path, key, fingerprint, status, headers, body)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (project_id, path, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers,
    body = excluded.body, created_at = excluded.created_at
"""

_PRUNE = f"""
DELETE FROM idempotency_key WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotency_key WHERE created_at < statement_timestamp() - interval '{KEPT_HOURS} hours'
    ORDER BY created_at LIMIT {PRUNED_AT_ONCE} FOR UPDATE SKIP LOCKED))
RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What a caller's key counts for: one project and one path."""

    project_id: int
    path: str
    key: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer and what was asked. ``body`` None: it held a secret and was not kept."""

    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Undo(Exception):
    """Raised inside ``IdempotencyKeys.transaction`` to roll it back without an error."""


class IdempotencyKeys:
    """The kept answers in ``database``. Safe to share between threads.

    ``lock``, ``find`` and ``keep`` belong inside one ``transaction`` and raise the database's errors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction around the block, which what the block calls joins. ``Undo`` rolls it back."""
        try:
            with converted(), self._database.atomic():
                self._database.execute_sql(_PATIENCE)
                yield
        except Undo:
            pass

    def lock(self, key: RequestKey) -> bool:
        """Take the key until the end of the transaction. False if another request holds it.

        A statement of its own: ``find`` must see what the holder before has committed.
        """
        text = f"{key.project_id}\n{key.path}\n{key.key}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)
        return bool(
            self._database.execute_sql("SELECT pg_try_advisory_xact_lock(%s)", (number,)).fetchone()[0]
        )

    def find(self, key: RequestKey) -> KeptAnswer | None:
        """The answer of the last 24 h."""
        row: Any = self._database.execute_sql(_FIND, (key.project_id, key.path, key.key)).fetchone()
        if row is None:
            return None
        fingerprint, status, headers, body = row
        return KeptAnswer(bytes(fingerprint), status, headers, None if body is None else bytes(body))

    def keep(self, key: RequestKey, answer: KeptAnswer) -> None:
        """Keep ``answer`` for 24 h from now, in the place of one that is older than that."""
        self._database.execute_sql(
            _KEEP,
            (
                key.project_id,
                key.path,
                key.key,
                answer.fingerprint,
                answer.status,
                json.dumps(dict(answer.headers)),
                answer.body,
            ),
        )


def prune(link: Link) -> int:
    """Delete some of the answers that are no longer replayed. Returns how many; none are left at 0."""
    return len(link.execute(_PRUNE))

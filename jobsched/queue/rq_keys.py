"""The names and fields of Redis data as RQ 3 writes and reads them, and the few that are ours.

The contract tests hold these against the installed RQ, by letting RQ read what we wrote.
"""

from datetime import datetime

from jobsched.config import rq_key_prefix

PREFIX = rq_key_prefix()
"""``rq``, unless RQ_KEY_PREFIX in the environment says otherwise, as it does for RQ's own tools."""

FUNCTION = "jobsched.worker.tasks.deliver"
"""What a stock RQ worker calls, with the execution's id as its only argument."""

DATA_HEAD, DATA_TAIL = f'["{FUNCTION}",null,[', "],{}]"
"""Around the id: RQ's ``(function, instance, args, kwargs)`` in JSON. Uncompressed: RQ takes both."""

RQ_EXECUTION_ID = "jobsched"
"""RQ lists a started job as ``<job>:<execution of RQ>``. Here an id runs once at a time: one word will do."""

EPOCH_KEY = "jobsched:epoch"
"""Stands in Redis and in Postgres; missing or different means that Redis was wiped or replaced."""

QUEUED_TTL = 8 * 86_400
"""Seconds that the hash of a queued, started or waiting job is kept: more than the longest backoff, a week.

Every hash has an expiry, so whatever goes wrong, none stays for ever. A message that outlives its hash is
still delivered by our workers, which never read hashes; a stock worker skips it, and it is pushed again.
"""

FINISHED_TTL = 3600
"""Seconds that a finished job stays in RQ's picture."""

FAILED_TTL = 365 * 86_400
"""Seconds that a dead letter stays in RQ's picture; RQ's own default."""

STARTED_MARGIN = 60
"""Seconds after an execution's deadline at which RQ's cleanup may call it abandoned: recovery comes first."""

KEPT = 1000
"""Newest entries that the Finished and the Failed registry of a queue keep."""

SHOWN = 5000
"""Entries at most that a rebuilt Started or Scheduled registry shows: a picture, not a ledger."""


def queue_key(queue: str) -> str:
    """The list of ``queue``. RQ pushes at its right end and pops from its left."""
    return f"{PREFIX}:queue:{queue}"


def channel(pool: str) -> str:
    """Where a push is announced to the workers of ``pool``."""
    return f"jobsched:pushed:{pool}"


def stamp(instant: datetime) -> str:
    """An aware instant in UTC as RQ writes it into hashes."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""What the API needs from the rest, put together by jobsched/wiring.py."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from jobsched.config import Settings
from jobsched.db.bulk import BulkJobs
from jobsched.db.executions import Executions
from jobsched.db.idempotency import IdempotencyKeys
from jobsched.db.jobs import Jobs
from jobsched.db.keys import Keys
from jobsched.db.signing import SigningSecrets
from jobsched.db.stats import Stats
from jobsched.db.user_moves import UserMoves
from jobsched.domain.spec import CheckTarget
from jobsched.queue.broker import RqCounts


@dataclass(frozen=True, kw_only=True)
class Services:
    """Built once in each serving process, after the fork. Everything here is safe to share between threads."""

    settings: Settings
    jobs: Jobs
    bulk: BulkJobs
    executions: Executions
    moves: UserMoves
    keys: Keys
    stats: Stats
    idempotency: IdempotencyKeys
    signing: SigningSecrets

    check_target: CheckTarget
    """Why a URL's literal address is refused, or None."""

    check_schema: Callable[[], None]
    """Raises DatabaseUnavailable or SchemaMismatch; returns when the database is there and of this version."""

    wake: Callable[[], None]
    """Tells the pollers, soon, that something is due. Called after the commit; never raises.

    Views may call it at once: the application puts it off where a request holds a transaction.
    """

    rq_counts: Callable[[Sequence[str]], Mapping[str, RqCounts] | None]
    """RQ's numbers by queue; None when Redis is away."""

    redis_fault: Callable[[], str | None]
    """What is wrong with Redis, in words that anyone may read (no addresses); None when nothing is."""

    connection: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Holds one database connection over a block, so that its statements share one checkout."""

    kept_connection: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The same over a whole request; the next request, of whichever thread, may get the same one without a look."""

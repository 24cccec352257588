"""What a job is, and how the JSON of a request becomes one.

``JobSpec`` is the definition as everything inside jobsched uses it. The functions here read a request's JSON
strictly (no ``"5"`` for 5, no unknown field), collect every fault with its RFC 6901 pointer and raise
``InvalidInput`` with all of them. Limits and rules are those of docs/api.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: Why a URL's literal address is refused, or None. Needs the configured allow list, so it is passed in.
CheckTarget = Callable[[str], str | None]

#: What an answer shows in the place of a secret header's value; sent back, it keeps the stored value.
MASK = "***"

#: Headers whose values are secrets whatever ``secretHeaders`` says, in lower case.
ALWAYS_SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})

#: Fields of a job that only the server writes.
READ_ONLY = (
    "id",
    "nextExecutionTime",
    "lastExecutionTime",
    "lastState",
    "createdAt",
    "updatedAt",
    "version",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The definition of a job, checked. Instants are aware, in UTC; ``payload`` None means no body."""

    schedule: str
    api: str
    is_recurring: bool
    key: str | None = None
    name: str | None = None
    description: str | None = None
    timezone: str = "UTC"
    is_active: bool = True
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: tuple[str, ...] = ()
    payload: Any = None
    type: str = "AT_LEAST_ONCE"
    max_retry_count: int = 3
    min_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 3600.0
    backoff_factor: float = 2.0
    backoff_jitter: float = 0.1
    timeout_seconds: float = 30.0
    success_status: tuple[str, ...] = ("200-299",)
    no_retry_status: tuple[str, ...] = ()
    follow_redirects: bool = False
    misfire_policy: str = "fire_once"
    misfire_grace_seconds: float = 60.0
    overlap_policy: str = "allow"
    priority: int = 5
    pool: str = "default"
    tags: tuple[str, ...] = ()
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    jitter_seconds: float = 0.0


def parse_job_create(body: object, *, check_target: CheckTarget) -> JobSpec:
    """The job that a POST describes. Raises InvalidInput with every fault found."""
    raise NotImplementedError


def apply_replace(
    current: JobSpec, read_only: Mapping[str, Any], body: object, *, check_target: CheckTarget
) -> JobSpec:
    """The job that a PUT describes: what the body leaves out becomes the default.

    ``read_only`` holds the present values of READ_ONLY as answers show them; a body may repeat them.
    A secret header sent as ``"***"`` keeps its stored value. Raises InvalidInput.
    """
    raise NotImplementedError


def apply_merge(
    current: JobSpec, read_only: Mapping[str, Any], patch: object, *, check_target: CheckTarget
) -> JobSpec:
    """``current`` with a PATCH applied (RFC 7396; ``payload`` and ``headers`` are replaced whole).

    ``read_only`` as for ``apply_replace``. Raises InvalidInput.
    """
    raise NotImplementedError


def spec_json(spec: JobSpec) -> dict[str, Any]:
    """The definition as answers show it: camelCase, instants as RFC 3339, secret headers as ``"***"``."""
    raise NotImplementedError

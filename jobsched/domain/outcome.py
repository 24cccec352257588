"""What an attempt's end means for its execution: pure, and the only place that decides it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal, NamedTuple

from jobsched.domain.retry import RetryPolicy, backoff_seconds, retry_after_seconds

ErrorCode = Literal[
    "http_status",
    "timeout",
    "connect_failed",
    "dns_failed",
    "tls_failed",
    "protocol_error",
    "response_too_large",
    "target_refused",
    "worker_lost",
    "worker_stopped",
    "interrupted",
    "cancelled",
    "misfire",
    "overlap",
    "backlog",
    "poison",
    "unrecordable",
    "invalid_job",
]

#: No attempt with one of these can end differently when repeated.
_HOPELESS = frozenset({"target_refused", "invalid_job"})

#: 410 Gone, and 489, which event receivers use for "do not send this again".
_NEVER_AGAIN = frozenset({410, 489})


@dataclass(frozen=True, slots=True)
class Policy:
    """What of a job decides about an attempt's end."""

    at_most_once: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    success_status: tuple[str, ...] = ("200-299",)
    no_retry_status: tuple[str, ...] = ()


class Ending(NamedTuple):
    """How an attempt ended, as the transport saw it.

    ``status`` is that of a completely received answer; ``error_code`` is None exactly then. ``sent`` is False
    only if nothing of the request can have reached the target.
    """

    status: int | None = None
    headers: Sequence[tuple[str, str]] = ()
    error_code: str | None = None
    error_message: str | None = None
    sent: bool = True


class Verdict(NamedTuple):
    """Where the execution goes; ``delay_seconds`` counts from the attempt's end."""

    state: Literal["succeeded", "failed", "retrying", "cancelled", "queued"]
    error_code: str | None = None
    error_message: str | None = None
    delay_seconds: float = 0.0
    spends: bool = False


_SUCCEEDED = Verdict("succeeded")


def judge(ending: Ending, policy: Policy, retry_count: int, now: datetime, spread: float) -> Verdict:
    """Decide what becomes of an execution after an attempt.

    ``retry_count`` is how many retries it has spent, ``now`` the wall clock (for a Retry-After date),
    ``spread`` a random number in [0, 1).
    """
    if ending.error_code is None and ending.status is not None:
        return _judge_answer(ending, ending.status, policy, retry_count, now, spread)
    code, message = ending.error_code or "protocol_error", ending.error_message
    if code == "cancelled":
        return Verdict("cancelled", code, message)
    if code == "interrupted":
        return _judge_interrupted(ending, policy)
    unknown = policy.at_most_once and ending.sent
    if code in _HOPELESS or unknown or retry_count >= policy.retry.max_retry_count:
        return Verdict("failed", code, message)
    delay = backoff_seconds(policy.retry, retry_count + 1, spread)
    return Verdict("retrying", code, message, delay, spends=True)


def _judge_interrupted(ending: Ending, policy: Policy) -> Verdict:
    """The worker stops: what was not sent waits for another; what was sent spends no retry."""
    if not ending.sent:
        return Verdict("queued")
    if policy.at_most_once:
        return Verdict("failed", "worker_stopped", ending.error_message)
    return Verdict("retrying", "interrupted", ending.error_message)


def _judge_answer(
    ending: Ending, status: int, policy: Policy, retry_count: int, now: datetime, spread: float
) -> Verdict:
    if matches_status(status, policy.success_status):
        return _SUCCEEDED
    message = f"The target answered {status}."
    refused = (
        status in _NEVER_AGAIN
        or matches_status(status, policy.no_retry_status)
        or _says_no_retry(ending.headers)
    )
    if refused or retry_count >= policy.retry.max_retry_count:
        return Verdict("failed", "http_status", message)
    asked = retry_after_seconds(ending.headers, now) if status in (429, 503) else None
    delay = backoff_seconds(policy.retry, retry_count + 1, spread, asked)
    return Verdict("retrying", "http_status", message, delay, spends=True)


def _says_no_retry(headers: Iterable[tuple[str, str]]) -> bool:
    return any(
        name.lower() == "jobsched-no-retry" and value.strip().lower() == "true" for name, value in headers
    )


@lru_cache(maxsize=4096)
def matches_status(status: int, ranges: tuple[str, ...]) -> bool:
    """Whether ``status`` lies in one of ``ranges``, such as ``("200-299", "404")``."""
    for text in ranges:
        low, _, high = text.partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False

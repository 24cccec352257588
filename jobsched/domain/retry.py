"""When a failed attempt is tried again: pure arithmetic on a job's policy.

Source of the rules: the callback section of docs/api.md. Delay before retry n (from 1):
``min(max_backoff, min_backoff * factor ** (n - 1))``, spread by ``uniform(1 - jitter, 1 + jitter)``;
``Retry-After`` (RFC 9110, 10.2.3) only lengthens it, up to ``max_backoff``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: The third loss of one execution with its worker is final: the call itself may be what kills workers.
POISON_LOSSES = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a job's failed attempts are repeated. Times in seconds."""

    max_retry_count: int = 3
    min_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 3600.0
    backoff_factor: float = 2.0
    backoff_jitter: float = 0.1


def backoff_seconds(
    policy: RetryPolicy, retry: int, spread: float, retry_after: float | None = None
) -> float:
    """Seconds from the end of the failed attempt to retry number ``retry`` (from 1).

    ``spread`` is a random number in [0, 1); ``retry_after`` what the target asked for, in seconds.
    """
    try:
        grown = policy.min_backoff_seconds * policy.backoff_factor ** (retry - 1)
    except OverflowError:
        grown = policy.max_backoff_seconds
    delay = min(policy.max_backoff_seconds, grown) * (1 + policy.backoff_jitter * (2 * spread - 1))
    if retry_after is not None:
        delay = max(delay, min(retry_after, policy.max_backoff_seconds))
    return delay


def retry_after_seconds(headers: Iterable[tuple[str, str]], now: datetime) -> float | None:
    """What an answer's ``Retry-After`` asks for, as seconds from ``now``; None if absent or unreadable."""
    for name, value in headers:
        if name.lower() != "retry-after":
            continue
        text = value.strip()
        if text.isascii() and text.isdigit():
            return float(text[:12])
        try:
            instant = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        return max(0.0, (instant - now).total_seconds())
    return None

"""How we connect to Redis, and how its errors become ours.

RESP2, not 3: one round trip less at each connect (no HELLO), no push frames between replies, and it works
through old servers and proxies. Nothing that we send has a better reply in RESP3.

redis-py 8 repeats a failed command up to ten times, pipelines and scripts included, with growing pauses. A
push whose reply was lost would be pushed again, and a frozen server would hold the poller for a minute.
Retries are off: a caller that wants another try has the whole picture, and Postgres to look at.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from jobsched.errors import QueueUnavailable

SAFE_POLICY = "noeviction"

# A peer that vanished without a word (half-open partition) is noticed within 5 + 2 * 2 = 9 s on an idle
# connection; one with bytes on the way within TCP_USER_TIMEOUT. Names that a platform lacks are left out.
_KEEPALIVE_SECONDS = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2}
_USER_TIMEOUT_MS = {"TCP_USER_TIMEOUT": 5000}


def connect(url: str, *, tls_verify: bool = True, socket_timeout: float = 2.0) -> redis.Redis:
    """A client for ``url`` (``redis://``, ``rediss://``, ``unix://``). Connects at the first command.

    ``socket_timeout`` bounds, in seconds, each connect and each reply. ``tls_verify=False`` accepts any
    certificate (hosted Redis with self-signed ones). Safe to share between threads, not across a fork.
    Raises QueueUnavailable for an address that redis-py does not understand.
    """
    options: dict[str, object] = {
        "protocol": 2,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "retry": Retry(NoBackoff(), 0),
        "client_name": f"jobsched-{os.getpid()}",
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = _keepalive_options()
    if url.startswith("rediss:") and not tls_verify:
        options["ssl_cert_reqs"] = "none"
        options["ssl_check_hostname"] = False
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError as error:
        raise QueueUnavailable(f"The address of Redis is not understood: {error}") from error


@contextmanager
def converted() -> Iterator[None]:
    """Turn redis-py's errors into QueueUnavailable, keeping the cause. For ``with`` and as a decorator."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise QueueUnavailable(f"Redis: {str(error) or type(error).__name__}") from error


@converted()
def check_eviction_policy(client: redis.Redis) -> str | None:
    """What is wrong with the server's ``maxmemory-policy``: a sentence; None if nothing is, or nobody knows.

    Any policy but ``noeviction`` lets Redis throw away whole queues under pressure without an error. Nothing
    would be lost for good, but each loss costs 15 s. INFO is asked first: hosted servers often forbid
    CONFIG. Raises QueueUnavailable when the server cannot be reached.
    """
    policy = _policy_from_info(client) or _policy_from_config(client)
    if policy is None or policy == SAFE_POLICY:
        return None
    return (
        f"Redis has maxmemory-policy {policy}: under memory pressure it would silently drop queued work. "
        f"Set it to {SAFE_POLICY} (redis-cli CONFIG SET maxmemory-policy {SAFE_POLICY})."
    )


def _keepalive_options() -> dict[int, int]:
    wanted = _KEEPALIVE_SECONDS | _USER_TIMEOUT_MS
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _policy_from_info(client: redis.Redis) -> str | None:
    try:
        return _text(client.info("memory").get("maxmemory_policy"))
    except ResponseError:
        return None


def _policy_from_config(client: redis.Redis) -> str | None:
    try:
        return _text(client.config_get("maxmemory-policy").get("maxmemory-policy"))
    except ResponseError:
        return None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else None

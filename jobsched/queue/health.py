"""What the doctor asks of Redis, and the one thing that it mends there: entries that no execution knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.exceptions import RedisError, ResponseError

from jobsched.lines import mask_text
from jobsched.queue import rq_keys
from jobsched.queue.connection import check_eviction_policy, converted

#: What redis-py and the server say, in part, and what it means. The first that fits counts.
_REASONS = (
    ("name or service not known", "the name of the host is not known"),
    ("nodename nor servname", "the name of the host is not known"),
    ("name resolution", "the name of the host cannot be looked up"),
    ("no address associated", "the name of the host is not known"),
    ("connection refused", "nothing listens there (connection refused)"),
    ("wrongpass", "it refuses the user or the password"),
    ("invalid username-password", "it refuses the user or the password"),
    ("invalid password", "it refuses the user or the password"),
    ("authentication required", "it asks for a password, and none was given"),
    ("noauth", "it asks for a password, and none was given"),
    ("without any password configured", "it has no password, and one was given"),
    ("db index is out of range", "it has no such database number"),
    ("certificate", "TLS fails: {said}"),
    ("ssl", "TLS fails: {said}"),
    ("max number of clients", "all its connections are taken"),
    ("loading", "it is loading its data"),
    ("timeout", "it does not answer in time"),
    ("timed out", "it does not answer in time"),
    ("connection closed by server", "it closes the connection at once; is TLS (rediss://) needed?"),
)

#: Entries of one list that are looked at, at most.
MOST_ENTRIES = 200_000
_PAGE = 10_000

#: Entries that one round of removals walks past, about: some 10 ms in which Redis serves nobody else.
_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """The Redis server. ``memory`` and ``limit`` in bytes; a limit of 0 is none."""

    version: str
    replica: bool
    memory: int
    limit: int


def address(url: str) -> str:
    """Host, port and database number that a URL leads to, without user and password."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return unquote(parts.path)
    try:
        port = parts.port or 6379
    except ValueError:
        return "an address that is not understood"
    host = parts.hostname or "localhost"
    return f"{f'[{host}]' if ':' in host else host}:{port}{parts.path if len(parts.path) > 1 else '/0'}"


def reason(error: BaseException) -> str:
    """Why a connection failed, in plain words; what nobody foresaw is quoted, without passwords."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(str(seen) or type(seen).__name__)
        seen = seen.__cause__ or seen.__context__
    said = mask_text(" ".join(texts[-1].split()))
    text = " ".join(texts).lower()
    return next((meaning.format(said=said) for part, meaning in _REASONS if part in text), said)


class Health:
    """Questions to the server behind a client. Raises QueueUnavailable when it is away or refuses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def eviction_fault(self) -> str | None:
        """What is wrong with what it drops under pressure: a sentence, or None."""
        return check_eviction_policy(self._client)

    @converted()
    def server(self) -> Server:
        """What server this is. What a hosted one does not tell is taken for healthy."""
        self._client.ping()
        try:
            told = self._client.info()
        except ResponseError:
            told = {}
        return Server(
            version=str(told.get("valkey_version") or told.get("redis_version") or "unknown"),
            replica=told.get("role") == "slave",
            memory=int(told.get("used_memory") or 0),
            limit=int(told.get("maxmemory") or 0),
        )

    @converted()
    def clock(self) -> datetime:
        """What time it is there."""
        seconds, micros = self._client.time()
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)

    @converted()
    def entries(self, queue: str) -> list[str]:
        """What stands in the list of ``queue``, from its head, MOST_ENTRIES at most."""
        key = rq_keys.queue_key(queue)
        found: list[str] = []
        while len(found) < MOST_ENTRIES:
            try:
                page = self._client.lrange(key, len(found), len(found) + _PAGE - 1)
            except ResponseError:
                return found  # no list: the next push puts one in its place
            found += [
                one.decode(errors="surrogateescape") if isinstance(one, bytes) else str(one) for one in page
            ]
            if len(page) < _PAGE:
                break
        return found

    @converted()
    def drop(self, queue: str, values: Sequence[str]) -> int:
        """Remove ``values`` from the list of ``queue``, wherever they stand. Returns how many entries went."""
        key = rq_keys.queue_key(queue)
        gone = start = 0
        while start < len(values):
            # Redis walks the whole list for each value, and serves nobody else until it has read a round.
            size = max(1, _STEPS // max(1, self._client.llen(key)))
            pipe: Any = self._client.pipeline(transaction=False)  # typed for text, and takes bytes as well
            for value in values[start : start + size]:
                pipe.lrem(key, 0, value.encode(errors="surrogateescape"))
            gone += sum(pipe.execute())
            start += size
        return gone

    def served_by_rq(self, queue: str) -> bool:
        """Whether RQ knows of a living worker on ``queue``, of whatever make. False where Redis cannot say."""
        try:
            members = list(self._client.smembers(f"{rq_keys.PREFIX}:workers:{queue}"))
            return bool(members) and bool(self._client.exists(*members))
        except (RedisError, OSError):
            return False

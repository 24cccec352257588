"""What broker and picture share: a client, the loaded scripts, and how a call can fail."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import redis
from redis.commands.core import Script
from redis.exceptions import ReadOnlyError

from jobsched.queue.connection import converted

CHUNK = 1000
"""Ids that one script call carries at most: 5 to 10 ms of the server's time."""

Item = TypeVar("Item")


class ScriptClient:
    """Runs Lua scripts, by their hash; a server that does not know one (any more) is sent its text."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def _script(self, text: str) -> Script:
        return self._client.register_script(text)

    @converted()
    def _run(self, script: Script, args: Iterable[Any]) -> Any:
        try:
            return script(args=args)
        except ReadOnlyError:
            # This server was demoted to a replica. Only connecting anew finds the new primary.
            self._client.connection_pool.disconnect()
            raise


def chunks(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """``items`` in lists of at most ``size``, in order."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk

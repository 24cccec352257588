"""The messages: execution ids in RQ's lists, from the poller to the workers.

A message is an id and nothing else. It may arrive twice, late or never: the claim in Postgres sorts that
out. Delivery order is FIFO within a queue, which recovery relies on to see what got lost.
"""

from collections.abc import Callable, Sequence

import redis

from jobsched.clock import utc_now
from jobsched.domain.queues import pool_of, queues_of
from jobsched.log import get_logger
from jobsched.queue import rq_keys, scripts
from jobsched.queue.client import chunks
from jobsched.queue.connection import converted
from jobsched.queue.picture import Outcome, Picture, QueuePicture, RqCounts
from jobsched.queue.waker import Waker

__all__ = ["Broker", "Outcome", "Picture", "QueuePicture", "RqCounts", "Waker"]

_LARGEST_ID = 2**63 - 1


class Broker(Picture):
    """Push and take ids. Every method raises QueueUnavailable when Redis is away or refuses; none retries.

    One thread at a time may call ``take``; everything else is safe to share between threads.
    """

    def __init__(self, client: redis.Redis, on_foreign: Callable[[int], None] = lambda _count: None) -> None:
        """``on_foreign`` is told how many entries were dropped because they were no execution ids."""
        super().__init__(client)
        self._on_foreign = on_foreign
        self.foreign = 0
        """Entries dropped so far because they were no execution ids: somebody else writes into our lists."""
        self._turn = 0
        self._log = get_logger(part="broker")
        self._push = self._script(scripts.PUSH)
        self._take = self._script(scripts.TAKE)
        self._heads = self._script(scripts.HEADS)
        self._drop_head = self._script(scripts.DROP_HEAD)
        self._forget = self._script(scripts.FORGET)

    def push(self, items: Sequence[tuple[str, int]]) -> None:
        """Append ``(queue, execution id)`` to the queues, in order, and wake the workers of their pools.

        One script call per 1,000 ids. When a call fails, or its answer is lost, the ids before it are pushed
        and those of it may be; pushing them again is harmless.
        """
        for chunk in chunks(items):
            by_queue: dict[str, list[int]] = {}
            for queue, execution in chunk:
                by_queue.setdefault(queue, []).append(execution)
            args: list[str | int] = [
                rq_keys.PREFIX,
                rq_keys.stamp(utc_now()),
                rq_keys.QUEUED_TTL,
                rq_keys.DATA_HEAD,
                rq_keys.DATA_TAIL,
                rq_keys.FAILED_TTL,
            ]
            for queue, ids in by_queue.items():
                args += (queue, rq_keys.channel(pool_of(queue)), ",".join(map(str, ids)))
            self._run(self._push, args)

    def take(
        self, pools: Sequence[str], seats: int, high_only: bool = False, low_first: bool = False
    ) -> list[int]:
        """Pop up to ``seats`` ids: high before normal before low, within a level evenly from all ``pools``.

        ``high_only`` looks at the high queues only; ``low_first`` reverses the order, so that low work is
        never starved. What is no execution id is dropped and counted in ``foreign``. If the answer is lost
        on its way, so are the ids; recovery pushes them again.
        """
        if seats <= 0 or not pools:
            return []
        # Who stands first gets the odd seat: take turns.
        self._turn = (self._turn + 1) % len(pools)
        order = [*pools[self._turn :], *pools[: self._turn]]
        levels = list(zip(*(queues_of(pool) for pool in order), strict=True))
        if high_only:
            levels = levels[:1]
        elif low_first:
            levels.reverse()
        args: list[str | int] = [seats]
        for level in levels:
            args.append(len(level))
            args += (rq_keys.queue_key(queue) for queue in level)
        dropped, *taken = self._run(self._take, args)
        ids = [execution for execution in map(int, taken) if execution <= _LARGEST_ID]
        self._note_foreign(dropped + len(taken) - len(ids))
        return ids

    def heads(self, queues: Sequence[str]) -> dict[str, int | None]:
        """The id at the head of each queue, the next to be popped; None for an empty queue.

        Foreign entries at a head are dropped on the way, or a queue without workers would hide behind them.
        """
        keys = [rq_keys.queue_key(queue) for queue in queues]
        dropped, *heads = self._run(self._heads, keys)
        self._note_foreign(dropped)
        return {queue: int(head) if head else None for queue, head in zip(queues, heads, strict=True)}

    def drop_head(self, queue: str, execution: int) -> None:
        """Pop ``execution`` from ``queue`` if it still is its head: the message of a row no longer queued."""
        self._run(self._drop_head, [rq_keys.queue_key(queue), execution])

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages each queue holds."""
        return {queue: counts.ready for queue, counts in self.counts(queues).items()}

    def forget(self, ids: Sequence[int]) -> None:
        """Delete RQ's hashes and results of ``ids``: messages that were dropped and that no live row has."""
        for chunk in chunks(ids):
            self._run(self._forget, [rq_keys.PREFIX, *chunk])

    @converted()
    def epoch(self) -> str | None:
        """The mark of this Redis's contents, or None where there is none: it was wiped or is new."""
        value = self._client.get(rq_keys.EPOCH_KEY)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    @converted()
    def set_epoch(self, epoch: str) -> None:
        """Leave the mark that tells these contents from a wiped or replaced server's."""
        self._client.set(rq_keys.EPOCH_KEY, epoch)

    def _note_foreign(self, dropped: int) -> None:
        if dropped:
            self.foreign += dropped
            self._on_foreign(dropped)
            self._log.warning("foreign_messages_dropped", dropped=dropped, total=self.foreign)

"""Names of queues: a pool has three, one a band of priorities (contract, "RQ").

A pool's name has no dot (``[a-z0-9_-]``), so the suffixes can never be taken for part of it.
"""

from functools import lru_cache

HIGH_FROM = 8
LOW_UP_TO = 3

_HIGH, _LOW = ".high", ".low"


@lru_cache(maxsize=1024)
def queue_name(pool: str, priority: int) -> str:
    """The queue of a job: ``<pool>`` for priorities 4 to 7, ``<pool>.high`` above, ``<pool>.low`` below.

    >>> [queue_name("default", priority) for priority in (3, 4, 7, 8)]
    ['default.low', 'default', 'default', 'default.high']
    """
    if priority >= HIGH_FROM:
        return pool + _HIGH
    if priority <= LOW_UP_TO:
        return pool + _LOW
    return pool


def pool_of(queue: str) -> str:
    """The pool that ``queue`` belongs to.

    >>> pool_of("eu-west.high")
    'eu-west'
    """
    return queue.removesuffix(_HIGH).removesuffix(_LOW)


def queues_of(pool: str) -> tuple[str, str, str]:
    """The queues of ``pool``, in the order in which they are served: high, normal, low."""
    return pool + _HIGH, pool, pool + _LOW

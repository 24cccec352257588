"""Looking at something until it is over: often at first, every 2 s later."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

_FIRST_NAP = 0.1
_LONGEST_NAP = 2.0


def wait_until(
    over: Callable[[Seen], bool],
    look: Callable[[], Seen],
    timeout: float | None,
    late: Callable[[Seen], str],
) -> Seen:
    """What ``look`` returned when it was ``over``.

    Raises TimeoutError, worded by ``late``, after ``timeout`` seconds; None waits for ever.
    """
    end = None if timeout is None else time.monotonic() + timeout
    nap = _FIRST_NAP
    while True:
        seen = look()
        if over(seen):
            return seen
        left = nap if end is None else end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{late(seen)} after {timeout:g} s.")
        time.sleep(min(nap, left))
        nap = min(nap * 1.5, _LONGEST_NAP)

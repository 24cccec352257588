"""Waiting for something, and watching something meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

_EVERY = 0.02


def until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until ``is_so``; what that raises ends it. RuntimeError with ``what`` when it takes too long."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} within {seconds:g} s")
        time.sleep(_EVERY)


@contextmanager
def largest(look: Callable[[], Mapping[str, float]], every: float) -> Iterator[dict[str, float]]:
    """Look again and again inside the block, ``every`` so many seconds; at its end what it yields holds the largest."""
    found: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        over = False
        while not over:
            for name, value in look().items():
                found[name] = max(found.get(name, value), value)
            over = done.wait(every)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()

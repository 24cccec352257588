"""One of those who are compared at delivering: how it is filled, started, watched and ended."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

#: What every side posts, at every call: 100 bytes as compact JSON.
PAYLOAD = {
    "report": 7,
    "customer": "c-20417",
    "from": "2026-01-01T00:00:00Z",
    "note": "twenty-seven letters of txt",
}


@dataclass(frozen=True)
class Running:
    """A side at work.

    ``groups`` names its processes by what they are; ``worker`` is the one that is judged. ``left`` says how much
    is waiting in its queue. ``check`` raises RuntimeError with the log's end if a worker has ended by itself.
    ``finish`` ends the worker in an orderly way and returns what it found out about the records it leaves,
    given how many calls the target has had; raises AssertionError if one is missing.
    """

    groups: Callable[[], Mapping[str, Sequence[int]]]
    left: Callable[[], int]
    check: Callable[[], None]
    finish: Callable[[Callable[[], int]], dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """``start`` fills a queue of its own with so many calls of a URL and starts workers at a concurrency.

    ``fastest`` is more a second than it can do on any machine of two cores: the fill follows from it, and a queue
    that runs dry is an error. ``concurrencies`` are tried before the rounds, and the best is kept.
    """

    name: str
    label: str
    fastest: int
    concurrencies: tuple[int, ...]
    start: Callable[[str, int, int], AbstractContextManager[Running]]
    settings: str
    versions: Callable[[], dict[str, str]] = field(default=dict)

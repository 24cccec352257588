"""One page of a list that goes from the newest id to the oldest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """``next_before`` is the ``before_id`` of the next page; None means that this was the last."""

    items: list[T]
    next_before: int | None = None

    @staticmethod
    def of(items: list[T], limit: int, id_of: Callable[[T], int]) -> "Page[T]":
        """The page of the first ``limit`` of ``items``, of which one more was read to see whether there is one."""
        if len(items) <= limit:
            return Page(items)
        return Page(items[:limit], id_of(items[limit - 1]))

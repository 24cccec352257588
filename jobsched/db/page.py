"""One page of a list that goes from the newest id to the oldest."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """``next_before`` is the ``before_id`` of the next page; None means that this was the last."""

    items: list[T]
    next_before: int | None = None

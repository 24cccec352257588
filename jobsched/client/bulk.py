"""Many jobs in few requests: where to cut, and one result out of several."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobsched.client.types import BulkResult

#: The server takes so many jobs in a request, and so many bytes.
MOST_JOBS = 10_000
MOST_BYTES = 64 * 1024 * 1024


class Batch(NamedTuple):
    """Jobs for one request: the index of the first one, and their JSON array."""

    first: int
    body: bytes


def array(items: Sequence[bytes]) -> bytes:
    """A JSON array of values that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def batches(items: Sequence[bytes]) -> Iterator[Batch]:
    """``items`` in order, as few arrays as the server's limits allow. An item too large for any stands alone."""
    first, size = 0, 2
    for index, item in enumerate(items):
        size += len(item) + 1
        if index - first == MOST_JOBS or (size > MOST_BYTES and index > first):
            yield Batch(first, array(items[first:index]))
            first, size = index, len(item) + 3
    if first < len(items):
        yield Batch(first, array(items[first:]))


def nothing() -> BulkResult:
    """The result of no job at all."""
    return {"created": 0, "ids": [], "errors": []}


def add(result: BulkResult, answer: BulkResult, first: int) -> None:
    """Put the answer for a batch behind the ones before it; ``first`` is the index of its first job."""
    result["created"] += answer["created"]
    result["ids"] += answer["ids"]
    result["errors"] += [{**fault, "index": fault["index"] + first} for fault in answer["errors"]]

"""Threads that want the same thing done at the same moment have it done together, by one of them.

A statement for eight jobs costs little more than one for a single job, and one commit serves them all. Nobody waits
for company: who finds nothing under way begins at once, and what arrives meanwhile is done next, together. Nor does
anybody wait for long: where what is under way takes its time, who has come since goes alone.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class TogetherFailed(Exception):
    """What was done for several at once failed; the cause says why."""


class _Seat(Generic[T, R]):
    """One item and how it ended; whose ``group`` is set acts for all in it. ``turn`` is held while it waits."""

    def __init__(self, item: T) -> None:
        self.item: Final = item
        self.turn: Final = Lock()
        self.group: Sequence[_Seat[T, R]] = ()
        self.results: Sequence[R] = ()
        self.error: BaseException | None = None


class Gathering(Generic[T, R]):
    """Does ``act`` for up to ``most`` items at a time, and up to ``at_once`` times at once. Safe to share.

    ``act`` takes items and returns a result for each, in their order. ``patience``: the seconds for which an item waits
    for its turn.
    """

    def __init__(
        self, act: Callable[[Sequence[T]], Sequence[R]], *, most: int, at_once: int, patience: float
    ) -> None:
        self._act = act
        self._most = most
        self._patience = patience
        self._free = at_once
        self._waiting: list[_Seat[T, R]] = []
        self._lock = Lock()

    def do(self, item: T) -> R:
        """The result for ``item``. Raises what ``act`` raised for it alone, or TogetherFailed with that as cause."""
        seat = _Seat[T, R](item)
        with self._lock:
            if self._free:
                self._free -= 1
                seat.group = [seat]
            else:
                seat.turn.acquire()
                self._waiting.append(seat)
        # Let go when all is over, or when it is this one's turn to act.
        if not seat.group and not seat.turn.acquire(timeout=self._patience):
            if self._leave(seat):
                [result] = self._act([item])
                return result
            seat.turn.acquire()
        if seat.group:
            self._act_for(seat.group)
        if seat.error is not None:
            raise seat.error
        [result] = seat.results
        return result

    def _leave(self, seat: _Seat[T, R]) -> bool:
        """Wait no more; False where somebody acts for this one by now."""
        with self._lock:
            if seat not in self._waiting:
                return False
            self._waiting.remove(seat)
            return True

    def _act_for(self, group: Sequence[_Seat[T, R]]) -> None:
        try:
            results = self._act([seat.item for seat in group])
            for seat, result in zip(group, results, strict=True):
                seat.results = [result]
        except BaseException as error:
            for seat in group:
                # To each its own: whoever raises an error writes its way into it.
                seat.error = TogetherFailed(str(error)) if len(group) > 1 else error
                seat.error.__cause__ = error if len(group) > 1 else error.__cause__
            if not isinstance(error, Exception):
                raise
        finally:
            self._hand_on()
            for seat in group[1:]:
                seat.turn.release()

    def _hand_on(self) -> None:
        """Let those who have arrived meanwhile be next, led by the first of them."""
        with self._lock:
            group = self._waiting[: self._most]
            del self._waiting[: self._most]
            if not group:
                self._free += 1
        if group:
            group[0].group = group
            group[0].turn.release()

"""What RQ's own tools show of us: registries and job hashes. Best effort, and nothing reads them to decide.

Scores follow RQ: Started is scored by the time at which a job counts as abandoned, Scheduled by its due
time, Finished and Failed by the time at which the entry expires. ``rq info`` acts on them: it moves
Started entries whose score is past into Failed. That changes the picture only, until the next settle or
rebuild of that id puts it right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

import redis

from jobsched.clock import utc_now
from jobsched.queue import rq_keys, scripts
from jobsched.queue.client import ScriptClient, chunks

Outcome = Literal["finished", "failed", "scheduled", "queued"]

_Scores = dict[float, list[int]]

# Seconds that an entry outlives the instant it is about, and that its hash is kept.
_LIFE: dict[Outcome, tuple[int, int]] = {
    "finished": (rq_keys.FINISHED_TTL, rq_keys.FINISHED_TTL),
    "failed": (rq_keys.FAILED_TTL, rq_keys.FAILED_TTL),
    "scheduled": (0, rq_keys.QUEUED_TTL),
    "queued": (0, rq_keys.QUEUED_TTL),
}


# What a dead letter's hash is made of where it has none, as after a wipe.
_DEAD_LETTER = (rq_keys.DATA_HEAD, rq_keys.DATA_TAIL, rq_keys.FAILED_TTL)


@dataclass(frozen=True)
class QueuePicture:
    """What the registries of one queue should say, as Postgres knows it. Instants are unix seconds."""

    started: Sequence[tuple[int, float]] = field(default_factory=tuple)
    """(id, deadline) of what runs."""
    scheduled: Sequence[tuple[int, float]] = field(default_factory=tuple)
    """(id, due) of what waits for a retry."""
    failed: Sequence[tuple[int, float]] = field(default_factory=tuple)
    """(id, end) of dead letters."""


class RqCounts(NamedTuple):
    """RQ's numbers of one queue, as ``rq info`` would show them."""

    ready: int
    processing: int
    retry: int
    completed: int
    failed: int


class Picture(ScriptClient):
    """Keeps RQ's registries. Every method raises QueueUnavailable; callers log it and go on."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self._started = self._script(scripts.STARTED)
        self._settle = self._script(scripts.SETTLE)
        self._rebuild = self._script(scripts.REBUILD)
        self._counts = self._script(scripts.COUNTS)

    def show_started(self, entries: Sequence[tuple[str, int, float]], worker_name: str) -> None:
        """List ``(queue, id, deadline in unix seconds)`` as started by ``worker_name``."""
        now = rq_keys.stamp(utc_now())
        for chunk in chunks(entries):
            by_queue: dict[str, _Scores] = {}
            for queue, execution, deadline in chunk:
                scores = by_queue.setdefault(queue, {})
                scores.setdefault(deadline + rq_keys.STARTED_MARGIN, []).append(execution)
            args: list[str | float | int] = [rq_keys.PREFIX, rq_keys.RQ_EXECUTION_ID, now, worker_name]
            for queue, scores in by_queue.items():
                args += (queue, *_scored(scores))
            self._run(self._started, args)

    def settle(self, entries: Sequence[tuple[str, int, Outcome, float]]) -> None:
        """Take ``(queue, id, outcome, instant)`` out of Started and show each by its outcome.

        The instant, in unix seconds, is the end of what finished or failed for good, and the due time of
        what is scheduled for a retry; of what went back to its queue it is not looked at.
        """
        now = rq_keys.stamp(utc_now())
        for chunk in chunks(entries):
            groups: dict[tuple[str, Outcome], _Scores] = {}
            for queue, execution, outcome, instant in chunk:
                scores = groups.setdefault((queue, outcome), {})
                scores.setdefault(instant + _LIFE[outcome][0], []).append(execution)
            args: list[str | float | int] = [rq_keys.PREFIX, rq_keys.RQ_EXECUTION_ID, now, rq_keys.KEPT]
            args += _DEAD_LETTER
            for (queue, outcome), scores in groups.items():
                args += (queue, outcome, _LIFE[outcome][1], *_scored(scores))
            self._run(self._settle, args)

    def show_finished(self, queue: str, execution: int, ended: float) -> None:
        """Move one execution to Finished; ``ended`` in unix seconds."""
        self.settle([(queue, execution, "finished", ended)])

    def show_failed(self, queue: str, execution: int, ended: float) -> None:
        """Move one execution to Failed, RQ's dead letters; ``ended`` in unix seconds."""
        self.settle([(queue, execution, "failed", ended)])

    def show_scheduled(self, queue: str, execution: int, due: float) -> None:
        """Move one execution to Scheduled, where it waits for its retry; ``due`` in unix seconds."""
        self.settle([(queue, execution, "scheduled", due)])

    def rebuild_picture(self, picture: Mapping[str, QueuePicture]) -> None:
        """Replace Started, Scheduled and Failed of the queues named by what Postgres knows.

        Entries that leave lose their hashes, at once (dead letters that were redriven or discarded) or within
        an hour. Shows at most 5,000 started, the 5,000 that are due first, the newest 1,000 dead letters.
        """
        for queue, shown in picture.items():
            started = _pairs(shown.started[: rq_keys.SHOWN], rq_keys.STARTED_MARGIN)
            scheduled = sorted(shown.scheduled, key=_instant)[: rq_keys.SHOWN]
            failed = sorted(shown.failed, key=_instant)[-rq_keys.KEPT :]
            about = (rq_keys.PREFIX, rq_keys.RQ_EXECUTION_ID, rq_keys.FINISHED_TTL, *_DEAD_LETTER, queue)
            self._run(
                self._rebuild,
                [*about, *started, *_pairs(scheduled, 0), *_pairs(failed, rq_keys.FAILED_TTL)],
            )

    def counts(self, queues: Sequence[str]) -> dict[str, RqCounts]:
        """RQ's numbers of each queue. Expired entries do not count, whether cleaned up or not."""
        numbers = self._run(self._counts, [rq_keys.PREFIX, int(utc_now().timestamp()), *queues])
        return {
            queue: RqCounts(*numbers[5 * position : 5 * position + 5])
            for position, queue in enumerate(queues)
        }


def _instant(entry: tuple[int, float]) -> float:
    return entry[1]


def _scored(scores: _Scores) -> list[float | int | str]:
    """As the scripts read it: ids that share a score, as those of one batch do, are one argument."""
    args: list[float | int | str] = [len(scores)]
    for score, ids in scores.items():
        args += (score, ",".join(map(str, ids)))
    return args


def _pairs(entries: Sequence[tuple[int, float]], life: int) -> list[float | int]:
    pairs = chain.from_iterable((instant + life, execution) for execution, instant in entries)
    return [len(entries), *pairs]

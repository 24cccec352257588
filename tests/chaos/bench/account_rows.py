"""What the accountant reads beside calls, executions and arrivals, and what he writes down."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.chaos.bench.records import Verdict

#: Findings of one kind that are told one by one; the rest is counted.
MOST_TOLD = 50

Kind = Literal["lost", "duplicates", "wrong_state", "out_of_time", "stuck", "leaked"]
_KINDS: tuple[Kind, ...] = ("lost", "duplicates", "wrong_state", "out_of_time", "stuck", "leaked")


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job with its schedule row, deleted ones included. Instants are unix seconds.

    ``fields``: schedule, api, payload, headers, maxRetryCount and isActive under the API's names.
    """

    id: int
    name: str | None
    version: int
    created_at: float
    deleted_at: float | None
    next_execution_time: float | None
    fault: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter; ``id`` is the execution's."""

    id: int
    job_id: int
    error_code: str | None


class Findings:
    """Sentences by kind, each list cut after MOST_TOLD."""

    def __init__(self) -> None:
        self._told: dict[Kind, list[str]] = {kind: [] for kind in _KINDS}
        self._counts: Counter[Kind] = Counter()

    def add(self, kind: Kind, sentence: str) -> None:
        """Write one finding down."""
        self._counts[kind] += 1
        if len(self._told[kind]) < MOST_TOLD:
            self._told[kind].append(sentence)

    def verdict(self, figures: Mapping[str, float]) -> Verdict:
        """All of it, with a last line where a list was cut."""
        lists = {
            kind: [*told, f"and {self._counts[kind] - len(told)} more"]
            if self._counts[kind] > len(told)
            else told
            for kind, told in self._told.items()
        }
        return Verdict(**lists, figures=dict(figures))

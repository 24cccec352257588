"""What every part of the bench is: something measured, held against its bars, drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: What a part has measured, as it stands in its JSON file: figures with units in their names, lists, texts.
Figures = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How much to measure. ``quick``: windows of a few seconds, to see that everything works; its figures are
    never published. ``only`` names what a part compares, where it compares several; empty means all."""

    quick: bool = False
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One promise and what was measured of it: ``value`` must be at least (or at most) ``bar``."""

    what: str
    value: float
    bar: float
    unit: str
    sense: Literal["at least", "at most"]

    @property
    def met(self) -> bool:
        """Whether the promise was kept."""
        return self.value >= self.bar if self.sense == "at least" else self.value <= self.bar


@dataclass(frozen=True)
class Part:
    """``measure`` runs in fresh processes of its own making; ``draw`` writes plots into a folder, and returns them.

    ``words`` turns the figures into Markdown for docs/performance.md; without it they are listed one by one.
    """

    name: str
    title: str
    measure: Callable[[Options], Figures]
    bars: Callable[[Figures], Sequence[Bar]]
    draw: Callable[[Figures, Path], Sequence[Path]]
    words: Callable[[Figures], str] | None = None

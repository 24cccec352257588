"""Tables and figures in Markdown, for docs/performance.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.plots import amount

#: Longer lists are series: they are for the plots.
_LONGEST = 6


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a bar within a cell would end it, so it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in lines)


def spread(value: Mapping[str, float]) -> str:
    """``{"median", "low", "high"}`` in a cell."""
    median, low, high = (amount(value[key]) for key in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def listed(figures: Mapping[str, Any]) -> str:
    """Every figure by its path: for a part that has no words of its own."""
    return table(["figure", "value"], [[f"`{path}`", value] for path, value in _leaves(figures, "")])


def _leaves(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        if value.keys() == {"median", "low", "high"}:
            return [(path, spread(value))]
        return [
            leaf for key, one in value.items() for leaf in _leaves(one, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(value, list):
        if len(value) > _LONGEST or any(isinstance(one, dict | list) for one in value):
            return [(path, f"{len(value)} values")]
        return [(path, ", ".join(map(_shown, value)))]
    return [(path, _shown(value))]


def _shown(value: Any) -> str:
    return amount(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)

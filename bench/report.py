"""Puts the figures of result files between the marks of docs/performance.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import in_words
from bench.plots import amount
from bench.run import NAMES

BEGIN = "<!-- {name}: made by scripts/bench --report -->"
END = "<!-- end of {name} -->"


def write(results: Path) -> None:
    """Rewrite the tables of ``results``.md, a page beside the folder: all bars, and a section a part."""
    page = results.with_suffix(".md")
    told = read(results)
    text = between(page.read_text(encoding="utf-8"), "bars", bars_of(told))
    for part in told:
        text = between(text, part["part"], section(part, results))
    page.write_text(text, encoding="utf-8")


def read(results: Path) -> list[dict[str, Any]]:
    """The results that are there, in the order of the parts."""
    paths = (results / f"{name}.json" for name in NAMES)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def between(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the two marks of ``name`` replaced. ValueError where a mark is missing."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no marks {begin} and {end}")
    return f"{head}{begin}\n\n{content}\n{end}{tail}"


def bars_of(told: Sequence[dict[str, Any]]) -> str:
    """One table of every bar of every part."""
    rows = [
        [
            part["part"],
            bar["what"],
            f"{bar['sense']} {amount(bar['bar'])} {bar['unit']}",
            f"{amount(bar['value'])} {bar['unit']}",
            "yes" if bar["met"] else "**no**",
        ]
        for part in told
        for bar in part["bars"]
    ]
    return table(["part", "what", "bar", "measured", "met"], rows) if rows else "Nothing was measured yet.\n"


def section(part: dict[str, Any], results: Path) -> str:
    """The machine, the part's figures and its plots."""
    plots = sorted(results.glob(f"{part['part']}-*.svg"))
    pictures = "".join(f"\n![{part['title']}]({results.name}/{plot.name})\n" for plot in plots)
    return f"{in_words(part['machine'])}\n\n{_figures(part)}{pictures}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _figures(part: dict[str, Any]) -> str:
    own = _OF_PART.get(part["part"])
    return own(part["figures"]) if own else _plain(part["figures"])


def _plain(figures: dict[str, Any]) -> str:
    """Every figure by its path: what a part that says nothing of its own gets."""
    return table(["figure", "value"], [[f"`{path}`", value] for path, value in _leaves(figures)])


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            leaf for key, one in value.items() for leaf in _leaves(one, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(value, list):
        # Series are for the plots.
        return [(path, f"{len(value)} values")] if len(value) > 6 else [(path, ", ".join(map(_shown, value)))]
    return [(path, _shown(value))]


def _shown(value: Any) -> str:
    return amount(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _deliver(figures: dict[str, Any]) -> str:
    rows, costs = [], []
    ratios = figures["ratios"]
    sides = figures["sides"]
    groups = list(dict.fromkeys(group for side in sides.values() for group in side["cpu_us"]))
    for name, side in sides.items():
        rows.append(
            [
                side["label"],
                str(side["concurrency"]),
                _spread(side["per_second"]),
                _spread(ratios[name]) if name in ratios else "",
                _spread(side["worker_peak_pss_mb"]),
            ]
        )
        parts = side["cpu_us"]
        costs.append(
            [
                side["label"],
                *(amount(parts[one]) if one in parts else "" for one in groups),
                amount(sum(parts.values())),
            ]
        )
    return (
        f"{figures['rounds']} rounds of {figures['window_seconds']:g} s; median (lowest to highest).\n\n"
        + table(["side", "concurrency", "callbacks/s", "jobsched over it", "worker memory, MB"], rows)
        + "\nProcessor time of one callback, µs, by process:\n\n"
        + table(["side", *groups, "all"], costs)
    )


def _spread(value: dict[str, float]) -> str:
    median, low, high = (amount(value[key]) for key in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


_OF_PART = {"deliver": _deliver}

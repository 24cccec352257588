"""Puts the figures of result files between the marks of docs/performance.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import capacity
from bench.machine import in_words
from bench.markdown import listed, table
from bench.plots import amount
from bench.run import NAMES, part_named

BEGIN = "<!-- {name}: made by scripts/bench --report -->"
END = "<!-- end of {name} -->"

Told = Mapping[str, Any]


def write(results: Path) -> None:
    """Rewrite the page beside the folder ``results``: all bars, a section for each part, and the plan of capacity."""
    page = results.with_suffix(".md")
    told = read(results)
    text = between(page.read_text(encoding="utf-8"), "bars", bars_of(told))
    for name, one in told.items():
        text = between(text, name, section(one, results))
    if "deliver" in told:
        text = between(text, "capacity", capacity.words(told["deliver"], told.get("fire")))
    page.write_text(text, encoding="utf-8")


def read(results: Path) -> dict[str, dict[str, Any]]:
    """The results that are there, in the order of the parts."""
    paths = {name: results / f"{name}.json" for name in NAMES}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()
    }


def between(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the two marks of ``name`` replaced. ValueError where a mark is missing."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no marks {begin} and {end}")
    return f"{head}{begin}\n\n{content}\n{end}{tail}"


def bars_of(told: Mapping[str, Told]) -> str:
    """One table of every bar of every part."""
    rows = [
        [
            f"[{name}](#{name})",
            bar["what"],
            f"{bar['sense']} {amount(bar['bar'])} {bar['unit']}",
            f"{amount(bar['value'])} {bar['unit']}",
            "yes" if bar["met"] else "**no**",
        ]
        for name, one in told.items()
        for bar in one["bars"]
    ]
    return table(["part", "what", "bar", "measured", "met"], rows) if rows else "Nothing was measured yet.\n"


def section(told: Told, results: Path) -> str:
    """The machine, the part's figures and its plots."""
    part = part_named(told["part"])
    words = part.words(told["figures"]) if part.words else listed(told["figures"])
    plots = sorted(results.glob(f"{part.name}-*.svg"))
    pictures = "".join(f"\n![{part.title}: {plot.stem}]({results.name}/{plot.name})\n" for plot in plots)
    return f"{in_words(told['machine'])}\n\n{words}{pictures}"

"""Puts the figures of result files between the marks of docs/performance.md, and five of them into the README."""

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

#: Part, the beginning of its bar's name, and how the README says it.
_OF_BARS = (
    (
        "fire",
        "executions fired by one poller",
        "due schedules that one poller fires a second, committed and pushed",
    ),
    (
        "lag",
        "lag at 500/s, p99",
        "from due to the first byte at the target, at 500 a second, 99 of 100 within",
    ),
    ("create", "bulk of 10,000 jobs", "jobs that the API takes a second, in bulk"),
    ("memory", "memory of a worker process", "memory of a worker with 256 calls in flight"),
)


def write(results: Path) -> None:
    """Rewrite the page beside the folder ``results``: all bars, a section for each part, and the plan of capacity.

    And the five figures in the README above both, where there is one.
    """
    page = results.with_suffix(".md")
    told = read(results)
    text = between(page.read_text(encoding="utf-8"), "bars", bars_of(told))
    for name, one in told.items():
        text = between(text, name, section(one, results))
    if "deliver" in told:
        text = between(text, "capacity", capacity.words(told["deliver"], told.get("fire")))
    page.write_text(text, encoding="utf-8")
    readme = page.parent.parent / "README.md"
    if readme.exists():
        words = between(readme.read_text(encoding="utf-8"), "figures", five(told))
        readme.write_text(words, encoding="utf-8")


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


def five(told: Mapping[str, Told]) -> str:
    """The figures that matter most, of the parts that were measured."""
    rows = []
    if "deliver" in told:
        figures = told["deliver"]["figures"]
        speed = figures["sides"]["jobsched"]["per_second"]["median"]
        beside = ", ".join(
            f"{amount(figures['ratios'][side]['median'])} × {figures['sides'][side]['label']}"
            for side in ("bullmq", "arq", "rq-simple")
            if side in figures["ratios"]
        )
        rows.append(
            [
                "callbacks a second from one worker process, each recorded in Postgres",
                f"{amount(speed)} ({beside})",
            ]
        )
    for name, what, words in _OF_BARS:
        found = next(
            (bar for bar in told.get(name, {}).get("bars", ()) if bar["what"].startswith(what)), None
        )
        if found is not None:
            rows.append([words, f"{amount(found['value'])} {found['unit']}".replace(" /s", "")])
    return table(["what", "measured"], rows) if rows else "Nothing was measured yet.\n"


def section(told: Told, results: Path) -> str:
    """The machine, the part's figures and its plots."""
    part = part_named(told["part"])
    words = part.words(told["figures"]) if part.words else listed(told["figures"])
    plots = sorted(results.glob(f"{part.name}-*.svg"))
    pictures = "".join(f"\n![{part.title}: {plot.stem}]({results.name}/{plot.name})\n" for plot in plots)
    return f"{in_words(told['machine'])}\n\n{words}{pictures}"

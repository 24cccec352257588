"""Runs parts one after the other; each leaves its figures, its plots, and a verdict on its bars."""

import importlib
import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.machine import describe
from bench.part import Bar, Options, Part

#: All parts, in the order in which they run: the machine is emptiest at the beginning.
NAMES = ("deliver", "transport", "fire", "create", "lag", "size", "memory", "fanout", "reads", "large")


@dataclass(frozen=True)
class Result:
    """What became of one part: its bars, or why there are none and where the traceback is kept."""

    name: str
    bars: Sequence[Bar] = ()
    failure: str | None = None
    log: Path | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it was measured, and every bar was met."""
        return self.failure is None and all(bar.met for bar in self.bars)


def part_named(name: str) -> Part:
    """The part's description. LookupError where its module is missing."""
    module = f"bench.{name}"
    if find_spec(module) is None:
        raise LookupError(f"{module} is missing")
    part = importlib.import_module(module).PART
    assert isinstance(part, Part)
    return part


def run(name: str, options: Options, out: Path, logs: Path) -> Result:
    """Measure one part and write ``OUT/NAME.json`` and its plots. Whatever it raises ends up in a log, and in the
    result, so that the next part has its turn."""
    began = time.monotonic()
    try:
        part = part_named(name)
        machine = describe()
        figures = part.measure(options)
        bars = list(part.bars(figures))
        seconds = time.monotonic() - began
        told = {
            "part": name,
            "title": part.title,
            "quick": options.quick,
            "seconds": round(seconds, 1),
            "machine": machine,
            "bars": [asdict(bar) | {"met": bar.met} for bar in bars],
            "figures": figures,
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        part.draw(figures, out)
        return Result(name, bars, seconds=seconds)
    except Exception as error:
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.txt"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Result(name, failure=words[:300], log=log, seconds=time.monotonic() - began)

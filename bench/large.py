"""Part ``large``: what part ``size`` and part ``reads`` measure, once more with twenty million executions.

Four times the history of the others. What is in the way of nobody at that size is in nobody's way at this one either,
or it is found here.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from bench import installation, plots, reads, size
from bench.fill import fill
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.stamps import StampingTarget
from jobsched.testing.stand import Stand

LARGE = (1_000_000, 20_000_000)

_ROUNDS = 2
_READS, _READS_QUICK = 60, 10
_SETTLE = 20.0


def measure(options: Options) -> Figures:
    """Empty and large in turns; then all reads at that size, but for searches."""
    jobs, history = reads.QUICK if options.quick else LARGE
    with Stand() as empty, Stand() as full:
        filled = fill(full.database_url, jobs=jobs, history=history)
        figures = size.compared(empty, full, 1 if options.quick else _ROUNDS, options.quick)
        target = StampingTarget(full.folder)
        try:
            installation.start(full)
            reads.start_load(full, target.url)
            time.sleep(_SETTLE)
            taken = reads.read_all(full, filled, _READS_QUICK if options.quick else _READS, searches=False)
        finally:
            target.kill()
    return figures | {
        "jobs": jobs, "history": history, "fill_seconds": round(filled.seconds, 1), "reads": taken,
    }  # fmt: skip


def bars(figures: Figures) -> Sequence[Bar]:
    """Growth, as of ``size``."""
    return size.growth_bars(figures)


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """How much longer everything takes than on an empty installation."""
    return [size.draw_growth(figures, folder / "large-growth.svg")]


def words(figures: Figures) -> str:
    """Empty, large and the ratio; then the reads."""
    rows = [
        [name, *(plots.amount(one[part]) for part in ("p50_ms", "p95_ms"))]
        for name, one in figures["reads"].items()
    ]
    return f"{size.growth_words(figures)}\n{table(['read (ms)', 'p50', 'p95'], rows)}"


PART = Part("large", "Large", measure, bars, draw, words)

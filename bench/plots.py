"""The plots of all parts, in one style: plain, on white, with the figures written beside the bars.

Matplotlib is imported only when something is drawn: the rest of the bench works without it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Told apart by eyes that see no red or green as well (Okabe and Ito's palette, black and yellow left out).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Letters stay letters: smaller files, and a page of text can be searched for them.
    "svg.fonttype": "none",
    # Ids in the file do not change from run to run, so that a figure that did not change makes no difference.
    "svg.hashsalt": "jobsched",
}
_WIDTH = 8.0
_ROW = 0.42
_FRAME = 1.2


def horizontal_bars(
    path: Path,
    title: str,
    unit: str,
    rows: Sequence[tuple[str, float, float, float]],
    mark: float | None = None,
) -> Path:
    """One bar a row: ``(label, median, low, high)``, the first on top, the spread as a whisker.

    ``mark`` draws a line at a bar that is to be reached. Returns ``path``, an SVG.
    """
    figure, axes = _figure(len(rows))
    places = range(len(rows))
    medians = [median for _, median, _, _ in rows]
    below = [max(0.0, median - low) for _, median, low, _ in rows]
    above = [max(0.0, high - median) for _, median, _, high in rows]
    axes.barh(places, medians, color=COLOURS[0], height=0.66)
    axes.errorbar(
        medians, places, xerr=[below, above], fmt="none", ecolor="#333333", elinewidth=1.2, capsize=3
    )
    far = max([high for *_, high in rows] + [mark or 0.0]) or 1.0
    for place, (_, median, _, high) in zip(places, rows, strict=True):
        axes.text(max(median, high) + far * 0.012, place, amount(median), va="center")
    if mark is not None:
        axes.axvline(mark, color="#d55e00", linestyle="--", linewidth=1.2)
    axes.set_xlim(0, far * 1.14)
    return _finish(figure, axes, path, title, unit, [label for label, *_ in rows])


def stacked_bars(path: Path, title: str, unit: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> Path:
    """One bar a row, of parts that add up: ``(label, {part: value})``; the sum stands at its end."""
    figure, axes = _figure(len(rows), legend=True)
    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    places = range(len(rows))
    ends = [0.0] * len(rows)
    for number, name in enumerate(names):
        values = [parts.get(name, 0.0) for _, parts in rows]
        axes.barh(places, values, left=ends, height=0.66, label=name, color=COLOURS[number % len(COLOURS)])
        ends = [end + value for end, value in zip(ends, values, strict=True)]
    far = max(ends, default=0.0) or 1.0
    for place, end in zip(places, ends, strict=True):
        axes.text(end + far * 0.012, place, amount(end), va="center")
    axes.set_xlim(0, far * 1.14)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.9 / figure.get_figheight()), ncols=4, frameon=False
    )
    return _finish(figure, axes, path, title, unit, [label for label, _ in rows])


def quantiles(
    path: Path,
    title: str,
    unit: str,
    series: Mapping[str, Sequence[float]],
    mark: float | None = None,
) -> Path:
    """Which share of the values is at most so large: one line a series, its values in any order.

    The scale is logarithmic, so values must be above zero to be seen. ``mark`` draws a line at a bar.
    """
    figure, axes = _figure(7, legend=True)
    for number, (name, values) in enumerate(series.items()):
        seen, shares = _thinned(sorted(values))
        axes.step(seen, shares, where="post", label=name, color=COLOURS[number % len(COLOURS)])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if mark is not None:
        axes.axvline(mark, color="#d55e00", linestyle="--", linewidth=1.2)
    axes.set_ylim(0, 1.01)
    axes.set_ylabel("share")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    # Below: curves that rise to the right leave no corner free.
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.7 / figure.get_figheight()), ncols=2, frameon=False
    )
    axes.set_title(title)
    axes.set_xlabel(unit)
    return _save(figure, path)


def amount(value: float) -> str:
    """A figure as people write it: three digits that matter, thousands parted."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _figure(rows: int, *, legend: bool = False) -> "tuple[Figure, Axes]":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(_STYLE)
    # A Figure of its own needs no display and no global state, unlike pyplot.
    figure = Figure(figsize=(_WIDTH, _FRAME + _ROW * rows + (0.4 if legend else 0)), facecolor="white")
    return figure, figure.add_subplot()


def _finish(figure: "Figure", axes: "Axes", path: Path, title: str, unit: str, labels: Sequence[str]) -> Path:
    axes.set_yticks(range(len(labels)), labels=list(labels))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title)
    axes.set_xlabel(unit)
    return _save(figure, path)


def _save(figure: "Figure", path: Path) -> Path:
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    # Matplotlib leaves spaces at the ends of lines, which git complains about.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
    return path


def _thinned(ordered: Sequence[float], most: int = 400) -> tuple[list[float], list[float]]:
    """So many points that the line looks the same, more of them near its end: a million would make a large file."""
    count = len(ordered)
    if count <= most:
        places = list(range(count))
    else:
        even = {round(step * (count - 1) / (most // 2)) for step in range(most // 2 + 1)}
        tail = {count - 1 - round(count ** (step / (most // 2))) for step in range(most // 2)}
        places = sorted(place for place in even | tail if 0 <= place < count)
    return [ordered[place] for place in places], [(place + 1) / count for place in places]

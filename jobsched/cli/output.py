"""Printing: tables and details, coloured for a terminal and plain otherwise; and JSON as it came."""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jobsched.cli.text import clean, instant, one_line, relative

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STYLE_OF_STATE = {
    "succeeded": "green",
    "failed": "bold red",
    "running": "cyan",
    "queued": "blue",
    "retrying": "yellow",
    "blocked": "magenta",
    "paused": "yellow",
    "cancelled": "dim",
    "skipped": "dim",
}
# Valid JSON may hold these as they are; a terminal may obey them.
_TO_ESCAPE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Cell(NamedTuple):
    """A piece of a table with a style of its own; the style never carries meaning alone."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """A column: its heading, whether it holds numbers, and whether it may give way in a narrow terminal."""

    heading: str
    number: bool = False
    gives_way: bool = False


Value = Cell | str | int | float | bool | None


def on_terminal() -> bool:
    """Whether a person is looking: only then there are colours, relative times and cut texts."""
    return sys.stdout.isatty()


def print_json(answer: Any) -> None:
    """The API's answer as it is: the same names, values and order."""
    click.echo(_escaped(json.dumps(answer, indent=2, ensure_ascii=False)))


def print_json_line(answer: Any) -> None:
    """An answer among several: one line each (NDJSON)."""
    click.echo(_escaped(json.dumps(answer, ensure_ascii=False, separators=(",", ":"))))


def state(name: Any) -> Cell:
    """A state in its colour."""
    text = one_line(name)
    return Cell(text, _STYLE_OF_STATE.get(text, ""))


def moment(text: Any, now: datetime | None = None) -> str:
    """A time for a table: relative in a terminal, exact where a program may read it."""
    at = instant(text)
    if at is None or not on_terminal():
        return one_line(text)
    return relative(at, now or datetime.now(UTC))


def full_moment(text: Any, now: datetime | None = None) -> str:
    """A time for details: exact, and how far away."""
    at = instant(text)
    if at is None or not on_terminal():
        return one_line(text)
    distance = relative(at, now or datetime.now(UTC))
    # Far away, the distance is a date itself, which would only repeat the beginning of the line.
    return exact(at) if distance[:4].isdigit() else f"{exact(at)} ({distance})"


def exact(at: datetime) -> str:
    """A time to the millisecond, as far as it has any, in UTC."""
    universal = at.astimezone(UTC)
    fraction = f".{universal.microsecond // 1000:03d}" if universal.microsecond >= 1000 else ""
    return f"{universal:%Y-%m-%d %H:%M:%S}{fraction} UTC"


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Value]], empty: str, *, cut: bool = True
) -> None:
    """Print rows under their headings; ``empty`` stands in their place where there are none.

    In a narrow terminal, what does not fit is cut with an ellipsis, or goes on below without ``cut``.
    """
    if not rows:
        click.echo(empty, err=not on_terminal())
    elif on_terminal():
        _console().print(_rich_table(columns, rows, cut))
    else:
        click.echo("\n".join(_plain_table(columns, rows)))


def _rich_table(columns: Sequence[Column], rows: Sequence[Sequence[Value]], cut: bool) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for column in columns:
        justify: Any = "right" if column.number else "left"
        # "no_wrap" on the column would exempt it from shrinking; on the text it only keeps it on one line.
        table.add_column(column.heading, justify=justify, no_wrap=not column.gives_way, min_width=4)
    for row in rows:
        cells = [value if isinstance(value, Cell) else Cell(one_line(value)) for value in row]
        # Text, not a string: a string's square brackets would be read as markup.
        overflow: Any = "ellipsis" if cut else "fold"
        table.add_row(*(Text(one_line(c.text), c.style, no_wrap=cut, overflow=overflow) for c in cells))
    return table


def _plain_table(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> list[str]:
    """The table as aligned lines, nothing cut, two spaces between columns."""
    from rich.cells import cell_len

    lines = [[column.heading for column in columns]]
    lines += [[one_line(value.text if isinstance(value, Cell) else value) for value in row] for row in rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]

    def aligned(line: list[str]) -> str:
        parts = []
        for text, width, column in zip(line, widths, columns, strict=True):
            space = " " * (width - cell_len(text))
            parts.append(space + text if column.number else text + space)
        return "  ".join(parts).rstrip()

    return [aligned(line) for line in lines]


def print_details(pairs: Mapping[str, Value]) -> None:
    """Print one thing: a line for each of its values, names on the left. None leaves a line out."""
    shown = {name: value for name, value in pairs.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        cell = value if isinstance(value, Cell) else Cell(one_line(value))
        if on_terminal():
            from rich.text import Text

            line = Text.assemble((f"{name:<{width}}  ", "dim"), (one_line(cell.text), cell.style))
            _console().print(line, soft_wrap=True)
        else:
            click.echo(f"{name:<{width}}  {one_line(cell.text)}")


def print_block(heading: str, text: str) -> None:
    """Print a longer text, such as a body, under a heading, indented and made safe."""
    print_heading(heading)
    for line in clean(text).splitlines() or [""]:
        click.echo(f"  {line}")


def print_heading(text: str) -> None:
    """A heading within details, after an empty line."""
    click.echo(f"\n{clean(text)}")


def print_note(text: str) -> None:
    """A sentence or two after a table, wrapped to the terminal."""
    click.echo()
    click.echo(click.wrap_text(clean(text), width=shutil.get_terminal_size().columns))


def print_more(page: Mapping[str, Any]) -> None:
    """Say how to see what comes after this page; beside the output where a program may read that."""
    if page.get("nextCursor"):
        click.echo(f"\nMore: repeat with --cursor {one_line(page['nextCursor'])}", err=not on_terminal())


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _escaped(document: str) -> str:
    return _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", document)

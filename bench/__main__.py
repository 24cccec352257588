"""``scripts/bench``: run parts, one after the other, and say which bars were met."""

import signal
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench import report
from bench.part import Options
from bench.plots import amount
from bench.run import NAMES, Result, run

_ROOT = Path(__file__).parents[1]
#: Whole results are kept with the project; everything else goes where git does not look.
RESULTS = _ROOT / "docs" / "performance"
KEPT = _ROOT / ".bench"


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Seconds instead of minutes, to see that everything works.")
@click.option("--sides", default="", help="For deliver: only these, such as jobsched,bullmq.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go; by default docs/performance, or .bench/quick with --quick or --sides.",
)
@click.option(
    "--report", "only_report", is_flag=True, help="Only write docs/performance.md from the results."
)
def main(parts: tuple[str, ...], quick: bool, sides: str, out: Path | None, only_report: bool) -> None:
    """Measure PARTS (by default all): deliver transport fire create lag size memory fanout
    reads large.

    Each leaves OUT/PART.json and its plots. Exit code 1 if a bar was missed or a part failed.
    """
    # As Ctrl-C does, and unlike the default, it ends what was started: servers, workers, targets.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if only_report:
        report.write(out or RESULTS)
        return
    only = tuple(side.strip() for side in sides.split(",") if side.strip())
    whole = not quick and not only
    if out is not None and not whole and out.resolve() == RESULTS:
        raise click.UsageError("what is quick, or only a part of the sides, is not published")
    folder = out or (RESULTS if whole else KEPT / "quick")
    results = []
    for name in dict.fromkeys(parts or NAMES):
        click.echo(f"{name} …", err=True)
        results.append(run(name, Options(quick, only), folder, KEPT / "log"))
        click.echo(_in_a_line(results[-1]), err=True)
    if folder == RESULTS:
        report.write(folder)
    Console().print(_table(results))
    click.echo(f"figures and plots: {folder}", err=True)
    sys.exit(0 if all(result.passed for result in results) else 1)


def _in_a_line(result: Result) -> str:
    if result.failure is not None:
        return f"{result.name}: failed after {result.seconds:.0f} s: {result.failure}\n  see {result.log}"
    met = sum(bar.met for bar in result.bars)
    return f"{result.name}: {met} of {len(result.bars)} bars met, in {result.seconds:.0f} s"


def _table(results: list[Result]) -> Table:
    table = Table("part", "what", "measured", "bar", "", title="Bars", title_justify="left")
    for result in results:
        if result.failure is not None:
            table.add_row(result.name, result.failure, "", "", "[red]failed[/red]")
        for bar in result.bars:
            table.add_row(
                result.name,
                bar.what,
                f"{amount(bar.value)} {bar.unit}",
                f"{bar.sense} {amount(bar.bar)} {bar.unit}",
                "[green]met[/green]" if bar.met else "[red]missed[/red]",
            )
    return table


if __name__ == "__main__":
    main(prog_name="scripts/bench")

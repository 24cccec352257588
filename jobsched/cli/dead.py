"""``jobsched dead``: executions that failed for good."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from jobsched.cli.connection import connect, json_option, page_options, time_options
from jobsched.cli.fields import Given, payload_value
from jobsched.cli.output import print_json, print_more
from jobsched.cli.text import one_line
from jobsched.cli.views import print_dead_letters

Command = TypeVar("Command", bound=Callable[..., Any])


def _filter_options(command: Command) -> Command:
    command = time_options(command)
    command = click.option("--error-code", metavar="CODE", help="Only with this error, such as timeout.")(
        command
    )
    return click.option("--job-id", type=int, metavar="ID", help="Only of this job.")(command)


def _selection(command: Command) -> Command:
    """Ids, or filters, or --all: what redrive and discard work on."""
    command = click.option("--all", "all_", is_flag=True, help="Every dead letter there is.")(command)
    command = _filter_options(command)
    return click.argument("ids", nargs=-1, type=click.IntRange(min=1))(command)


@click.group()
def dead() -> None:
    """List what failed for good; run it again or discard it."""


@dead.command("list")
@_filter_options
@page_options
def list_(as_json: bool, **filters: Any) -> None:
    """List dead letters, newest first."""
    with connect() as client:
        page = client.dead_letters.page(**filters)
    if as_json:
        print_json(page)
        return
    print_dead_letters(page["items"])
    print_more(page)


@dead.command()
@_selection
@click.option("--rate-per-second", type=float, metavar="N", help="Start at most this many each second.")
@click.option("--payload", metavar="JSON", callback=payload_value, help="Send this instead; for one id.")
@json_option
def redrive(
    ids: tuple[int, ...],
    rate_per_second: float | None,
    payload: Given | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Run dead letters again, chosen by ID, by filter, or --all."""
    chosen = _chosen(ids, filters)
    extra = {} if payload is None else {"payload": payload.value}
    with connect() as client:
        answer = client.dead_letters.redrive(**chosen, rate_per_second=rate_per_second, **extra)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Running {one_line(answer.get('matched'))} dead letters again.")


@dead.command()
@_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def discard(ids: tuple[int, ...], yes: bool, as_json: bool, **filters: Any) -> None:
    """Throw dead letters away for good, chosen by ID, by filter, or --all."""
    chosen = _chosen(ids, filters)
    # Ids were named one by one; a filter may match more than its author thinks. A script is not asked.
    if not ids and not yes and sys.stdin.isatty():
        click.confirm("Discard every dead letter that matches, for good?", abort=True, err=True)
    with connect() as client:
        answer = client.dead_letters.discard(**chosen)
    if as_json:
        print_json(answer)
        return
    counts = [value for value in (answer or {}).values() if isinstance(value, int)]
    click.echo(f"Discarded {counts[0]} dead letters." if counts else "Discarded.")


def _chosen(ids: tuple[int, ...], filters: dict[str, Any]) -> dict[str, Any]:
    """``ids=`` or ``filter=`` for the client; nothing chosen is an error and never means all."""
    everything = filters.pop("all_")
    given = {name: value for name, value in filters.items() if value is not None}
    if bool(ids) + bool(given) + everything > 1:
        raise click.UsageError("Choose by ids, or by filters, or by --all; not by several of them.")
    if ids:
        return {"ids": ids}
    if everything:
        return {"filter": {"all": True}}
    if not given:
        raise click.UsageError("Which ones? Give ids, a filter such as --job-id, or --all.")
    return {"filter": given}

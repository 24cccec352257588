"""``jobsched dead``: executions that failed for good."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobsched.cli.connection import (
    check_timeout,
    connect,
    job_filter,
    json_option,
    once_option,
    page_options,
    time_options,
    wait_timeout_option,
)
from jobsched.cli.errors import FAILED, NOT_FOUND
from jobsched.cli.fields import Given, payload_value
from jobsched.cli.output import print_json, print_more
from jobsched.cli.text import count
from jobsched.cli.views import print_dead_letters

if TYPE_CHECKING:
    from jobsched.client import Client
    from jobsched.client.types import RedriveProgress

Command = TypeVar("Command", bound=Callable[..., Any])

_REDRIVE = click.argument("id", type=click.IntRange(min=1))


def _filter_options(command: Command) -> Command:
    command = time_options(command)
    command = click.option("--error-code", metavar="CODE", help="Only with this error, such as timeout.")(
        command
    )
    return job_filter(command)


def _selection(command: Command) -> Command:
    """Ids, or filters, or --all: what redrive and discard work on."""
    command = click.option("--all", "all_", is_flag=True, help="Every dead letter there is.")(command)
    command = _filter_options(command)
    return click.argument("ids", nargs=-1, metavar="[ID]...", type=click.IntRange(min=1))(command)


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
@click.option(
    "--rate",
    "--rate-per-second",
    "rate",
    type=float,
    metavar="N",
    help="Start at most N each second; all at once if not given.",
)
@click.option(
    "--payload",
    metavar="JSON",
    callback=payload_value,
    help="Send this instead: JSON, @FILE or @-. For one ID.",
)
@click.option("--wait", is_flag=True, help="Wait until all have ended; exit 1 unless all succeeded.")
@wait_timeout_option
@once_option
@json_option
def redrive(
    ids: tuple[int, ...],
    rate: float | None,
    payload: Given | None,
    wait: bool,
    timeout: float | None,
    idempotency_key: str | None,
    as_json: bool,
    **filters: Any,
) -> int:
    """Run dead letters again, chosen by ID, by filter, or --all.

    Each runs as a new execution of its job as the job is now.
    """
    check_timeout(wait, timeout)
    chosen = _chosen(ids, filters)
    extra = {} if payload is None else {"payload": payload.value}
    with connect() as client:
        accepted = client.dead_letters.redrive(
            **chosen, rate_per_second=rate, idempotency_key=idempotency_key, **extra
        )
        found = _all_found(ids, accepted["matched"])
        if wait and accepted["matched"]:
            return _wait(client, accepted["id"], timeout, as_json) or found
    if as_json:
        print_json(accepted)
        return found
    click.echo(f"Redrive {accepted['id']}: {count(accepted['matched'], 'dead letter')} to run again.")
    if accepted["matched"]:
        click.echo(f"See how far it is with: jobsched dead progress {accepted['id']}")
    return found


@dead.command()
@_REDRIVE
@click.option("--wait", is_flag=True, help="Wait until all have ended; exit 1 unless all succeeded.")
@wait_timeout_option
@json_option
def progress(id: int, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Show how far a redrive is."""
    check_timeout(wait, timeout)
    with connect() as client:
        if wait:
            return _wait(client, id, timeout, as_json)
        found = client.dead_letters.redrive_progress(id)
    print_json(found) if as_json else click.echo(_told(found))
    return 0


@dead.command()
@_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
@once_option
@json_option
def discard(
    ids: tuple[int, ...], yes: bool, idempotency_key: str | None, as_json: bool, **filters: Any
) -> int:
    """Throw dead letters away for good, chosen by ID, by filter, or --all."""
    chosen = _chosen(ids, filters)
    # Ids were named one by one; a filter may match more than its author thinks. A script is not asked.
    if not ids and not yes and sys.stdin.isatty():
        click.confirm("Discard every dead letter that matches, for good?", abort=True, err=True)
    with connect() as client:
        answer = client.dead_letters.discard(**chosen, idempotency_key=idempotency_key)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Discarded {count(answer['discarded'], 'dead letter')}.")
    return _all_found(ids, answer["discarded"])


def _all_found(ids: tuple[int, ...], found: int) -> int:
    """The exit code after ids were named: whoever names what is not there is told."""
    missing = len(set(ids)) - found
    if missing <= 0:
        return 0
    click.echo(f"{missing} of the ids named no dead letter, or one that was redriven or discarded.", err=True)
    return NOT_FOUND


def _wait(client: "Client", id: int, timeout: float | None, as_json: bool) -> int:
    watched = sys.stderr.isatty()
    shown = ""

    def tell(seen: "RedriveProgress") -> None:
        # One line that changes, where somebody looks; whoever reads a log gets the end only.
        nonlocal shown
        if watched and (text := _told(seen)) != shown:
            click.echo(f"\r{text:<{len(shown)}}", nl=False, err=True)
            shown = text

    if watched:
        click.echo("Ctrl-C only ends the wait.", err=True)
    try:
        ended = client.dead_letters.wait(id, timeout, tell)
    finally:
        if shown:
            click.echo(f"\r{'':<{len(shown)}}\r", nl=False, err=True)
    print_json(ended) if as_json else click.echo(_told(ended))
    return FAILED if ended["failed"] else 0


def _told(progress: "RedriveProgress") -> str:
    failed = f"{progress['failed']} did not succeed" if progress["failed"] else "none failed"
    return (
        f"Redrive {progress['id']} is {progress['state']}: "
        f"{progress['done']} of {progress['matched']} ended, {failed}."
    )


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
        raise click.UsageError("Which ones? Give ids, a filter such as --job, or --all.")
    return {"filter": given}

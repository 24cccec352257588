"""``jobsched executions``: look at runs, cancel and repeat them."""

from typing import Any

import click

from jobsched.cli.connection import (
    connect,
    job_filter,
    json_option,
    once_option,
    page_options,
    state_filter,
    time_options,
    trigger_filter,
)
from jobsched.cli.output import print_json, print_more
from jobsched.cli.views import print_execution, print_executions

_ID = click.argument("id", type=click.IntRange(min=1))


@click.group()
def executions() -> None:
    """Show, cancel and repeat runs."""


@executions.command("list")
@state_filter("Only in this state.")
@job_filter
@trigger_filter
@time_options
@page_options
def list_(as_json: bool, **filters: Any) -> None:
    """List executions, newest first."""
    with connect() as client:
        page = client.executions.page(**filters)
    if as_json:
        print_json(page)
        return
    print_executions(page["items"])
    print_more(page)


@executions.command()
@_ID
@json_option
def show(id: int, as_json: bool) -> None:
    """Show one execution with its attempts and the captured answer."""
    with connect() as client:
        execution = client.executions.get(id)
    print_json(execution) if as_json else print_execution(execution)


@executions.command()
@_ID
@once_option
@json_option
def cancel(id: int, idempotency_key: str | None, as_json: bool) -> None:
    """Cancel an execution; a running call is aborted within 2 s."""
    with connect() as client:
        execution = client.executions.cancel(id, idempotency_key=idempotency_key)
    if as_json:
        print_json(execution)
    elif execution["state"] == "cancelled":
        click.echo(f"Cancelled execution {id}.")
    else:
        click.echo(f"Execution {id} is being cancelled, unless its outcome comes first.")


@executions.command()
@_ID
@once_option
@json_option
def retry(id: int, idempotency_key: str | None, as_json: bool) -> None:
    """Run an execution again now; a final one runs again as a new execution."""
    with connect() as client:
        execution = client.executions.retry(id, idempotency_key=idempotency_key)
    if as_json:
        print_json(execution)
    elif execution["id"] == id:
        click.echo(f"Execution {id} is due now.")
    else:
        click.echo(f"Execution {execution['id']} repeats execution {id}.")

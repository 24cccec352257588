"""What every command that talks to the API shares: the client, and the options of listings."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from jobsched.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])


def connect() -> "Client":
    """A client for the configured server. Use it in a with-statement."""
    from jobsched.client import Client

    try:
        return Client()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def json_option(command: Command) -> Command:
    """``--json``: print the API's answer as it is."""
    return click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it is.")(command)


def page_options(command: Command) -> Command:
    """``--limit``, ``--cursor`` and ``--json`` of a listing, which shows one page."""
    command = json_option(command)
    command = click.option("--cursor", metavar="CURSOR", help="Go on after a page: its nextCursor.")(command)
    return click.option("--limit", type=int, metavar="N", help="Rows of this page: 1 to 500, default 50.")(
        command
    )


def time_options(command: Command) -> Command:
    """``--from`` and ``--to``, which bound the time for which executions were scheduled."""
    command = click.option("--to", metavar="TIME", help="Scheduled before this (RFC 3339).")(command)
    return click.option("--from", "from_", metavar="TIME", help="Scheduled at or after this (RFC 3339).")(
        command
    )

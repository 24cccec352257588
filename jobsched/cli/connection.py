"""What every command that talks to the API shares: the client, and options that mean the same everywhere."""

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


def job_filter(command: Command) -> Command:
    """``--job``: only what belongs to one job."""
    return click.option("--job", "--job-id", "job_id", type=int, metavar="ID", help="Only of this job.")(
        command
    )


def state_filter(help_text: str) -> Callable[[Command], Command]:
    """``--state``, which may be repeated."""
    return click.option("--state", multiple=True, metavar="STATE", help=f"{help_text} May be repeated (or).")


def trigger_filter(command: Command) -> Command:
    """``--trigger``: only what was started so."""
    return click.option("--trigger", metavar="TRIGGER", help="schedule, manual or redrive.")(command)


def once_option(command: Command) -> Command:
    """``--idempotency-key``: what is sent again with it is done once."""
    return click.option(
        "--idempotency-key",
        metavar="KEY",
        callback=_idempotency_key,
        help="Done once, however often it is sent with this KEY within 24 h.",
    )(command)


def version_option(command: Command) -> Command:
    """``--version``: only if nobody edited the job since."""
    return click.option(
        "--version", type=int, metavar="N", help="Refuse if the job's version is another by now."
    )(command)


def wait_timeout_option(command: Command) -> Command:
    """``--timeout`` of ``--wait``."""
    return click.option(
        "--timeout", type=float, metavar="SECONDS", help="With --wait: give up after this long."
    )(command)


def check_timeout(wait: bool, timeout: float | None) -> None:
    """Refuse a ``--timeout`` that would mean nothing."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout only means something with --wait.")


def _idempotency_key(context: click.Context, parameter: click.Parameter, key: str | None) -> str | None:
    if key is None:
        return None
    from jobsched.client.transport import key_header

    try:
        key_header(key)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return key

"""Errors as people need them: what is wrong, where, and what to do; and the exit code.

0 done · 1 failed · 2 wrong usage or configuration · 3 server not reachable · 4 not found · 5 not allowed
"""

import sys
from typing import TYPE_CHECKING

import click

from jobsched.cli.text import clean

if TYPE_CHECKING:
    from jobsched.client import ApiError

FAILED, USAGE, UNREACHABLE, NOT_FOUND, NOT_ALLOWED = 1, 2, 3, 4, 5


def report(error: Exception) -> int:
    """Write ``error`` to stderr in a few lines and return the exit code that it stands for."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    # The client and its `requests` are loaded by now if the error comes from them; if not, leave them alone.
    client_errors = sys.modules.get("jobsched.client.errors")
    if client_errors is not None and isinstance(error, client_errors.ApiError):
        code, lines = explain(error)
        say(*lines)
        return code
    from jobsched.errors import ConfigError, InvalidInput, JobschedError

    if isinstance(error, InvalidInput):
        say(str(error.args[0]), *(fault_line(fault.pointer, fault.message) for fault in error.faults))
        return FAILED
    if isinstance(error, JobschedError):
        say(str(error))
        return USAGE if isinstance(error, ConfigError) else FAILED
    if isinstance(error, OSError | TimeoutError):
        say(str(error))
        return FAILED
    say(f"{type(error).__name__}: {error}", "This is a fault in jobsched itself; please report it.")
    return FAILED


def say(first: str, *more: str) -> None:
    """A message on stderr; further lines are indented under the first."""
    click.echo(f"jobsched: {clean(first)}", err=True)
    for line in more:
        click.echo(f"  {clean(line)}", err=True)


def explain(error: "ApiError") -> tuple[int, list[str]]:
    """The exit code of an API error, and its lines: the message, each fault with its field, what to do."""
    from jobsched.client.errors import Conflict, Invalid, NotFound, Unauthorized, Unreachable

    lines = [error.message, *(fault_line(place, message) for place, message in error.faults)]
    if isinstance(error, Unreachable):
        lines.append("Is it running? `jobsched up` starts one here; JOBSCHED_URL names one elsewhere.")
        return UNREACHABLE, lines
    if isinstance(error, Unauthorized):
        return NOT_ALLOWED, lines + _way_in(error.status)
    if isinstance(error, NotFound):
        return NOT_FOUND, lines
    if error.request_id and not isinstance(error, Invalid | Conflict):
        lines.append(f"The server's log knows this request as {error.request_id}.")
    return FAILED, lines


def fault_line(place: str, message: str) -> str:
    if not place:
        return message
    field = place.removeprefix("/").replace("~1", "/").replace("~0", "~")
    return f"{field}: {message}"


def _way_in(status: int) -> list[str]:
    if status == 401:
        return [
            "Put a key into JOBSCHED_API_KEY. On the server's machine, one is made by",
            "  jobsched keys create --name YOU --role write",
        ]
    return ["Use a key with a larger role: read < write < admin (`jobsched keys create --role …`)."]

"""``jobsched signing``: the secrets with which receivers verify callbacks."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from jobsched.cli.connection import connect, json_option, once_option
from jobsched.cli.output import Cell, Column, Value, moment, print_json, print_table

_COLUMNS = (Column("ID", number=True), Column("SECRET"), Column("CREATED"), Column("VALID UNTIL"))


@click.group(short_help="Show and replace the secrets that sign callbacks.")
def signing() -> None:
    """Show and replace the secrets that sign callbacks. Needs an admin key."""


@signing.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show the secrets that are valid now, newest first."""
    with connect() as client:
        answer = client.signing_secrets.list()
    print_json(answer) if as_json else _print(answer)


@signing.command()
@click.option(
    "--grace",
    metavar="TIME",
    help="How long the old secrets stay valid: seconds, or like 90m (24h).",
)
@once_option
@json_option
def rotate(grace: str | None, idempotency_key: str | None, as_json: bool) -> None:
    """Make a new secret and let the old ones run out.

    Until they have, callbacks are signed with old and new, so that receivers can change over one by one.
    """
    with connect() as client:
        answer = client.signing_secrets.rotate(grace, idempotency_key=idempotency_key)
    print_json(answer) if as_json else _print(answer)


def _print(answer: Mapping[str, Any]) -> None:
    now = datetime.now(UTC)
    rows: list[list[Value]] = [
        [
            secret.get("id"),
            secret.get("secret"),
            moment(secret.get("createdAt"), now),
            moment(secret["expiresAt"], now) if secret.get("expiresAt") else Cell("current", "green"),
        ]
        for secret in answer["items"]
    ]
    # A secret that is cut is of no use to anybody: it goes on below.
    print_table(_COLUMNS, rows, "No signing secrets.", cut=False)

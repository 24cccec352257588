"""``jobsched keys``: API keys, made and revoked in the database itself, so that a first key can be made."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobsched.cli.connection import json_option
from jobsched.cli.errors import NOT_FOUND, say
from jobsched.cli.local import settings_or_local
from jobsched.cli.output import Column, moment, print_json, print_table

if TYPE_CHECKING:
    from jobsched.db.keys import Role


_COLUMNS = (
    Column("ID", number=True),
    Column("NAME", gives_way=True),
    Column("ROLE"),
    Column("CREATED"),
    Column("LAST USED"),
    Column("REVOKED"),
)


@click.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """Make, list and revoke API keys, in the database that DATABASE_URL names, or a local `jobsched up` runs."""


@keys.command()
@click.option("--name", required=True, metavar="NAME", help="Who or what will use it.")
@click.option("--role", required=True, type=click.Choice(["admin", "write", "read"]), help="What it may do.")
@json_option
def create(name: str, role: "Role", as_json: bool) -> None:
    """Make a key. It is shown once, alone on standard output, and cannot be shown again."""
    from jobsched import wiring

    id, key = wiring.keys_create(settings_or_local(), name, role)
    if as_json:
        print_json({"id": id, "name": name, "role": role, "key": key})
        return
    # The key alone on stdout: `KEY=$(jobsched keys create …)` works, and nothing else needs parsing.
    click.echo(f"Key {id} for {name}, role {role}. Keep it: it is not stored and not shown again.", err=True)
    click.echo(key)


@keys.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List keys; the keys themselves are not stored."""
    from jobsched import wiring

    found = [_as_the_api_would(key) for key in wiring.keys_list(settings_or_local())]
    if as_json:
        print_json({"items": found, "nextCursor": None})
        return
    rows = [
        [
            key.get("id"),
            key.get("name"),
            key.get("role"),
            *(moment(key.get(time)) for time in ("createdAt", "lastUsedAt", "revokedAt")),
        ]
        for key in found
    ]
    print_table(_COLUMNS, rows, "No keys.")


@keys.command()
@click.argument("id", type=click.IntRange(min=1))
def revoke(id: int) -> int:
    """Revoke a key; whoever uses it is refused from now on."""
    from jobsched import wiring

    if not wiring.keys_revoke(settings_or_local(), id):
        say(f"There is no key {id}, or it is revoked already.")
        return NOT_FOUND
    click.echo(f"Revoked key {id}.")
    return 0


def _as_the_api_would(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the database in the names and times of the API's answers."""
    from jobsched.client.naming import camel
    from jobsched.clock import rfc3339

    return {
        camel(name): rfc3339(value) if isinstance(value, datetime) else value
        for name, value in record.items()
    }

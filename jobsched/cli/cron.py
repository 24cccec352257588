"""``jobsched cron``: what a schedule means, worked out on this machine without a server."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from jobsched.cli.connection import json_option
from jobsched.cli.output import Column, Value, on_terminal, print_json, print_table
from jobsched.cli.text import relative


@click.command()
@click.argument("schedule", metavar="EXPR")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="IANA time zone.")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@json_option
def cron(schedule: str, tz: str, count: int, as_json: bool) -> None:
    """Show the next times of a schedule, without a server.

    EXPR is anything that a job's schedule may be: '*/5 9-17 * * MON-FRI', '@every 90s', '@daily' …
    """
    from jobsched.clock import rfc3339
    from jobsched.domain.schedule import parse_schedule

    now = datetime.now(UTC)
    parsed = parse_schedule(schedule, tz)
    zone = ZoneInfo(parsed.timezone)
    slots: list[datetime] = []
    after = now
    while len(slots) < count and (slot := parsed.next_after(after, now)) is not None:
        slots.append(slot)
        after = slot
    if as_json:
        items = [
            {"scheduledFor": rfc3339(slot), "local": slot.astimezone(zone).isoformat(timespec="milliseconds")}
            for slot in slots
        ]
        print_json({"items": items})
        return
    rows: list[list[Value]] = [_row(slot, zone, now) for slot in slots]
    columns = [Column(f"TIME IN {parsed.timezone}"), Column("UTC")]
    if on_terminal():
        columns.append(Column("FROM NOW"))
    print_table(columns, rows, "It never runs again.")


def _row(slot: datetime, zone: Any, now: datetime) -> list[Value]:
    local = slot.astimezone(zone)
    universal = slot.astimezone(UTC)
    row: list[Value] = [f"{local:%a %Y-%m-%d %H:%M:%S %z}", f"{universal:%Y-%m-%d %H:%M:%S}Z"]
    if on_terminal():
        row.append(relative(slot, now))
    return row

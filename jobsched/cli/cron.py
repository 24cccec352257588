"""``jobsched cron``: what a schedule means, worked out on this machine without a server."""

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from jobsched.cli.connection import json_option
from jobsched.cli.output import Column, Value, on_terminal, print_json, print_table
from jobsched.cli.text import relative

if TYPE_CHECKING:
    from jobsched.domain.upcoming import Run


@click.command()
@click.argument("schedule", metavar="EXPR")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="IANA time zone.")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@json_option
def cron(schedule: str, tz: str, count: int, as_json: bool) -> None:
    """Say what a schedule means and show its next times, without a server.

    EXPR is anything that a job's schedule may be: '*/5 9-17 * * MON-FRI', '@every 90s', '@daily' …
    """
    from jobsched.domain.schedule import parse_schedule
    from jobsched.domain.upcoming import Bounds, runs_of_new
    from jobsched.domain.words import describe

    now = datetime.now(UTC)
    parsed = parse_schedule(schedule, tz)
    description = describe(parsed)
    runs = [
        run
        for run in islice(runs_of_new(parsed, now, Bounds()), count)
        if parsed.recurring or run.scheduled_for > now
    ]
    if as_json:
        print_json({"items": [run.shown() for run in runs], "description": description})
        return
    columns = [Column(f"TIME IN {parsed.timezone}"), Column("UTC")]
    if on_terminal():
        click.echo(f"{description}.\n")
        columns.append(Column("FROM NOW"))
        if any(run.remark for run in runs):
            columns.append(Column("REMARK", gives_way=True))
    zone = ZoneInfo(parsed.timezone)
    print_table(
        columns, [_row(run, zone, now)[: len(columns)] for run in runs], "It never runs again.", cut=False
    )


def _row(run: "Run", zone: ZoneInfo, now: datetime) -> list[Value]:
    slot = run.scheduled_for
    universal = slot.astimezone(UTC)
    return [
        f"{slot.astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}",
        f"{universal:%Y-%m-%d %H:%M:%S}Z",
        relative(slot, now),
        run.remark or "",
    ]

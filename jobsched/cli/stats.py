"""``jobsched stats``: queues and workers at a glance, once or continuously."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from jobsched.cli.connection import connect, json_option
from jobsched.cli.output import (
    Column,
    Value,
    moment,
    on_terminal,
    print_json,
    print_json_line,
    print_table,
)
from jobsched.cli.text import duration, one_line

# RQ's own picture stops at "ready", the depth of the list: what runs and waits is counted in Postgres.
_COUNTS = (
    ("ready", "READY"),
    ("queued", "QUEUED"),
    ("running", "RUNNING"),
    ("pending", "PENDING"),
    ("retrying", "RETRYING"),
    ("dead", "DEAD"),
)
_QUEUE_COLUMNS = (
    Column("QUEUE"),
    *(Column(heading, number=True) for _, heading in _COUNTS),
    Column("OLDEST", number=True),
)
_WORKER_COLUMNS = (
    Column("WORKER", gives_way=True),
    Column("HOST", gives_way=True),
    Column("PID", number=True),
    Column("POOLS"),
    Column("IN FLIGHT", number=True),
    Column("STARTED"),
    Column("LAST BEAT"),
)


@click.command()
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: how often.",
)
@json_option
def stats(watch: bool, interval: float, as_json: bool) -> None:
    """Show queues and workers."""
    with connect() as client:
        if not watch:
            answer = client.stats()
            print_json(answer) if as_json else print_stats(answer)
            return
        from jobsched.client import Unreachable

        while True:
            try:
                answer = client.stats()
            except Unreachable as error:
                # Watching a restart is what --watch is for: say it, and look again.
                _clear(as_json)
                click.echo(error.message, err=True)
            else:
                if as_json:
                    print_json_line(answer)
                else:
                    _clear(as_json)
                    print_stats(answer)
                    click.echo()
            time.sleep(interval)


def print_stats(answer: Mapping[str, Any]) -> None:
    """Queues with their sums, workers, and how late the poller is."""
    now = datetime.now(UTC)
    queues = answer.get("queues") or []
    rows = [_queue_row(queue) for queue in queues]
    if len(queues) > 1 and isinstance(answer.get("totals"), Mapping):
        rows.append(_queue_row({"name": "all", **answer["totals"]}))
    print_table(_QUEUE_COLUMNS, rows, "No queues yet.")
    click.echo()
    workers: list[list[Value]] = [
        [
            worker.get("name"),
            worker.get("host"),
            worker.get("pid"),
            ", ".join(worker.get("pools") or []),
            f"{one_line(worker.get('inFlight'))} of {one_line(worker.get('concurrency'))}",
            moment(worker.get("startedAt"), now),
            moment(worker.get("heartbeatAt"), now),
        ]
        for worker in answer.get("workers") or []
    ]
    print_table(_WORKER_COLUMNS, workers, "No workers: nothing is delivered until one runs.")
    lag = answer.get("pollerLagSeconds")
    click.echo(f"\nPoller lag: {duration(lag * 1000) if isinstance(lag, int | float) else 'unknown'}")


def _queue_row(queue: Mapping[str, Any]) -> list[Value]:
    waits = queue.get("oldestWaitSeconds")
    oldest = duration(waits * 1000) if isinstance(waits, int | float) else None
    return [queue.get("name"), *(queue.get(name) for name, _ in _COUNTS), oldest]


def _clear(as_json: bool) -> None:
    if on_terminal() and not as_json:
        click.clear()

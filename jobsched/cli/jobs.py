"""``jobsched jobs``: create, look at, change, run and delete jobs."""

import sys
from typing import TYPE_CHECKING, Any

import click

from jobsched.cli.connection import (
    check_timeout,
    connect,
    json_option,
    once_option,
    page_options,
    state_filter,
    time_options,
    trigger_filter,
    version_option,
    wait_timeout_option,
)
from jobsched.cli.create import create
from jobsched.cli.documents import read_documents
from jobsched.cli.errors import FAILED
from jobsched.cli.fields import FieldsCommand, Given, given, job_options, payload_value, unset_option
from jobsched.cli.output import print_json, print_more
from jobsched.cli.text import one_line
from jobsched.cli.views import (
    print_execution,
    print_history,
    print_job,
    print_jobs,
    print_upcoming,
    say_done,
)

if TYPE_CHECKING:
    from jobsched.client.types import Execution

_ID = click.argument("id", type=click.IntRange(min=1))


@click.group()
def jobs() -> None:
    """Create, show, change, run and delete jobs."""


jobs.add_command(create)


@jobs.command("list")
@click.option("--q", "-q", "q", metavar="TEXT", help="Find this in name, key, description and URL.")
@click.option(
    "--active/--paused",
    "is_active",
    default=None,
    help="Only active jobs, or only paused ones.",
)
@click.option("--pool", metavar="POOL", help="Only jobs of this pool.")
@click.option("--tag", multiple=True, metavar="TAG", help="Only jobs with this tag. May be repeated (or).")
@state_filter("Only jobs whose last run ended so.")
@page_options
def list_(as_json: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    with connect() as client:
        page = client.jobs.page(**filters)
    if as_json:
        print_json(page)
        return
    print_jobs(page["items"])
    print_more(page)


@jobs.command()
@click.argument("id", type=click.IntRange(min=1), required=False)
@click.option("--key", metavar="KEY", help="The job with this key of yours, instead of an ID.")
@json_option
def show(id: int | None, key: str | None, as_json: bool) -> None:
    """Show all of one job."""
    with connect() as client:
        if key is not None and id is None:
            job = client.jobs.get_by_key(key)
        elif id is not None and key is None:
            job = client.jobs.get(id)
        else:
            raise click.UsageError("Which job? Give its ID or its --key.")
    print_json(job) if as_json else print_job(job)


@jobs.command(cls=FieldsCommand)
@_ID
@job_options
@unset_option
@click.option("--file", "-f", metavar="FILE", help="The changes as a JSON object, - for standard input.")
@click.option("--replace", is_flag=True, help="What is not given goes back to its default.")
@version_option
@json_option
def update(
    id: int,
    unset: list[str],
    file: str | None,
    replace: bool,
    version: int | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Change some fields of a job and leave the others."""
    changes: dict[str, Any] = {}
    if file is not None:
        documents = read_documents(file)
        if len(documents) > 1:
            raise click.UsageError(f"{file} holds several objects; update changes one job.")
        changes = documents[0].job
    if replace and unset:
        raise click.UsageError(
            "With --replace, all fields that are not given are reset; --unset adds nothing."
        )
    changes |= dict.fromkeys(unset) | given(values)
    if not changes:
        raise click.UsageError("Nothing to change: give at least one field, --unset or -f.")
    with connect() as client:
        change = client.jobs.replace if replace else client.jobs.update
        job = change(id, changes, version=version)
    say_done(job, "Replaced" if replace else "Updated", as_json)


@jobs.command()
@_ID
@json_option
def pause(id: int, as_json: bool) -> None:
    """Stop firing a job. What waits or runs goes on."""
    with connect() as client:
        job = client.jobs.pause(id)
    say_done(job, "Paused", as_json)


@jobs.command()
@_ID
@json_option
def resume(id: int, as_json: bool) -> None:
    """Fire a paused job again, counting from now."""
    with connect() as client:
        job = client.jobs.resume(id)
    say_done(job, "Resumed", as_json)


@jobs.command()
@_ID
@click.option(
    "--payload",
    metavar="JSON",
    callback=payload_value,
    help="Send this instead of the job's: JSON, @FILE or @-.",
)
@click.option("--force", is_flag=True, help="Run even where the job's overlap policy forbids it.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 unless it succeeded.")
@wait_timeout_option
@once_option
@json_option
def run(
    id: int,
    payload: Given | None,
    force: bool,
    wait: bool,
    timeout: float | None,
    idempotency_key: str | None,
    as_json: bool,
) -> int:
    """Run a job now, whatever its schedule says."""
    check_timeout(wait, timeout)
    body = {} if payload is None else {"payload": payload.value}
    with connect() as client:
        execution = client.jobs.run(id, force=force, idempotency_key=idempotency_key, **body)
        if wait:
            if sys.stderr.isatty():
                # Whoever stops waiting should know what to look for.
                click.echo(f"Waiting for execution {execution['id']}. Ctrl-C only ends the wait.", err=True)
            execution = client.executions.wait(execution["id"], timeout)
    if as_json:
        print_json(execution)
    elif wait:
        print_execution(execution)
    else:
        _say_started(execution)
    return FAILED if wait and execution["state"] != "succeeded" else 0


@jobs.command()
@_ID
@version_option
def delete(id: int, version: int | None) -> None:
    """Delete a job. Its history stays readable."""
    with connect() as client:
        client.jobs.delete(id, version=version)
    click.echo(f"Deleted job {id}.")


@jobs.command("next")
@_ID
@click.option("-n", "count", type=click.IntRange(min=1), default=10, metavar="N", help="How many (10).")
@json_option
def next_(id: int, count: int, as_json: bool) -> None:
    """Show the next times at which a job will run."""
    with connect() as client:
        upcoming = client.jobs.next(id, n=count)
    print_json(upcoming) if as_json else print_upcoming(upcoming)


@jobs.command()
@_ID
@state_filter("Only in this state.")
@trigger_filter
@time_options
@page_options
def history(id: int, as_json: bool, **filters: Any) -> None:
    """List a job's executions, newest first."""
    with connect() as client:
        page = client.jobs.executions_page(id, **filters)
    if as_json:
        print_json(page)
        return
    print_history(page["items"])
    print_more(page)


def _say_started(execution: "Execution") -> None:
    reason = execution.get("errorMessage") or execution.get("errorCode")
    why = f": {one_line(reason)}" if reason else "."
    click.echo(f"Execution {execution['id']} of job {execution['jobId']} is {execution['state']}{why}")
    if execution["state"] != "skipped":
        click.echo(f"See it with: jobsched executions show {execution['id']}")

"""``jobsched jobs``: create, look at, change, run and delete jobs."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from jobsched.cli.connection import connect, json_option, page_options, time_options
from jobsched.cli.documents import Document, read_documents
from jobsched.cli.errors import FAILED, explain, say
from jobsched.cli.fields import Given, given, job_options, payload_value, unset_option
from jobsched.cli.output import full_moment, print_json, print_json_line, print_more
from jobsched.cli.text import one_line
from jobsched.cli.views import print_execution, print_executions, print_job, print_jobs

if TYPE_CHECKING:
    from jobsched.client import Client
    from jobsched.client.types import Execution

_ID = click.argument("id", type=click.IntRange(min=1))


@click.group()
def jobs() -> None:
    """Create, show, change, run and delete jobs."""


@jobs.command()
@job_options
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    help="Jobs as JSON or NDJSON, - for standard input. Each is created; options change all of them.",
)
@json_option
def create(file: str | None, as_json: bool, **values: Any) -> int:
    """Create a job from options, or jobs from a file."""
    fields = _plain(given(values))
    if file is None:
        missing = [name for name in ("schedule", "api") if name not in fields]
        if missing:
            needed = " and ".join(f"--{name}" for name in missing)
            raise click.UsageError(f"A job needs {needed} (or -f FILE).")
        documents = [Document("", {})]
    else:
        documents = read_documents(file)
    with connect() as client:
        return _create_all(client, documents, fields, as_json)


@jobs.command("list")
@click.option("--q", metavar="TEXT", help="Find this in name, key, description and URL.")
@click.option("--is-active/--no-is-active", default=None, help="Only active jobs, or only paused ones.")
@click.option("--pool", metavar="POOL", help="Only jobs of this pool.")
@click.option("--tag", multiple=True, metavar="TAG", help="Only jobs with this tag. May be repeated (or).")
@click.option("--state", multiple=True, metavar="STATE", help="Last run ended so. May be repeated (or).")
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
@_ID
@json_option
def show(id: int, as_json: bool) -> None:
    """Show all of one job."""
    with connect() as client:
        job = client.jobs.get(id)
    print_json(job) if as_json else print_job(job)


@jobs.command()
@_ID
@job_options
@unset_option
@click.option("-f", "--file", metavar="FILE", help="The changes as a JSON object, - for standard input.")
@click.option("--version", type=int, metavar="N", help="Refuse if the job's version is another by now.")
@json_option
def update(
    id: int, unset: list[str], file: str | None, version: int | None, as_json: bool, **values: Any
) -> None:
    """Change some fields of a job and leave the others."""
    changes: dict[str, Any] = {}
    if file is not None:
        documents = read_documents(file)
        if len(documents) > 1:
            raise click.UsageError(f"{file} holds several objects; update changes one job.")
        changes = documents[0].job
    changes |= dict.fromkeys(unset) | _plain(given(values))
    if not changes:
        raise click.UsageError("Nothing to change: give at least one field, --unset or -f.")
    with connect() as client:
        job = client.jobs.update(id, changes, version=version)
    _done(job, "Updated", as_json)


@jobs.command()
@_ID
@json_option
def pause(id: int, as_json: bool) -> None:
    """Stop firing a job. What waits or runs goes on."""
    with connect() as client:
        job = client.jobs.pause(id)
    _done(job, "Paused", as_json)


@jobs.command()
@_ID
@json_option
def resume(id: int, as_json: bool) -> None:
    """Fire a paused job again, counting from now."""
    with connect() as client:
        job = client.jobs.resume(id)
    _done(job, "Resumed", as_json)


@jobs.command()
@_ID
@click.option("--payload", metavar="JSON", callback=payload_value, help="Send this instead of the job's.")
@click.option("--force", is_flag=True, help="Run even where the job's overlap policy forbids it.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 unless it succeeded.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: give up after this long.")
@json_option
def run(id: int, payload: Given | None, force: bool, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Run a job now, whatever its schedule says."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout only means something with --wait.")
    body = {} if payload is None else {"payload": payload.value}
    with connect() as client:
        execution = client.jobs.run(id, force=force, **body)
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
def delete(id: int) -> None:
    """Delete a job. Its history stays readable."""
    with connect() as client:
        client.jobs.delete(id)
    click.echo(f"Deleted job {id}.")


@jobs.command()
@_ID
@click.option("--state", multiple=True, metavar="STATE", help="Only in this state. May be repeated (or).")
@click.option("--trigger", metavar="TRIGGER", help="schedule, manual or redrive.")
@time_options
@page_options
def history(id: int, as_json: bool, **filters: Any) -> None:
    """List a job's executions, newest first."""
    with connect() as client:
        page = client.jobs.executions_page(id, **filters)
    if as_json:
        print_json(page)
        return
    print_executions(page["items"])
    print_more(page)


def _create_all(client: "Client", documents: list[Document], fields: Mapping[str, Any], as_json: bool) -> int:
    """Create each job, going on after one that is refused: the others do not depend on it.

    A server that is away or a key that is refused ends it, since nothing after that could succeed.
    """
    from jobsched.client import ApiError, Unauthorized, Unreachable

    failed = 0
    for number, (place, document) in enumerate(documents):
        try:
            job = client.jobs.create({**document, **fields})
        except ApiError as error:
            if len(documents) == 1:
                raise
            if isinstance(error, Unauthorized | Unreachable):
                say(f"Created {number - failed} of {len(documents)} jobs, then stopped at {place}.")
                raise
            failed += 1
            first, *more = explain(error)[1]
            say(f"{place}: {first}", *more)
            continue
        if as_json and len(documents) > 1:
            print_json_line(job)
        else:
            _done(job, "Created", as_json)
    if failed:
        say(f"{failed} of {len(documents)} jobs were refused; the others were created.")
    return FAILED if failed else 0


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Given) else value for name, value in fields.items()}


def _done(job: Mapping[str, Any], verb: str, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    name = job.get("name") or job.get("key")
    label = f" ({one_line(name)})" if name else ""
    next_run = job.get("nextExecutionTime")
    when = f" Next run: {full_moment(next_run)}." if next_run and job.get("isActive") else ""
    click.echo(f"{verb} job {job['id']}{label}.{when}")


def _say_started(execution: "Execution") -> None:
    reason = execution.get("errorMessage") or execution.get("errorCode")
    why = f": {one_line(reason)}" if reason else "."
    click.echo(f"Execution {execution['id']} of job {execution['jobId']} is {execution['state']}{why}")
    if execution["state"] != "skipped":
        click.echo(f"See it with: jobsched executions show {execution['id']}")

"""``jobsched jobs create``: one job, many from a file, or jobs that may exist already (``--upsert``)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from jobsched.cli.connection import connect, json_option, once_option, version_option
from jobsched.cli.documents import Document, read_documents
from jobsched.cli.errors import FAILED, explain, fault_line, say
from jobsched.cli.fields import FieldsCommand, given, job_options
from jobsched.cli.output import print_json, print_json_line
from jobsched.cli.text import count
from jobsched.cli.views import say_done

if TYPE_CHECKING:
    from jobsched.client import ApiError, Client
    from jobsched.client.types import BulkResult, Job

#: The server creates so many jobs all or none; more of them only with --partial.
_MOST_JOBS = 10_000
_MOST_IDS_SHOWN = 10


@click.command(cls=FieldsCommand)
@job_options
@click.option(
    "--file",
    "-f",
    metavar="FILE",
    help="Jobs as JSON or NDJSON, - for standard input: all are created or none. Fields given as options "
    "count for each of them.",
)
@click.option("--partial", is_flag=True, help="With -f: create the jobs that are valid, report the others.")
@click.option(
    "--upsert", is_flag=True, help="Replace the job that has the same key, if there is one; else create it."
)
@version_option
@once_option
@json_option
def create(
    file: str | None,
    partial: bool,
    upsert: bool,
    version: int | None,
    idempotency_key: str | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Create a job from options, or jobs from a file.

    \b
    jobsched jobs create --schedule '0 9 * * MON-FRI' --timezone Europe/Berlin \\
        --api https://example.com/hook --payload '{"report": 7}'
    jobsched jobs create -f jobs.ndjson --partial
    jobsched jobs create --key nightly --upsert -f nightly.json
    """
    fields = given(values)
    documents = _documents(file, fields)
    if partial and file is None:
        raise click.UsageError("--partial only means something with -f.")
    if upsert and (partial or idempotency_key is not None):
        raise click.UsageError(
            "--upsert may be repeated as it is; it takes no --partial and no --idempotency-key."
        )
    if version is not None and not (upsert and len(documents) == 1):
        raise click.UsageError("--version only means something with --upsert of one job.")
    many = partial or len(documents) > 1 or documents[0].in_array
    if many and "key" in fields:
        raise click.UsageError("Jobs cannot share a --key; give each its own in the file.")
    if upsert:
        keyed = [_keyed(place, {**job, **fields}) for place, job, _ in documents]
        with connect() as client:
            return _upsert_all(client, keyed, version, as_json)
    jobs = [Document(place, {**job, **fields}) for place, job, _ in documents]
    if many and not partial and len(jobs) > _MOST_JOBS:
        raise click.UsageError(
            f"{count(len(jobs), 'job')} cannot be created all or none, only {_MOST_JOBS:,}. "
            "With --partial they are sent in several requests."
        )
    with connect() as client:
        if many:
            return _create_all(client, jobs, partial, idempotency_key, as_json)
        created = client.jobs.create(jobs[0].job, idempotency_key=idempotency_key)
    say_done(created, "Created", as_json)
    return 0


def _documents(file: str | None, fields: Mapping[str, Any]) -> list[Document]:
    if file is not None:
        return read_documents(file)
    missing = [name for name in ("schedule", "api") if name not in fields]
    if missing:
        needed = " and ".join(f"--{name}" for name in missing)
        raise click.UsageError(f"A job needs {needed} (or -f FILE).")
    return [Document("", {})]


def _keyed(place: str, job: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    key = job.pop("key", None)
    if not isinstance(key, str) or not key:
        raise click.UsageError(f"{place}: it has no key." if place else "--upsert needs the job's --key.")
    return place, key, job


def _create_all(
    client: "Client", jobs: Sequence[Document], partial: bool, idempotency_key: str | None, as_json: bool
) -> int:
    from jobsched.client import ApiError, Invalid

    try:
        result = client.jobs.create_many(
            (job for _, job, _ in jobs), partial=partial, idempotency_key=idempotency_key
        )
    except Invalid as error:
        if not error.faults or error.done is not None:
            raise
        say("No job was created.", error.message, *_placed(error, jobs))
        return FAILED
    except ApiError as error:
        if error.done is not None:
            say(f"{count(error.done['created'], 'job')} created, then it stopped.")
        raise
    if as_json:
        print_json(result)
    else:
        _say_created(result)
    for refused in result["errors"]:
        lines = [fault_line(fault["pointer"], fault["message"]) for fault in refused["errors"]]
        say(f"{jobs[refused['index']].place} is refused.", *lines)
    if result["errors"]:
        say(f"{len(result['errors']):,} of {count(len(jobs), 'job')} refused; the others were created.")
        return FAILED
    return 0


def _placed(error: "ApiError", jobs: Sequence[Document]) -> list[str]:
    """The faults of a refused bulk, whose pointers begin with the job's index: ``/71/priority``."""
    lines = []
    for pointer, message in error.faults:
        index, _, field = pointer.removeprefix("/").partition("/")
        known = index.isdecimal() and int(index) < len(jobs)
        place = f"{jobs[int(index)].place}: " if known else ""
        lines.append(place + fault_line(field if known else pointer, message))
    return lines


def _say_created(result: "BulkResult") -> None:
    ids = result["ids"]
    if not ids:
        click.echo("Created no job.")
        return
    shown = ", ".join(map(str, ids[:_MOST_IDS_SHOWN]))
    more = f", … {ids[-1]} (--json lists all)" if len(ids) > _MOST_IDS_SHOWN else ""
    click.echo(f"Created {count(result['created'], 'job')}: {shown}{more}.")


def _upsert_all(
    client: "Client", jobs: Sequence[tuple[str, str, dict[str, Any]]], version: int | None, as_json: bool
) -> int:
    """Put each job in its place, going on after one that is refused: the others do not depend on it.

    A server that is away or a key that is refused ends it, since nothing after that could succeed.
    """
    from jobsched.client import ApiError, Unauthorized, Unreachable

    failed = 0
    for number, (place, key, job) in enumerate(jobs):
        try:
            verb, put = _upsert(client, key, job, version)
        except ApiError as error:
            if len(jobs) == 1:
                raise
            if isinstance(error, Unauthorized | Unreachable):
                say(f"{number - failed:,} of {count(len(jobs), 'job')} done, then it stopped at {place}.")
                raise
            failed += 1
            first, *more = explain(error)[1]
            say(f"{place}: {first}", *more)
            continue
        if as_json and len(jobs) > 1:
            print_json_line(put)
        else:
            say_done(put, verb, as_json)
    if failed:
        say(f"{failed:,} of {count(len(jobs), 'job')} refused; the others are done.")
    return FAILED if failed else 0


def _upsert(client: "Client", key: str, job: Mapping[str, Any], version: int | None) -> tuple[str, "Job"]:
    """The job as it is now, and what was done: an edit that changes nothing leaves the version as it was."""
    from jobsched.client import NotFound

    try:
        before = client.jobs.get_by_key(key)
    except NotFound:
        return "Created", client.jobs.upsert(key, job, version=version)
    after = client.jobs.upsert(key, job, version=version)
    same = (before["id"], before["version"]) == (after["id"], after["version"])
    return "Unchanged:" if same else "Changed", after

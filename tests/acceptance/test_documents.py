"""Every example in the README and the documents is run, as it stands, against a real installation.

Blocks of one document are run from top to bottom, and share their variables. What is not run stands in a list
below, with its reason; a block in no list is run, and an entry without a block is a fault.
"""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import pytest
import requests

from jobsched.cli.app import app
from jobsched.cli.fields import FIELDS
from jobsched.client import Client
from jobsched.embedded import ports
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.examples import DOCUMENTS, Block, Reader, blocks
from tests.conftest import eventually

#: (document, first line of the block) → why it is not run.
EXCEPTIONS = {
    ("README.md", "scripts/up       # everything on this machine, from an empty folder"): (
        "tests/acceptance/test_up.py runs what it runs; scripts/test is what runs this test"
    ),
    ("README.md", "docker compose up -d --scale worker=10"): "needs Docker",
    ("docs/operations.md", "docker compose up -d --scale worker=10"): "needs Docker",
    ("docs/operations.md", 'pg_dump --format=custom --file=jobsched.dump "$DATABASE_URL"'): (
        "tests/acceptance/test_backup.py runs it, with the programs that belong to the server"
    ),
    ("docs/reliability.md", "scripts/chaos --seeds 20 --out /tmp/seeds"): (
        "takes more than an hour; tests/chaos/test_seeds.py runs two minutes of it"
    ),
    ("docs/reliability.md", "scripts/chaos --scenario all --out /tmp/scenarios"): (
        "takes a quarter of an hour; tests/chaos/test_scenarios.py runs them small"
    ),
    (
        "docs/performance.md",
        "scripts/bench",
    ): "takes about an hour; tests/unit/test_bench.py tests what it counts with",
    ("docs/architecture.md", "flowchart LR"): "a diagram",
    ("docs/states.md", "stateDiagram-v2"): "a diagram; tests/test_conventions.py compares it with the code",
}

#: Blocks whose processes go on until they are stopped: started, seen to be ready, and stopped.
SERVICES = {
    ("README.md", "honcho start release"),
    ("README.md", "export DATABASE_URL=postgresql://user:password@host:5432/jobsched"),
    ("docs/operations.md", "jobsched migrate        # once a release; two at once are safe"),
}

#: Blocks that list commands with their options: compared with the program itself.
SYNOPSES = {
    ("docs/cli.md", "jobsched up [--host 127.0.0.1] [--port 8080] [--data-dir D] [--workers 1] [--concurrency 100]"),
    ("docs/cli.md", "jobsched keys create --name N --role admin|write|read"),
    ("docs/cli.md", "jobsched jobs create --schedule S --api URL [--payload JSON|@FILE] [--header 'N: V']... [FIELDS]"),
}  # fmt: skip


PROBLEM = "urn:jobsched:error:"


def all_blocks() -> list[Block]:
    return [block for document in DOCUMENTS for block in blocks(document)]


def test_each_entry_of_the_lists_is_about_a_block_that_is_there() -> None:
    present = [block.name for block in all_blocks()]
    listed = [*EXCEPTIONS, *SERVICES, *SYNOPSES]
    assert [name for name in listed if present.count(name) != 1] == []
    assert len(listed) == len(set(listed))


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    secret = "a-key-of-these-tests-with-32-bytes-or-more"
    with Stand(JOBSCHED_SECRET_KEY=secret) as stand:
        stand.start("poller", "poller")
        stand.start("worker", "worker")
        stand.start_api()
        yield stand


def curls() -> list[str]:
    return ["curl", "stand-in"] if shutil.which("curl") else ["stand-in"]


def examples() -> list[Any]:
    """Each document once with each curl that it can be read with."""
    found = []
    for document in DOCUMENTS:
        run = [block for block in blocks(document) if block.name not in {*EXCEPTIONS, *SYNOPSES}]
        several = any("curl " in block.text for block in run)
        with_curls = curls() if several else curls()[: len(run)][:1]
        found += [pytest.param(document, curl, id=f"{document}-{curl}") for curl in with_curls]
    return found


@pytest.mark.parametrize(("document", "curl"), examples())
def test_the_examples_of_a_document_work(
    document: str, curl: str, stand: Stand, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(stand, target, tmp_path, shutil.which("curl") if curl == "curl" else None)
    for name in ("JOBSCHED_DATA_DIR", "HOME"):  # what a block of Python reads
        monkeypatch.setenv(name, reader.variables[name])
    to_run = [block for block in blocks(document) if block.name not in {*EXCEPTIONS, *SYNOPSES}]
    for block, following in zip_longest(to_run, to_run[1:]):
        try:
            if block.name not in SERVICES:
                RUN[block.kind](reader, block)
            elif curl == curls()[0]:
                serve(reader, block)
            # curl ends with 0 whatever it is answered.
            assert PROBLEM not in reader.said or (following and PROBLEM in following.text), reader.said
        except Exception as error:
            error.add_note(f"in the example of {document}, line {block.line}")
            raise


def run_shell(reader: Reader, block: Block) -> None:
    reader.run(block.text)


def run_python(reader: Reader, block: Block) -> None:
    """The names that the documents take for granted are there: a client, and what a target was really sent."""
    with Client(reader.stand.url, reader.stand.key) as client:
        reader.names |= {"__name__": block.document, "client": client}
        if "headers" in block.text and "body" not in reader.names:
            reader.names |= a_callback(reader, client)
        exec(compile(reader.here(block.text), block.document, "exec"), reader.names)
        assert reader.names.pop("genuine", True)
    for value in reader.names.values():
        if isinstance(value, sqlite3.Connection):  # which a real target keeps open
            value.close()


def a_callback(reader: Reader, client: Client) -> dict[str, Any]:
    """The headers and the body of a real callback, and the secret it is signed with."""
    job = client.jobs.create(schedule="@yearly", api=f"{reader.target.url}/ok", payload={"report": 7})
    execution = client.jobs.run(job["id"])
    client.executions.wait(execution["id"], timeout=30)
    [arrival] = [one for one in reader.target.arrivals if one.headers["jobsched-job-id"] == str(job["id"])]
    secret = client.signing_secrets.list()["items"][0]["secret"]
    return {"headers": arrival.headers, "body": arrival.body, "secret": secret}


def run_sql(reader: Reader, block: Block) -> None:
    for statement in block.text.split(";"):
        if statement.strip():
            reader.stand.query(statement)


def run_json(reader: Reader, block: Block) -> None:
    """A job is created. Anything else shows what the command before it prints: names, and types of values."""
    shown = json.loads(re.sub(r"([\[,]\s*)…|…(\s*[\]}])", r"\1\2", reader.here(block.text)))
    if isinstance(shown, dict) and {"schedule", "api"} <= shown.keys() and "id" not in shown:
        with Client(reader.stand.url, reader.stand.key) as client:
            assert client.jobs.create(shown)["id"]
    else:
        assert_alike(shown, json.loads(reader.said.strip().splitlines()[-1]))
        reader.said = ""


#: Compared to the letter; other values of the same type will do.
WORDED = ("/type", "/title", "/detail", "/message", "/pointer", "/parameter", "/description", "/remark")


def assert_alike(shown: Any, found: Any, place: str = "") -> None:
    """What a document shows is there; it may leave names out, and the end of a list."""
    if isinstance(shown, dict):
        assert isinstance(found, dict), place
        assert shown.keys() <= found.keys(), (place, shown.keys() - found.keys())
        for name, value in shown.items():
            assert_alike(value, found[name], f"{place}/{name}")
    elif isinstance(shown, list):
        assert isinstance(found, list), place
        assert bool(shown) == bool(found), place
        for one, other in zip(shown, found, strict=False):
            assert_alike(one, other, f"{place}/-")
    elif place.endswith(WORDED):
        assert found == shown, place
    elif shown is not None and found is not None:
        assert isinstance(found, type(shown)) or {type(found), type(shown)} == {int, float}, place


RUN: dict[str, Callable[[Reader, Block], None]] = {
    "shell": run_shell,
    "python": run_python,
    "sql": run_sql,
    "json": run_json,
}


def serve(reader: Reader, block: Block) -> None:
    """Start the processes of a block, see that they are ready and end when they are told to."""
    port = ports.free_port()
    stand = reader.stand
    settings = stand.settings | {
        "DATABASE_URL": stand.database_url,
        "REDIS_URL": stand.redis_url,
        "JOBSCHED_PORT": str(port),
        "JOBSCHED_SHUTDOWN_GRACE": "6",
    }
    process = reader.serve(block.text, **settings)
    output = reader.folder / "services"

    def ready() -> None:
        assert process.poll() is None, output.read_text()
        answer = requests.get(f"http://127.0.0.1:{port}/ready", timeout=5)
        assert answer.json()["status"] == "ok"

    def answers() -> None:
        try:
            ready()
        except requests.ConnectionError as error:
            raise AssertionError(output.read_text()) from error

    workers = len(stand.client().stats()["workers"])
    try:
        eventually(answers, 30)
        eventually(lambda: _workers(stand, workers + 1), 15)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
    eventually(lambda: _workers(stand, workers), 20)
    eventually(lambda: _ended(port), 20)
    for left in ("Traceback", "ended by itself"):
        assert left not in output.read_text()


def _workers(stand: Stand, number: int) -> None:
    assert len(stand.client().stats()["workers"]) == number


def _ended(port: int) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


# ---------------------------------------------------------------------------------------------------------------
# Lists of commands

#: Options that every listing has, or every command that talks to a server; docs/cli.md tells of them once.
EVERYWHERE = {"--help", "--json", "--limit", "--cursor"}


def commands(group: click.Group, path: str = "jobsched") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def listed_commands() -> dict[str, set[str]]:
    """Each command of docs/cli.md with the options that stand behind it, in all its lines."""
    written: dict[str, set[str]] = {}
    lines = [
        line
        for block in blocks("docs/cli.md")
        if block.name in SYNOPSES
        for line in block.text.splitlines()
        if line
    ]
    for line in lines:
        words, rest = re.fullmatch(r"(jobsched [a-z |]*[a-z])\b(.*)", line).groups()  # type: ignore[union-attr]
        *path, last = words.split()
        options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest))
        if "[FIELDS]" in rest:
            options |= {f"--{field.option}" for field in FIELDS}
        if "filters as in list" in rest:
            options |= written[" ".join([*path, "list"])]
        for each in last.split("|"):
            written.setdefault(" ".join([*path, each]), set()).update(options)
    return written


def test_the_commands_that_are_listed_are_those_of_the_program_with_their_options() -> None:
    existing = dict(commands(app))
    del existing["jobsched version"]  # what --version says
    written = listed_commands()
    assert written.keys() == existing.keys()
    for name, command in existing.items():
        options = [
            {*option.opts, *option.secondary_opts}
            for option in command.params
            if isinstance(option, click.Option) and not option.hidden
        ]
        assert written[name] <= set().union(*options), name
        assert [each for each in options if not each & (written[name] | EVERYWHERE)] == [], name

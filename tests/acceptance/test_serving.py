"""The API's two processes: one serves; the other, which holds next to nothing, sees to it that it does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsched.config import generate_secret
from jobsched.testing.stand import Stand
from tests.conftest import eventually


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand() as stand:
        yield stand


@pytest.fixture(autouse=True)
def _none_is_left(stand: Stand) -> Iterator[None]:
    yield
    if "api" in stand.processes:
        stand.stop("api", signal.SIGKILL)


def serving_under(pid: int) -> int:
    """The process that serves under another."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, children
    return int(children[0])


def test_a_serving_process_that_dies_is_followed_by_one_with_the_same_settings(
    stand: Stand, tmp_path: Path
) -> None:
    secret = tmp_path / "secret-key"
    secret.write_text(generate_secret())
    stand.settings["JOBSCHED_SECRET_KEY_FILE"] = str(secret)
    stand.start_api()
    made = stand.client().signing_secrets.rotate()
    secret.unlink()  # of some files there is only one reading
    arbiter = stand.processes["api"].pid
    first = serving_under(arbiter)
    os.kill(first, signal.SIGKILL)

    def followed() -> None:
        assert serving_under(arbiter) != first

    eventually(followed, 20)
    assert stand.client().signing_secrets.list() == made
    assert stand.stop("api") == 0
    del stand.settings["JOBSCHED_SECRET_KEY_FILE"]


def test_the_process_that_watches_holds_no_library_of_the_serving_one(stand: Stand) -> None:
    stand.start_api()
    arbiter = stand.processes["api"].pid
    large = ("pydantic_core", "psycopg", "hiredis")

    def held(pid: int) -> list[str]:
        maps = Path(f"/proc/{pid}/maps").read_text()
        return [name for name in large if name in maps]

    assert (held(arbiter), held(serving_under(arbiter))) == ([], list(large))
    assert stand.stop("api") == 0


def test_a_stop_that_comes_while_the_process_turns_into_the_one_that_watches_ends_it(stand: Stand) -> None:
    """There are no handlers then; it waits for gunicorn's."""
    process = stand.start("api", "api", "--host", "127.0.0.1", "--port", "0")
    command = Path(f"/proc/{process.pid}/cmdline")

    def turned() -> None:
        assert b"--handed=" in command.read_bytes()

    eventually(turned, 20)
    assert stand.stop("api") == 0, stand.log_of("api")


def test_a_program_of_somebody_elses_can_serve(stand: Stand) -> None:
    """Its command cannot be executed once more, so all stays in one process and its child."""
    code = "import sys; sys.argv = ['jobsched', 'api', '--host', '127.0.0.1', '--port', '0']; " \
        "from jobsched.cli import main; main()"  # fmt: skip
    with stand.log_path("theirs").open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", code], env=stand.environment(), stderr=output)
    try:
        eventually(lambda: _said(stand, "Booting worker"), 20)
    finally:
        process.terminate()
    assert process.wait(20) == 0


def _said(stand: Stand, words: str) -> None:
    assert words in stand.log_of("theirs")

"""The canned API, and what is driven against it: the client and the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner, Result

from jobsched.cli.app import app
from jobsched.client import Client
from jobsched.client import transport as transport_module
from tests.unit.canned_api import CannedApi


class Run(Protocol):
    def __call__(self, *args: str, input: str | None = None) -> Result: ...


@pytest.fixture
def api() -> Iterator[CannedApi]:
    with CannedApi() as server:
        yield server


@pytest.fixture
def client(api: CannedApi) -> Iterator[Client]:
    with Client(api.url, "test-key") as made:
        yield made


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client would have made."""
    taken: list[float] = []
    monkeypatch.setattr(transport_module.time, "sleep", taken.append)
    return taken


@pytest.fixture
def run(api: CannedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line, with the canned API as its server."""
    monkeypatch.setenv("JOBSCHED_URL", api.url)
    monkeypatch.setenv("JOBSCHED_API_KEY", "test-key")
    monkeypatch.setenv("JOBSCHED_DATA_DIR", str(tmp_path / "data"))

    def invoke(*args: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, args, input=input, prog_name="jobsched")

    return invoke

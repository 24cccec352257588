"""What a call costs in exchanges with the database: counted in libpq's own trace of what was sent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobsched.db import session
from tests.integration.api_rig import JOB, Api, api  # noqa: F401


@pytest.fixture(autouse=True)
def connections_stay_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, none lies idle for so long that the pool asks it for a sign of life."""
    monkeypatch.setattr(session, "FRESH", 60.0)


@pytest.fixture
def warm(api: Api) -> Api:  # noqa: F811
    """The API after a first call of each kind: connected, its key and the database's time known."""
    api.call("GET", f"/api/v1/jobs/{api.create()['id']}")
    return api


def exchanges(api: Api, folder: Path, method: str, path: str, **options: Any) -> list[str]:  # noqa: F811
    """The statements that a call sends, each as the message that asks the server for an answer."""
    trace = folder / "trace.txt"

    @contextmanager
    def traced(pool: Any) -> Iterator[None]:
        with pool.connection_context(), trace.open("ab") as file:
            connection = pool.connection().pgconn
            connection.trace(file.fileno())
            try:
                yield
            finally:
                connection.untrace()

    usual, api.connection = api.connection, traced
    try:
        answer = api.call(method, path, **options)
    finally:
        api.connection = usual
    assert answer.status_code < 300, answer.text
    return re.findall(r"^.*\tF\t\d+\t(Sync|Query)\b", trace.read_text(), re.MULTILINE)


def test_creating_a_job_is_one_exchange(warm: Api, tmp_path: Path) -> None:
    job = JOB | {"key": "k", "payload": {"n": 1}, "tags": ["a"], "schedule": "*/5 9-17 * * MON-FRI"}
    assert len(exchanges(warm, tmp_path, "POST", "/api/v1/jobs", json=job)) == 1


def test_a_job_with_jitter_needs_its_id_first(warm: Api, tmp_path: Path) -> None:
    job = JOB | {"jitterSeconds": 5}
    assert len(exchanges(warm, tmp_path, "POST", "/api/v1/jobs", json=job)) == 2


def test_reading_a_job_is_one_exchange(warm: Api, tmp_path: Path) -> None:
    ident = warm.create()["id"]
    assert len(exchanges(warm, tmp_path, "GET", f"/api/v1/jobs/{ident}")) == 1


def test_a_bulk_is_the_same_few_exchanges_whatever_its_size(warm: Api, tmp_path: Path) -> None:
    for count in (2, 500):
        folder = tmp_path / str(count)
        folder.mkdir()
        assert len(exchanges(warm, folder, "POST", "/api/v1/jobs/bulk", json=[JOB] * count)) <= 9

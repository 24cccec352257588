"""What a call costs in exchanges with the database: counted in libpq's own trace of what was sent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Request

from jobsched.db import session
from jobsched.domain import quick
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
    for count in (2, 500, 5000):
        folder = tmp_path / str(count)
        folder.mkdir()
        assert len(exchanges(warm, folder, "POST", "/api/v1/jobs/bulk", json=[JOB] * count)) <= 9


def test_a_large_bulk_is_written_as_it_is_read(warm: Api, tmp_path: Path) -> None:
    # Its keys are not looked for: BEGIN, three settings, the ids, a COPY for each table, COMMIT.
    jobs = [JOB | {"key": f"k{n}", "payload": {"n": n}} for n in range(2000)]
    assert len(exchanges(warm, tmp_path, "POST", "/api/v1/jobs/bulk", json=jobs)) <= 7


def test_a_body_is_read_once_from_the_server(warm: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    # Through werkzeug's own reader it costs as much as all rules of a job together.
    monkeypatch.setattr(Request, "get_data", None)
    assert warm.call("POST", "/api/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"}).status_code == 201


def test_what_jobs_share_is_judged_once(warm: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = JOB | {"maxRetryCount": 7, "tags": ["a"]}
    warm.create(**policies)

    def again(*arguments: Any, **options: Any) -> None:
        raise AssertionError("all rules were asked anew")

    monkeypatch.setattr(quick, "parse_job_create", again)
    warm.create(**policies | {"name": "another", "payload": [1], "schedule": "5 4 * * *", "key": "k"})


@pytest.mark.parametrize(("from_", "count"), [("2026-01-01T23:59:00Z", 1), ("2025-01-01T00:00:00Z", 2)])
def test_a_page_until_a_past_day_is_one_exchange_and_where_little_happened_two(
    warm: Api,
    tmp_path: Path,
    from_: str,
    count: int,
) -> None:
    path = f"/api/v1/executions?from={from_}&to=2026-01-02T00:00:00Z"
    assert len(exchanges(warm, tmp_path, "GET", path)) == count


def test_a_page_of_a_jobs_executions_is_one_exchange_and_of_none_two(warm: Api, tmp_path: Path) -> None:
    job = warm.create()["id"]
    path = f"/api/v1/jobs/{job}/executions"
    assert len(exchanges(warm, tmp_path, "GET", path)) == 2
    warm.call("POST", f"/api/v1/jobs/{job}/run")
    (tmp_path / "trace.txt").unlink()
    assert len(exchanges(warm, tmp_path, "GET", path)) == 1

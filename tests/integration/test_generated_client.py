"""A client that openapi-python-client makes from the document: it is made without loss, and it works."""

import importlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from werkzeug.serving import make_server

from tests.described import openapi_document
from tests.integration.api_rig import Api, api

__all__ = ["api"]

PACKAGE = "generated_client"

#: What the generator leaves out, and why.
LEFT_OUT = {
    # It knows no body that is a value a line; the same call takes a JSON array.
    "Unsupported content type application/x-ndjson",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the generator said; the package can be imported."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(openapi_document()), encoding="utf-8")
    # By default it has other programs format what it wrote.
    (folder / "config.json").write_text('{"post_hooks": []}', encoding="utf-8")
    arguments = f"generate --meta none --path openapi.json --config config.json --output-path {PACKAGE}"
    run = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *arguments.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    sys.path.insert(0, str(folder))
    yield run.stdout + run.stderr
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def address(api: Api) -> Iterator[str]:
    """Where the API answers over HTTP."""
    server = make_server("127.0.0.1", 0, api.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def generated(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_every_call_and_shape_of_the_document_is_in_the_client(said: str) -> None:
    assert set(re.findall(r"Unsupported.*", said)) == LEFT_OUT
    assert said.count("WARNING") == len(LEFT_OUT), said
    folder = Path(str(generated("api").__path__[0]))
    calls = {path.stem for path in folder.rglob("*.py") if path.stem != "__init__"}
    described = {
        operation["operationId"]
        for item in openapi_document()["paths"].values()
        for operation in item.values()
    }
    assert calls == described


def test_the_client_creates_and_reads_a_job(said: str, api: Api, address: str) -> None:
    models, jobs = generated("models"), "api.jobs"
    client = generated("client").AuthenticatedClient(
        base_url=address, token=api.keys["write"], raise_on_unexpected_status=True
    )
    job = models.JobCreate(
        schedule="*/5 * * * *",
        api="https://example.com/hook",
        key="from a client",
        headers=models.JobCreateHeaders.from_dict({"X-One": "1"}),
        payload={"n": [1, None, "é"]},
        max_retry_count=7,
        start_at="2030-01-01T00:00:00+01:00",
    )
    with client:
        created = generated(f"{jobs}.create_job").sync(client=client, body=job, idempotency_key="once")
        read = generated(f"{jobs}.get_job").sync(client=client, id=created.id)
        assert read == created
        assert created == models.Job.from_dict(api.call("GET", f"/api/v1/jobs/{created.id}").get_json())
        assert (read.key, read.max_retry_count, read.payload) == ("from a client", 7, {"n": [1, None, "é"]})
        assert read.next_execution_time.isoformat() == "2029-12-31T23:00:00+00:00"

        page = generated(f"{jobs}.list_jobs").sync(client=client, limit=1)
        assert [item.id for item in page.items] == [created.id]
        # What is wrong comes as the problem that the document describes.
        job.schedule = "never"
        problem = generated(f"{jobs}.create_job").sync(client=client, body=job)
        assert isinstance(problem, models.Problem)
        assert (problem.status, problem.errors[0].pointer) == (422, "/schedule")

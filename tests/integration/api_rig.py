"""The API over a real database, for the tests of its routes. Only Redis is played."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from werkzeug.test import Client, TestResponse

from jobsched.config import Settings
from jobsched.db.bulk import BulkJobs
from jobsched.db.connection import Link, open_pool
from jobsched.db.executions import Executions
from jobsched.db.idempotency import IdempotencyKeys
from jobsched.db.jobs import Jobs
from jobsched.db.keys import Keys
from jobsched.db.migrate import check_schema
from jobsched.db.signing import SigningSecrets
from jobsched.db.stats import Stats
from jobsched.db.user_moves import UserMoves
from jobsched.db.vault import Vault
from jobsched.queue.broker import RqCounts
from jobsched.web.app import create_app
from jobsched.web.services import Services

JOB = {"schedule": "@every 1h", "api": "https://example.com/hook"}


@dataclass
class Api:
    """Calls the application as one of three keys; counts wakes and plays Redis."""

    client: Client
    keys: dict[str, str]
    database: psycopg.Connection[Any]
    wakes: list[None] = field(default_factory=list)
    redis_fault: str | None = None
    rq: dict[str, RqCounts] | None = field(default_factory=dict)
    connection: Callable[[Any], Any] = lambda pool: pool.kept()
    on_wake: Callable[[], object] = lambda: None

    def call(self, method: str, path: str, *, key: str | None = "admin", **options: Any) -> TestResponse:
        """One request; ``key`` is a role, a key, or None for no key."""
        headers = dict(options.pop("headers", {}))
        if (body := options.pop("json", None)) is not None:
            # Not the test client's own way, which sorts the names.
            options |= {"data": json.dumps(body), "content_type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        return self.client.open(path, method=method, headers=headers, **options)

    def create(self, **fields: Any) -> dict[str, Any]:
        """A job, created."""
        answer = self.call("POST", "/api/v1/jobs", json={**JOB, **fields})
        assert answer.status_code == 201, answer.text
        return answer.get_json()

    def wake(self) -> None:
        """What the application calls to wake the pollers."""
        self.wakes.append(None)
        self.on_wake()

    def sql(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        cursor = self.database.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    """The API over an empty database, with a key of each role."""
    with opened(database_url) as rig:
        yield rig


@pytest.fixture
def fresh_api(fresh_database_url: str) -> Iterator[Api]:
    """The same over a database of the test's own, for tests that change more than rows."""
    with opened(fresh_database_url) as rig:
        yield rig


@contextmanager
def opened(database_url: str) -> Iterator[Api]:
    """The API over ``database_url``."""
    pool = open_pool(database_url, "api", 4)
    link = Link(database_url, "api-ready")
    keys = Keys(pool)
    made = {role: keys.create(1, f"{role} key", role)[1] for role in ("admin", "write", "read")}
    pool.close()
    with psycopg.connect(database_url, autocommit=True) as database:
        rig = Api(client=None, keys=made, database=database)  # type: ignore[arg-type]

        def check() -> None:
            with link.transaction() as cursor:
                check_schema(cursor)

        services = Services(
            settings=Settings(),
            jobs=Jobs(pool),
            bulk=BulkJobs(pool),
            executions=Executions(pool),
            moves=UserMoves(pool),
            keys=keys,
            stats=Stats(pool),
            idempotency=IdempotencyKeys(pool),
            signing=SigningSecrets(pool, Vault(None)),
            check_target=lambda url: "is a loopback address" if "//127." in url else None,
            check_schema=check,
            wake=lambda: rig.wake(),
            rq_counts=lambda _queues: rig.rq,
            redis_fault=lambda: rig.redis_fault,
            connection=pool.connection_context,
            kept_connection=lambda: rig.connection(pool),
        )
        rig.client = create_app(services).test_client()
        yield rig
    pool.close_all()
    link.close()


def assert_problem(answer: TestResponse, status: int) -> dict[str, Any]:
    """The problem document of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    problem = answer.get_json()
    assert {"type", "title", "status", "detail", "requestId"} <= problem.keys()
    assert problem["status"] == status
    assert problem["requestId"] == answer.headers["X-Request-Id"]
    return problem

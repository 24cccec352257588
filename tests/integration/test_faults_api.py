"""The API beside a Postgres that only reads, is locked, full, deadlocked or frozen, and one that dies inside a bulk."""

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from jobsched import log
from jobsched.db import session
from jobsched.db.connection import Link, converted, open_pool
from jobsched.db.keys import Keys
from jobsched.embedded import ports
from jobsched.errors import DatabaseContended, DatabaseUnavailable, NotFound
from tests.conftest import eventually
from tests.integration.api_rig import JOB, Api, api, assert_problem, fresh_api  # noqa: F401
from tests.integration.processes import process
from tests.integration.stored import Stored, at_once

_WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@contextmanager
def only_reads(link: Link) -> Iterator[None]:
    """Postgres refuses every write, as a standby does; existing sessions too."""
    try:
        link.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        link.execute("SELECT pg_reload_conf()")
        eventually(lambda: _equal(link.execute("SHOW default_transaction_read_only"), [("on",)]))
        yield
    finally:
        link.execute("ALTER SYSTEM RESET default_transaction_read_only")
        link.execute("SELECT pg_reload_conf()")
        eventually(lambda: _equal(link.execute("SHOW default_transaction_read_only"), [("off",)]))


def test_beside_a_database_that_only_reads_writes_are_503_reads_go_on_and_it_mends_itself(
    api: Api,  # noqa: F811
    link: Link,
) -> None:
    job = api.create()["id"]
    key = {"Idempotency-Key": "k"}
    with only_reads(link):
        eventually(lambda: _equal(api.sql("SHOW default_transaction_read_only"), [("on",)]))
        for _ in range(3):
            answer = api.call("POST", "/api/v1/jobs", json=JOB)
            assert_problem(answer, 503)
            assert answer.headers["Retry-After"]
            assert_problem(api.call("POST", "/api/v1/jobs", json=JOB, headers=key), 503)
            assert_problem(api.call("DELETE", f"/api/v1/jobs/{job}"), 503)
            for role in ("read", "admin"):
                # That a key was used cannot be noted; that refuses nobody.
                assert api.call("GET", f"/api/v1/jobs/{job}", key=role).status_code == 200
            assert api.call("GET", "/queue/stats").status_code == 200
    assert api.call("POST", "/api/v1/jobs", json=JOB, headers=key).status_code == 201
    assert api.call("DELETE", f"/api/v1/jobs/{job}").status_code == 204


def test_a_table_that_is_locked_for_long_costs_each_request_seconds_and_leaves_nobody_waiting(
    api: Api,  # noqa: F811
    link: Link,
) -> None:
    codes: list[int] = []
    waits: list[float] = []

    def write() -> None:
        began = time.monotonic()
        codes.append(api.call("POST", "/api/v1/jobs", json=JOB).status_code)
        waits.append(time.monotonic() - began)

    with link.transaction() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert codes == [503] * 4
        assert max(waits) < 8
        assert cursor.execute(_WAITING).fetchall() == []
    write()
    assert codes[-1] == 201


def test_a_storm_of_refused_requests_is_told_in_few_lines(
    api: Api,  # noqa: F811
    link: Link,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure(json=True)
    with only_reads(link):
        eventually(lambda: _equal(api.sql("SHOW default_transaction_read_only"), [("on",)]))
        for _ in range(50):
            assert_problem(api.call("POST", "/api/v1/jobs", json=JOB), 503)
            assert api.call("GET", "/api/v1/jobs").status_code == 200
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if line["event"] in ("unavailable", "outage_over")]
    assert len(told) == 1
    assert told[0]["code"] == "database_unavailable"


@pytest.mark.parametrize(
    ("fresh", "within"),
    [
        pytest.param(0.0, 5, id="on a connection that lay idle and is probed"),
        pytest.param(60.0, 15, id="on one that was just used and is not"),
    ],
)
def test_a_frozen_database_ends_requests_in_503(
    api: Api,  # noqa: F811
    link: Link,
    monkeypatch: pytest.MonkeyPatch,
    fresh: float,
    within: float,
) -> None:
    monkeypatch.setattr(session, "PROBE", 1.0)
    monkeypatch.setattr(session, "FRESH", fresh)
    api.create()
    pids = [
        pid
        for (pid,) in link.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobsched-api' AND datname = current_database()"
        )
    ]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert_problem(api.call("GET", "/api/v1/jobs"), 503)
        assert time.monotonic() - began < within
        assert api.call("GET", "/api/v1/jobs").status_code == 200, "on another connection"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# Connections


@pytest.fixture
def limited(database_url: str) -> Iterator[str]:
    """The address of the database for a role that may have three connections."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS few")
        admin.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 3")
        admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO few")
        parts = urlsplit(database_url)
        host = parts.netloc.rpartition("@")[2]
        yield urlunsplit(parts._replace(netloc=f"few:few@{host}"))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few'")
        admin.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM few")
        admin.execute("DROP ROLE few")


def test_out_of_connections_is_unavailable_and_over_as_soon_as_there_is_one(limited: str) -> None:
    holders = [Link(limited, "other") for _ in range(3)]
    for holder in holders:
        holder.execute("SELECT 1")
    pool, link = open_pool(limited, "api", 2), Link(limited, "worker")
    with pytest.raises(DatabaseUnavailable):
        link.execute("SELECT 1")
    with pytest.raises(DatabaseUnavailable), converted(), pool.connection_context():
        pool.execute_sql("SELECT 1")
    # Who has a connection keeps it: loops hold theirs for good, so the API cannot starve them.
    assert holders[0].execute("SELECT 1") == [(1,)]
    for holder in holders:
        holder.close()
    began = time.monotonic()

    def both() -> None:
        try:
            assert link.execute("SELECT 1") == [(1,)]
            with converted(), pool.connection_context():
                assert pool.execute_sql("SELECT 1").fetchone() == (1,)
        except DatabaseUnavailable as error:
            raise AssertionError(str(error)) from error

    eventually(both, 5)
    assert time.monotonic() - began < 5
    link.close()
    pool.close_all()


# Deadlocks


@pytest.fixture
def stored(database_url: str) -> Iterator[Stored]:
    pool = open_pool(database_url, "test", 8)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def test_a_request_that_loses_a_deadlock_is_carried_out_after_the_winner(
    stored: Stored, database_url: str
) -> None:
    job = stored.job()
    done: list[Any] = []

    def edit() -> None:
        done.append(stored.jobs.pause(1, job.id).job.spec.is_active)
        stored.pool.close()

    with psycopg.connect(database_url) as other:
        other.execute("SET deadlock_timeout = '10s'")  # it is not the one that finds out
        other.execute("SELECT FROM job WHERE id = %s FOR UPDATE", (job.id,))
        editing = threading.Thread(target=edit)
        editing.start()
        eventually(lambda: _equal(len(stored.sql(_WAITING)), 1))
        # What an edit locks first: now each waits for the other.
        other.execute("SELECT FROM job_schedule WHERE job_id = %s FOR UPDATE", (job.id,))
        assert done == [], "it has lost, and waits for its second try"
        other.commit()
        editing.join(10)
    assert done == [False]


def test_who_loses_again_and_again_gets_the_error(stored: Stored) -> None:
    from jobsched.db.connection import repeated

    tries: list[int] = []

    @repeated
    def lose() -> None:
        tries.append(1)
        raise DatabaseContended("deadlock detected")

    with pytest.raises(DatabaseUnavailable):
        lose()
    assert len(tries) == 3


def test_two_retries_of_one_dead_letter_at_once_take_it_once(stored: Stored) -> None:
    job = stored.job()
    dead = stored.dead_letter(job, payload='{"sent": 1}')
    made = at_once(stored.pool, *[lambda: stored.moves.retry(1, dead)] * 4)
    # Who comes second finds nothing to run again: no history here, and the dead letter is taken.
    assert sorted(type(one).__name__ for one in made) == ["ExecutionRecord", *["NotFound"] * 3]
    assert stored.sql("SELECT payload, redrive_of FROM execution") == [({"sent": 1}, dead)]
    assert stored.sql("SELECT count(*) FROM dead_letter") == [(0,)]


def test_a_retry_that_waited_for_another_does_not_make_its_dead_letter_again(
    stored: Stored, link: Link, database_url: str
) -> None:
    dead = stored.dead_letter(stored.job(), payload='{"sent": 1}')
    other = Link(database_url, "other")
    with closing(other), ThreadPoolExecutor(1) as pool:
        with other.transaction() as cursor:
            cursor.execute("DELETE FROM dead_letter WHERE id = %s", (dead,))  # as whoever comes first does
            retry = pool.submit(stored.moves.retry, 1, dead)
            eventually(lambda: _equal(len(link.execute(_WAITING)), 1))
        with pytest.raises(NotFound):
            retry.result(10)
    assert stored.sql("SELECT count(*) FROM execution") == [(0,)]


def test_an_old_transaction_does_not_slow_claims_down(stored: Stored, database_url: str) -> None:
    """What it still sees cannot be cleaned up: claims must look rows up by id, and not wade through the dead."""
    from jobsched.db import claims
    from jobsched.db.ended import Ended
    from tests.integration.factories import make_worker

    job, link = stored.job(), stored.link
    worker = make_worker(link)
    with psycopg.connect(database_url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM execution")
        times = []
        for _ in range(60):
            ids = [
                one
                for (one,) in link.execute(
                    "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, "
                    "queue, queued_at) SELECT 1, %s, 'manual', now(), now(), 'queued', 5, 'default', 'default', now() "
                    "FROM generate_series(1, 100) RETURNING id",
                    (job.id,),
                )
            ]
            began = time.monotonic()
            assert len(claims.claim(link, worker, ids)) == 100
            times.append(time.monotonic() - began)
            claims.finish(link, worker, "w", [Ended(one, 1, "succeeded", 0.0, 1.0, 3) for one in ids])
    # 6,000 dead rows later, as at the beginning; a hundred rows at once.
    assert sorted(times[-20:])[10] < max(0.1, 3 * sorted(times[:20])[10])


# A server that dies inside a bulk


def test_a_bulk_whose_server_is_killed_inside_leaves_nothing_and_its_key_free(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    pool = open_pool(database_url, "test", 1)
    key = Keys(pool).create(1, "bulk", "write")[1]
    pool.close_all()
    port = ports.free_port()
    body = json.dumps([{**JOB, "schedule": "@every 1h"} for _ in range(500)])

    def send() -> tuple[int, dict[str, Any], str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(
                "POST",
                "/api/v1/jobs/bulk",
                body,
                {
                    "Authorization": f"Bearer {key}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": "the bulk",
                },
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers.get("Idempotent-Replayed")
        finally:
            connection.close()

    def ready() -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/health")
                assert connection.getresponse().read()
        except OSError as error:
            raise AssertionError("no server yet") from error

    link, watch = Link(database_url, "beside"), Link(database_url, "watch")
    with process(
        tmp_path / "log",
        "api",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
    ) as server:
        eventually(ready, 30)
        failed: list[Exception] = []

        def send_in_vain() -> None:
            try:
                send()
            except (OSError, http.client.HTTPException) as error:
                failed.append(error.with_traceback(None))

        with link.transaction() as cursor:
            # The jobs are written, their schedules wait: the middle of the bulk.
            cursor.execute("LOCK TABLE job_schedule IN EXCLUSIVE MODE")
            sending = threading.Thread(target=send_in_vain)
            sending.start()
            eventually(lambda: _equal(len(watch.execute(_WAITING)), 1))
            children = subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(server.pid)], capture_output=True, text=True, check=True
            )
            for child in children.stdout.split():
                os.kill(int(child), signal.SIGKILL)
            sending.join(30)
            assert failed
        eventually(lambda: _equal(link.execute("SELECT count(*) FROM idempotency_key"), [(0,)]))
        assert link.execute("SELECT count(*) FROM job") == [(0,)]
        eventually(ready, 30)
        first, second = _until_free(send), send()
    assert (first[0], len(first[1]["ids"]), first[2]) == (201, 500, None)
    assert (second[0], second[1]["ids"], second[2]) == (201, first[1]["ids"], "true")
    assert link.execute("SELECT count(*) FROM job") == [(500,)]
    link.close()
    watch.close()


def _until_free(send: Any) -> Any:
    """The dead server's transaction ends with its connection, which takes Postgres a moment to see."""
    found: list[Any] = []

    def free() -> None:
        found[:] = [send()]
        assert found[0][0] != 409

    eventually(free)
    return found[0]


def _equal(found: object, wanted: object) -> None:
    assert found == wanted

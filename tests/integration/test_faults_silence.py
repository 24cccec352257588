"""A Postgres that stands still: whoever waits for it gives up by himself, and goes on with a new session."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobsched.db import session
from jobsched.db.connection import Link, converted, open_pool
from jobsched.errors import DatabaseUnavailable


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BEYOND", 0.3)
    monkeypatch.setattr(session, "PROBE", 0.3)


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stop backends of Postgres, as a debugger or a stalled disk would."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def backend(link: Link) -> int:
    [(pid,)] = link.execute("SELECT pg_backend_pid()")
    return int(pid)


def test_a_backend_that_stands_still_is_given_up_and_replaced(database_url: str) -> None:
    link = Link(database_url, "test", statement_timeout=0.2)
    old = backend(link)
    with frozen(old):
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="no answer within"):
            link.execute("SELECT 1")
        assert 0.4 < time.monotonic() - began < 2
        assert backend(link) != old, "the same loop goes on while the old one still stands"
    link.close()


def test_a_transaction_in_front_of_it_ends_too(database_url: str) -> None:
    link = Link(database_url, "test", statement_timeout=0.2)

    def inside() -> None:
        with link.transaction() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [(pid,)] = cursor.fetchall()
            with frozen(pid):
                cursor.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        inside()
    assert link.execute("SELECT 1") == [(1,)]
    link.close()


def test_what_only_takes_long_is_left_alone(database_url: str) -> None:
    link = Link(database_url, "test", statement_timeout=5)
    assert link.execute("SELECT 1 FROM pg_sleep(0.6)") == [(1,)]
    link.close()


def test_a_transaction_that_asked_for_more_time_gets_it_once(database_url: str) -> None:
    pool = open_pool(database_url, "test", 1, statement_timeout=0.2)
    with pool.connection_context():
        with pool.atomic():
            pool.connection().extend(5)
            assert pool.execute_sql("SELECT 1 FROM pg_sleep(0.7)").fetchall() == [(1,)]
        with pytest.raises(DatabaseUnavailable), converted():
            pool.execute_sql("SELECT 1 FROM pg_sleep(0.7)")
    pool.close_all()


def test_a_pool_whose_connections_stand_still_answers_soon_and_recovers(database_url: str) -> None:
    pool = open_pool(database_url, "test", 3, statement_timeout=0.2)
    pids: list[int] = []
    gathered = threading.Barrier(3)

    def use() -> None:
        with pool.connection_context():
            pids.append(pool.execute_sql("SELECT pg_backend_pid()").fetchone()[0])
            gathered.wait(5)

    in_threads([use] * 3)
    assert len(set(pids)) == 3
    with frozen(*pids):
        for _ in pids:
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable), converted(), pool.connection_context():
                pool.execute_sql("SELECT 1")
            assert time.monotonic() - began < 2, "one probe, not one of each connection"
        with converted(), pool.connection_context():
            assert pool.execute_sql("SELECT 1").fetchall() == [(1,)]
    pool.close_all()


def test_a_session_that_only_reads_is_left_for_another(database_url: str) -> None:
    """After a failover a new connection finds the server that writes; an old one might never."""
    link = Link(database_url, "test")
    old = backend(link)
    link.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnavailable):
        link.execute("DELETE FROM job")
    assert link.execute("DELETE FROM job") == []
    assert backend(link) != old
    link.close()
    pool = open_pool(database_url, "test", 1)
    with pool.connection_context():
        pool.execute_sql("SET default_transaction_read_only = on")
        with pytest.raises(DatabaseUnavailable), converted():
            pool.execute_sql("DELETE FROM job")
    with pool.connection_context():
        pool.execute_sql("DELETE FROM job")
    pool.close_all()


def in_threads(calls: list[Callable[[], Any]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

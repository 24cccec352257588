"""Waking the pollers."""

import time

import psycopg

from jobsched.db.notify import CHANNEL, Notifier


def test_many_wakes_make_few_notifications_and_never_none(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        notifier = Notifier(database_url)
        for _ in range(1000):
            notifier.wake()
        heard = list(listener.notifies(timeout=0.5))
        assert 1 <= len(heard) <= 20
        assert {note.payload for note in heard} == {""}
        began = time.monotonic()
        notifier.wake()
        assert len(list(listener.notifies(timeout=2, stop_after=1))) == 1
        assert time.monotonic() - began < 0.5
        notifier.wake()
        notifier.close()
        assert len(list(listener.notifies(timeout=2, stop_after=1))) == 1


def test_a_broken_connection_is_made_anew(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        notifier = Notifier(database_url)
        notifier.wake()
        assert list(listener.notifies(timeout=2, stop_after=1))
        listener.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'jobsched-notify' AND datname = current_database()"
        )
        notifier.wake()
        assert list(listener.notifies(timeout=5, stop_after=1))
        notifier.close()


def test_without_a_database_nobody_notices() -> None:
    notifier = Notifier("postgresql://nobody@127.0.0.1:1/none")
    began = time.monotonic()
    for _ in range(100):
        notifier.wake()
    assert time.monotonic() - began < 0.1
    notifier.close()

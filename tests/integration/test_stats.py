import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobsched import clock
from jobsched.db import stats as counting
from jobsched.db.connection import open_pool
from jobsched.db.stats import KEPT_SECONDS, PollerStats, QueueStats, Stats
from tests.conftest import eventually
from tests.integration.factories import make_execution, make_job
from tests.integration.stored import Stored


@pytest.fixture
def stored(database_url):
    pool = open_pool(database_url, "test", 10)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def process(stored, kind, name, **columns):
    values = {"id": uuid.uuid4(), "kind": kind, "name": name, "host": "h", "pid": 7} | columns
    marks = ", ".join(["%s"] * len(values))
    stored.sql(f"INSERT INTO worker_process ({', '.join(values)}) VALUES ({marks})", *values.values())


def test_an_empty_installation_has_nothing_to_tell(stored):
    stats = Stats(stored.pool)
    assert (stats.queues(), stats.workers(), stats.poller()) == ([], [], PollerStats(0, None))


def test_queues_are_counted_by_state_with_their_dead_letters(stored):
    job = stored.job()
    for state in ("queued", "queued", "running", "pending", "blocked", "retrying"):
        stored.execution(job, state, due_at="2090-01-01T00:00:00Z")
    stored.execution(job, queue="gpu.high")
    stored.sql("UPDATE execution SET due_at = clock_timestamp() - interval '90 s' WHERE queue = 'gpu.high'")
    stored.dead_letter(job)
    stored.dead_letter(job, queue="old.low")
    first, second, third = Stats(stored.pool).queues()
    assert first == QueueStats(
        name="default",
        pool="default",
        queued=2,
        running=1,
        pending=2,
        retrying=1,
        dead=1,
        oldest_wait_seconds=0,
    )
    assert (second.name, second.pool, second.pending) == ("gpu.high", "gpu", 1)
    assert 90 <= second.oldest_wait_seconds < 100
    assert (third.name, third.pool, third.dead, third.queued) == ("old.low", "old", 1, 0)
    assert Stats(stored.pool).queues(2) == []
    assert [queue.name for queue in Stats(stored.pool).queues(1)] == ["default", "gpu.high", "old.low"]


def test_only_workers_that_are_alive_are_listed(stored):
    process(stored, "worker", "b", pools=["default", "gpu"], concurrency=100, in_flight=3)
    process(stored, "worker", "a")
    process(stored, "worker", "dead", state="dead")
    process(stored, "worker", "silent", heartbeat_at="2026-01-01T00:00:00Z")
    process(stored, "poller", "p")
    workers = Stats(stored.pool).workers()
    assert [(worker.name, worker.pools, worker.concurrency, worker.in_flight) for worker in workers] == [
        ("a", [], 0, 0),
        ("b", ["default", "gpu"], 100, 3),
    ]


def test_the_poller_is_as_late_as_it_says_or_as_what_is_overdue(stored):
    process(stored, "poller", "p", lag_seconds=0.25)
    process(stored, "poller", "q", lag_seconds=0.5)
    process(stored, "poller", "gone", lag_seconds=99.0, state="dead")
    assert Stats(stored.pool).poller() == PollerStats(2, 0.5)
    stored.job()
    stored.sql("UPDATE job_schedule SET next_execution_time = clock_timestamp() - interval '60 s'")
    poller = Stats(stored.pool).poller()
    assert poller.alive == 2
    assert 60 <= poller.lag_seconds < 70


def test_what_counts_every_row_is_asked_once_in_ten_seconds(stored, monkeypatch):
    job = make_job(stored.link, due=None)
    stats = Stats(stored.pool)
    assert (stats.depths(), stats.dead_letters()) == ([], [])
    make_execution(stored.link, job)
    assert stats.depths() == []
    passed = clock.monotonic() + KEPT_SECONDS
    monkeypatch.setattr(clock, "monotonic", lambda: passed)
    assert [(one.queue, one.state, one.count) for one in stats.depths()] == [("default", "queued", 1)]


def test_few_rows_are_counted_each_time_and_many_once_in_ten_seconds(stored, monkeypatch):
    monkeypatch.setattr(counting, "COUNTED_ANEW", 2)
    job = make_job(stored.link, due=None)
    stats = Stats(stored.pool)
    for number in (1, 2, 3):
        make_execution(stored.link, job)
        assert [one.queued for one in stats.queues()] == [number]
    make_execution(stored.link, job)
    assert [one.queued for one in stats.queues()] == [3]
    assert [one.queued for one in stats.queues(1)] == [4]
    passed = clock.monotonic() + KEPT_SECONDS
    monkeypatch.setattr(clock, "monotonic", lambda: passed)
    assert [one.queued for one in stats.queues()] == [4]
    stored.sql("DELETE FROM execution")
    passed += KEPT_SECONDS
    assert stats.queues() == []
    make_execution(stored.link, job)
    assert [one.queued for one in stats.queues()] == [1]


def test_nobody_waits_for_a_count_that_another_makes(stored, monkeypatch):
    stats = Stats(stored.pool)
    assert stats.depths() == []
    passed = clock.monotonic() + KEPT_SECONDS
    monkeypatch.setattr(clock, "monotonic", lambda: passed)
    make_execution(stored.link, make_job(stored.link, due=None))
    with ThreadPoolExecutor(1) as pool:
        with stored.link.transaction() as cursor:
            cursor.execute("LOCK TABLE execution IN ACCESS EXCLUSIVE MODE")
            slow = pool.submit(stats.depths)

            def waits():
                waiting = (
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = "
                )
                assert stored.pool.execute_sql(f"{waiting} current_database()").fetchone() == (1,)

            eventually(waits)
            assert stats.depths() == []
        assert len(slow.result(10)) == 1

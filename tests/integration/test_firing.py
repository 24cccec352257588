"""Fire and release against a real database; the broker is real too, so that what is pushed is seen in Redis."""

import threading
from datetime import timedelta

import pytest

from jobsched.db.connection import Link
from jobsched.poller.fire import Fire
from jobsched.poller.release import Release
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.integration.factories import make_execution, make_job


def drain(broker):
    return broker.take(["default"], 100_000)


def test_a_due_schedule_becomes_a_queued_execution_and_moves_on(link, broker):
    job = make_job(link, schedule="@every 1h")
    fired = Fire(link, broker, 100).run_once()
    assert (fired.executions, fired.skipped, fired.more) == (1, 0, False)
    [(execution, state, trigger, slot, due)] = link.execute(
        "SELECT id, state, trigger, scheduled_for, due_at FROM execution"
    )
    assert (state, trigger, slot) == ("queued", "schedule", due)
    assert drain(broker) == [execution]
    [(following, last, runs)] = link.execute("SELECT next_slot, last_slot, runs FROM job_schedule")
    assert (last, runs) == (slot, 1)
    assert timedelta(0) < following - slot <= timedelta(hours=1)
    assert Fire(link, broker, 100).run_once().executions == 0
    assert job


def test_pollers_side_by_side_fire_each_slot_once(link, database_url, broker):
    for _ in range(300):
        make_job(link)
    start, errors = threading.Barrier(4), []

    def work():
        own = Link(database_url, "poller")
        fire = Fire(own, broker, 10_000)
        start.wait()
        try:
            while fire.run_once(batch=20).more:
                pass
        except Exception as error:
            errors.append(error)
        own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Fire(link, broker, 10_000).run_once().executions == 0
    assert link.execute("SELECT count(*), count(DISTINCT job_id) FROM execution") == [(300, 300)]
    assert len(drain(broker)) == 300


def test_without_room_a_slot_waits_as_pending_and_is_released_when_there_is_room(link, broker):
    for _ in range(5):
        make_job(link)
    Fire(link, broker, 3).run_once()
    assert link.execute("SELECT state, count(*) FROM execution GROUP BY 1 ORDER BY 1") == [
        ("pending", 2),
        ("queued", 3),
    ]
    release = Release(link, broker, 3, 5.0)
    assert release.run_once().again_in is not None
    link.execute("DELETE FROM execution WHERE state = 'queued'")
    assert release.run_once().executions == 2
    assert len(drain(broker)) == 5


def test_release_goes_by_priority_then_by_due_time_and_leaves_what_is_not_due(link, broker):
    job = make_job(link, due=None)

    def waiting(priority, seconds, state="pending"):
        due = f"clock_timestamp() + interval '{seconds} s'"
        return make_execution(link, job, state, priority=priority, due_at=due)

    late, early, urgent, future = waiting(5, -1), waiting(5, -9, "retrying"), waiting(7, -1), waiting(7, 60)
    Release(link, broker, 100, 5.0).run_once()
    assert drain(broker) == [urgent, early, late]
    assert link.execute("SELECT id FROM execution WHERE state <> 'queued'") == [(future,)]


def test_a_full_queue_holds_up_no_other(link, broker):
    job = make_job(link, due=None)
    for _ in range(5):
        make_execution(link, job, "queued", queue="'busy'", pool="'busy'")
        make_execution(link, job, "pending", queue="'busy'", pool="'busy'")
    free = make_execution(link, job, "pending")
    assert Release(link, broker, 5, 5.0).run_once().executions == 1
    assert drain(broker) == [free]


@pytest.mark.parametrize(
    ("policy", "run", "skipped"), [("fire_once", 1, 9), ("fire_all", 10, 0), ("skip", 1, 9)]
)
def test_slots_missed_while_no_poller_ran_follow_the_misfire_policy(link, broker, policy, run, skipped):
    first = "date_trunc('second', clock_timestamp()) - interval '9 hours'"
    make_job(
        link,
        schedule="@every 1h",
        due=first,
        anchor="date_trunc('second', clock_timestamp()) - interval '10 hours'",
        misfire_policy=policy,
    )
    fired = Fire(link, broker, 100).run_once()
    assert (fired.executions, fired.skipped) == (run, skipped)
    rows = link.execute(
        "SELECT skipped_count, error_code, state FROM execution_history WHERE state = 'skipped'"
    )
    assert rows == ([(skipped, "misfire", "skipped")] if skipped else [])
    [(ahead,)] = link.execute("SELECT next_slot > clock_timestamp() FROM job_schedule")
    assert ahead


def test_a_job_with_a_thousand_waiting_executions_gets_its_slots_as_skipped(link, broker):
    job = make_job(link)
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
        "SELECT 1, %s, 'manual', now(), now(), 'pending', 5, 'default', 'default' FROM generate_series(1, 1000)",
        (job,),
    )
    assert Fire(link, broker, 100).run_once().skipped == 1
    assert link.execute("SELECT error_code, skipped_count FROM execution_history") == [("backlog", 1)]


def test_a_schedule_that_cannot_be_read_is_set_aside_and_stops_nobody(link, broker):
    bad = make_job(link, schedule="nonsense")
    make_job(link)
    assert Fire(link, broker, 100).run_once().executions == 1
    [(fault, later)] = link.execute(
        "SELECT fault, next_execution_time > clock_timestamp() + interval '30 min' FROM job_schedule "
        "WHERE job_id = %s",
        (bad,),
    )
    assert fault
    assert later


def test_a_paused_or_deleted_job_is_taken_off_the_clock(link, broker):
    make_job(link, is_active=False)
    link.execute("UPDATE job SET deleted_at = now() WHERE id = %s", (make_job(link),))
    assert Fire(link, broker, 100).run_once().executions == 0
    assert link.execute("SELECT count(*) FROM job_schedule WHERE next_execution_time IS NOT NULL") == [(0,)]


def test_a_slot_that_was_fired_before_is_not_fired_again(link, broker):
    job = make_job(link, slot="timestamptz '2026-01-01 00:00Z'", due="timestamptz '2026-01-01 00:00Z'")
    make_execution(
        link, job, "running", trigger="'schedule'", scheduled_for="timestamptz '2026-01-01 00:00Z'",
        worker_id="gen_random_uuid()",
    )  # fmt: skip
    link.execute("UPDATE job SET misfire_grace_seconds = 1e9, end_at = '2026-01-01 00:30Z'")
    Fire(link, broker, 100).run_once()
    assert link.execute("SELECT count(*) FROM execution") == [(1,)]


def test_one_slot_that_was_fired_before_keeps_none_of_its_batch_from_being_fired(link, broker):
    slot = "date_trunc('hour', clock_timestamp())"
    jobs = [make_job(link, schedule="0 * * * *", slot=slot, due=slot) for _ in range(5)]
    make_execution(link, jobs[2], trigger="'schedule'", scheduled_for=slot)
    assert Fire(link, broker, 100).run_once().executions == 5
    assert link.execute("SELECT job_id, count(*) FROM execution GROUP BY 1 ORDER BY 1") == [
        (job, 1) for job in jobs
    ]
    assert len(drain(broker)) == 4
    assert link.execute("SELECT count(*) FROM job_schedule WHERE next_slot > clock_timestamp()") == [(5,)]


def test_redis_being_away_loses_nothing(link, broker):
    make_job(link)
    nowhere = Broker(connect("redis://127.0.0.1:1/0"))
    assert Fire(link, nowhere, 100).run_once().executions == 1
    assert link.execute("SELECT state FROM execution") == [("queued",)]


def test_a_schedule_ends_after_its_last_run(link, broker):
    make_job(link, max_runs=1)
    make_job(link, schedule="@at 2026-01-01T00:00:00Z", is_recurring=False)
    Fire(link, broker, 100).run_once()
    assert link.execute("SELECT next_slot, next_execution_time FROM job_schedule") == [(None, None)] * 2

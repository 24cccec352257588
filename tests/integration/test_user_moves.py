import json
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobsched.clock import rfc3339
from jobsched.db import claims
from jobsched.db.connection import open_pool
from jobsched.db.user_moves import QUEUE_OF_JOB, Redriven, RedriveProgress
from jobsched.domain.queues import queue_name
from jobsched.domain.requests import RedriveRequest, Selector
from jobsched.errors import Conflict, NotFound
from tests.conftest import eventually
from tests.integration.stored import Stored, at_once

SLOT = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = RedriveRequest(selector=Selector(all=True))


@pytest.fixture
def stored(database_url):
    pool = open_pool(database_url, "test", 10)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def by_ids(*ids, **how):
    return RedriveRequest(selector=Selector(ids=ids), **how)


def payloads(stored):
    return [row[0] for row in stored.sql("SELECT payload::text FROM execution ORDER BY id")]


def test_run_now_makes_a_pending_execution_due_now_in_the_queue_of_its_job(stored):
    job = stored.job(pool="gpu", priority=9, payload={"v": 1}, is_active=False)
    execution = stored.moves.run_now(1, job.id, force=True)
    assert (execution.state, execution.trigger, execution.scheduled_for) == (
        "pending",
        "manual",
        execution.due_at,
    )
    row = stored.sql(
        "SELECT queue, pool, priority, force, payload, due_at <= clock_timestamp() FROM execution"
    )
    assert row == [("gpu.high", "gpu", 9, True, None, True)]
    assert stored.jobs.get(1, job.id).next_execution_time == job.next_execution_time


def test_run_now_may_bring_its_own_payload_or_none(stored):
    job = stored.job(payload={"v": 1})
    stored.moves.run_now(1, job.id, payload={"mine": "ü"})
    stored.moves.run_now(1, job.id, payload=None)
    assert payloads(stored) == ['{"mine":"ü"}', "null"]


@pytest.mark.parametrize("call", ["run_now", "cancel", "retry", "redrive_progress"])
@pytest.mark.parametrize("wanted", [0, -1, 999, 2**63])
def test_unknown_ids_are_not_found(stored, call, wanted):
    with pytest.raises(NotFound):
        getattr(stored.moves, call)(1, wanted)


def test_the_queue_in_sql_is_the_queue_in_python(stored):
    rows = stored.sql(
        f"SELECT pool, priority, {QUEUE_OF_JOB} FROM (SELECT 'p' AS pool, g AS priority "
        "FROM generate_series(0, 10) AS g) AS j"
    )
    assert rows == [("p", priority, queue_name("p", priority)) for priority in range(11)]


@pytest.mark.parametrize("state", ["pending", "queued", "retrying", "blocked"])
def test_what_waits_is_cancelled_at_once(stored, state):
    job = stored.job(max_retry_count=5)
    attempt = {"attempt": 1, "startedAt": "2026-01-01T00:00:01Z", "responseStatus": 500, "worker": "w"}
    execution = stored.execution(job, state, attempt=1, retry_count=1, attempts=json.dumps([attempt]))
    done = stored.moves.cancel(1, execution)
    assert not done.pending
    found = done.execution
    assert (found.state, found.error_code, found.max_retry_count, found.worker) == (
        "cancelled",
        "cancelled",
        5,
        "w",
    )
    assert [one["attempt"] for one in found.attempts] == [1]
    assert found.finished_at is not None
    assert stored.jobs.get(1, job.id).last_state == "cancelled"
    with pytest.raises(Conflict):
        stored.moves.cancel(1, execution)


def test_what_runs_is_flagged_for_its_worker(stored):
    execution = stored.execution(stored.job(), "running", attempt=1)
    for _ in range(2):
        done = stored.moves.cancel(1, execution)
        assert (done.pending, done.execution.state) == (True, "running")
    assert stored.sql("SELECT cancel_requested_at IS NOT NULL FROM execution") == [(True,)]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "skipped"])
def test_what_is_over_cannot_be_cancelled(stored, state):
    execution = stored.finished(stored.job(), state)
    with pytest.raises(Conflict):
        stored.moves.cancel(1, execution)


def test_of_cancels_at_once_one_cancels(stored):
    execution = stored.execution(stored.job())
    results = at_once(stored.pool, *[lambda: stored.moves.cancel(1, execution)] * 4)
    assert sorted(type(result).__name__ for result in results) == ["Cancelled"] + ["Conflict"] * 3
    assert stored.sql("SELECT count(*) FROM execution_history") == [(1,)]


def test_a_cancel_that_loses_to_a_claim_flags_what_now_runs(stored):
    execution = stored.execution(stored.job(), "queued", queued_at="2026-01-01T00:00:00Z")
    beside = Stored(stored.pool, stored.url)
    results = []
    with stored.link.transaction() as cursor:
        cursor.execute(
            "UPDATE execution SET state = 'running', attempt = 1, worker_id = %s, started_at = now()",
            (uuid.uuid4(),),
        )
        cancel = threading.Thread(target=lambda: results.append(stored.moves.cancel(1, execution)))
        cancel.start()
        eventually(lambda: _assert_waiting(beside))
    cancel.join()
    beside.link.close()
    assert results[0].pending
    assert stored.sql("SELECT state FROM execution WHERE cancel_requested_at IS NOT NULL") == [("running",)]


def test_a_cancelled_execution_is_never_claimed(stored):
    for _ in range(20):
        execution = stored.execution(stored.job(), "queued", queued_at="2026-01-01T00:00:00Z")
        beside = Stored(stored.pool, stored.url)
        cancelled, claimed = at_once(
            stored.pool,
            lambda execution=execution: stored.moves.cancel(1, execution),
            lambda execution=execution, beside=beside: claims.claim(beside.link, uuid.uuid4(), [execution]),
        )
        beside.link.close()
        assert bool(claimed) == cancelled.pending


@pytest.mark.parametrize("state", ["pending", "retrying"])
def test_retry_makes_what_waits_due_now(stored, state):
    execution = stored.execution(stored.job(), state, due_at="2090-01-01T00:00:00Z")
    found = stored.moves.retry(1, execution)
    assert (found.id, found.state) == (execution, state)
    assert stored.sql("SELECT due_at <= clock_timestamp() FROM execution") == [(True,)]


def test_retry_puts_off_nothing(stored):
    execution = stored.execution(stored.job())
    assert stored.moves.retry(1, execution).due_at == rfc3339(SLOT)


@pytest.mark.parametrize("state", ["queued", "running", "blocked"])
def test_retry_of_what_is_on_its_way_is_a_conflict(stored, state):
    execution = stored.execution(stored.job(), state)
    with pytest.raises(Conflict, match=state):
        stored.moves.retry(1, execution)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "skipped"])
def test_retry_of_what_is_over_makes_another_execution(stored, state):
    job = stored.job(payload={"v": 2})
    old = stored.finished(job, state)
    new = stored.moves.retry(1, old)
    assert (new.trigger, new.redrive_of, new.state, new.scheduled_for) == (
        "redrive",
        old,
        "pending",
        rfc3339(SLOT),
    )
    assert new.id != old
    assert payloads(stored) == [None]


def test_retry_of_a_dead_letter_takes_it_and_sends_what_was_sent(stored):
    job = stored.job(payload={"v": 2})
    letter = stored.dead_letter(job, payload='{"v":1}')
    without = stored.dead_letter(job, payload=None)
    assert stored.moves.retry(1, letter).redrive_of == letter
    assert stored.moves.retry(1, without).redrive_of == without
    assert payloads(stored) == ['{"v":1}', "null"]
    assert stored.sql("SELECT count(*) FROM dead_letter") == [(0,)]


def test_retry_of_a_deleted_job_is_a_conflict_and_keeps_the_dead_letter(stored):
    job = stored.job()
    old = stored.finished(job, "failed")
    stored.sql("UPDATE job SET deleted_at = now()")
    with pytest.raises(Conflict, match="deleted"):
        stored.moves.retry(1, old)
    letter = stored.dead_letter(job)
    with pytest.raises(Conflict, match="deleted"):
        stored.moves.redrive(1, by_ids(letter))
    assert stored.moves.redrive(1, EVERYTHING).matched == 0
    assert stored.sql("SELECT id FROM dead_letter") == [(letter,)]


def test_redrive_makes_executions_of_the_job_as_it_is_now(stored):
    job = stored.job(pool="gpu", priority=1, payload={"v": 2})
    letters = [stored.dead_letter(job, payload='{"v":1}'), stored.dead_letter(job, payload=None)]
    kept = stored.dead_letter(job)
    redriven = stored.moves.redrive(1, by_ids(*letters, 999))
    assert redriven.matched == 2
    rows = stored.sql(
        "SELECT redrive_of, redrive_id, trigger, state, queue, priority, payload::text, scheduled_for, "
        "due_at <= clock_timestamp() FROM execution ORDER BY redrive_of"
    )
    common = (redriven.id, "redrive", "pending", "gpu.low", 1)
    assert rows == [
        (letters[0], *common, '{"v":1}', SLOT, True),
        (letters[1], *common, "null", SLOT, True),
    ]
    assert stored.sql("SELECT id FROM dead_letter") == [(kept,)]


def test_redrive_of_one_may_bring_a_payload(stored):
    job = stored.job()
    stored.moves.redrive(1, by_ids(stored.dead_letter(job, payload="1"), payload={"mine": 1}))
    stored.moves.redrive(1, by_ids(stored.dead_letter(job, payload="1"), payload=None))
    assert payloads(stored) == ['{"mine":1}', "null"]


def test_redrive_spreads_executions_at_the_rate_asked_for(stored):
    job = stored.job()
    for _ in range(4):
        stored.dead_letter(job)
    stored.moves.redrive(1, RedriveRequest(selector=Selector(all=True), rate_per_second=2))
    (due,) = zip(*stored.sql("SELECT due_at FROM execution ORDER BY redrive_of"), strict=True)
    assert [later - due[0] for later in due] == [timedelta(seconds=0.5 * n) for n in range(4)]


def test_redrive_by_filter_takes_what_matches_all_of_it(stored):
    job, other = stored.job(), stored.job()
    hit = stored.dead_letter(job, error_code="timeout")
    stored.dead_letter(job)
    stored.dead_letter(other, error_code="timeout")
    redriven = stored.moves.redrive(
        1, RedriveRequest(selector=Selector(job_id=job.id, error_code="timeout", from_=SLOT))
    )
    assert redriven.matched == 1
    assert stored.sql("SELECT redrive_of FROM execution") == [(hit,)]


def test_another_project_redrives_and_discards_nothing(stored):
    stored.sql("INSERT INTO project (name) VALUES ('other')")
    letter = stored.dead_letter(stored.job())
    assert stored.moves.redrive(2, EVERYTHING).matched == 0
    assert stored.moves.redrive(2, by_ids(letter)).matched == 0
    assert stored.moves.discard(2, Selector(all=True)) == 0
    with pytest.raises(NotFound):
        stored.moves.retry(2, letter)


def test_redrives_at_once_make_one_execution_of_each_dead_letter(stored):
    job = stored.job()
    letters = [stored.dead_letter(job) for _ in range(50)]
    results = at_once(
        stored.pool,
        lambda: stored.moves.redrive(1, EVERYTHING),
        lambda: stored.moves.redrive(1, by_ids(*letters)),
        lambda: stored.moves.redrive(1, EVERYTHING),
        lambda: stored.moves.discard(1, Selector(ids=tuple(letters))),
    )
    made = sum(result.matched if isinstance(result, Redriven) else result for result in results)
    assert made == 50
    rows = stored.sql("SELECT redrive_of, count(*) FROM execution GROUP BY 1 HAVING count(*) > 1")
    assert rows == []
    assert stored.sql("SELECT count(*) FROM dead_letter") == [(0,)]


def test_the_progress_of_a_redrive_counts_what_is_over(stored):
    job = stored.job()
    for _ in range(3):
        stored.dead_letter(job)
    redriven = stored.moves.redrive(1, EVERYTHING)
    progress = stored.moves.redrive_progress
    assert progress(1, redriven.id) == RedriveProgress(redriven.id, 3, 0, 0, "running")
    stored.sql("DELETE FROM execution WHERE id = (SELECT min(id) FROM execution)")
    assert progress(1, redriven.id) == RedriveProgress(redriven.id, 3, 1, 0, "running")
    stored.sql("DELETE FROM execution")
    assert progress(1, redriven.id) == RedriveProgress(redriven.id, 3, 3, 0, "finished")
    with pytest.raises(NotFound):
        progress(2, redriven.id)


def test_discard_counts_what_it_deletes(stored):
    job = stored.job()
    letters = [stored.dead_letter(job) for _ in range(3)]
    assert stored.moves.discard(1, Selector(ids=(letters[0], 999))) == 1
    assert stored.moves.discard(1, Selector(all=True)) == 2
    with pytest.raises(ValueError, match="empty selector"):
        stored.moves.discard(1, Selector())


def _assert_waiting(beside):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    assert beside.sql(waiting) == [(1,)]

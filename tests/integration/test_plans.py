"""Statements that run all the time must stay cheap when the planner's statistics are old or rows are many."""

import time
import uuid

import pytest

from jobsched.db import claims, firing, health, recovery, releasing, stats
from tests.integration.factories import make_job

MANY = 5000


@pytest.fixture
def crowd(link):
    """Many executions that were waiting when the statistics were taken, and are queued and old now."""
    job = make_job(link, due=None)
    link.execute(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
        "SELECT 1, %s, 'manual', now(), now(), 'pending', 5, 'default', 'default' FROM generate_series(1, %s)",
        (job, MANY),
    )
    link.execute("ANALYZE execution")
    yield
    link.execute("DELETE FROM execution")
    link.execute("ANALYZE execution")


def test_a_release_of_many_takes_no_time(link, crowd):
    began = time.monotonic()
    with link.transaction() as cursor:
        waiting = releasing.lock_due(cursor, "default", 2000)
        assert releasing.disallowing(cursor, sorted({one.job_id for one in waiting})) == []
        releasing.queue(cursor, [one.id for one in waiting])
    assert link.execute("SELECT count(*) FROM execution WHERE state = 'queued'") == [(2000,)]
    assert time.monotonic() - began < 1


def test_lost_messages_are_found_fast_with_statistics_that_know_of_none(link, crowd):
    link.execute("UPDATE execution SET state = 'queued', queued_at = now() - interval '1 hour'")
    began = time.monotonic()
    assert len(recovery.requeue_lost(link, "default", None)) == 1000
    assert time.monotonic() - began < 1


def test_a_claim_looks_its_rows_up_by_id_with_statistics_that_know_of_none_queued(link, crowd):
    link.execute("UPDATE execution SET state = 'queued', queued_at = now()")
    for statement in (claims._CLAIM, claims._CANCEL_INSTEAD):
        parameters = {"ids": list(range(1, 257)), "worker": uuid.uuid4()}
        plan = "\n".join(row[0] for row in link.execute("EXPLAIN " + statement, parameters))
        assert "execution_queued" not in plan, plan
        assert "Seq Scan on execution" not in plan, plan


def test_what_is_due_later_is_not_read(link):
    link.execute("SET enable_seqscan = off")
    for statement, parameters in [
        (firing._LOCK_DUE, (10,)),
        (releasing._LOCK_DUE, {"queue": "default", "room": 10, "without": []}),
    ]:
        plan = "\n".join(row[0] for row in link.execute("EXPLAIN " + statement, parameters))
        conditions = [line for line in plan.splitlines() if "Index Cond" in line]
        assert any("statement_timestamp()" in line for line in conditions), plan


def test_how_late_firing_is_is_told_without_reading_what_is_due_later(link):
    link.execute("SET enable_seqscan = off")
    plan = "\n".join(row[0] for row in link.execute("EXPLAIN " + stats._POLLER, {"silent": 30}))
    assert "Index Cond: (next_execution_time <= statement_timestamp())" in plan, plan
    assert health.overdue(link) == (None, 0.0)

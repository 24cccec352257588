import uuid

import pytest

from jobsched.db import recovery, workers
from jobsched.poller.reconcile import Reconcile
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.integration.factories import make_execution, make_job, make_worker


@pytest.fixture
def broker(redis_url):
    client = connect(redis_url)
    client.flushall()
    yield Broker(client)
    client.close()


def run_on(link, worker, **fields):
    """A running execution of a fresh job, owned by ``worker``."""
    type = fields.pop("type", "AT_LEAST_ONCE")
    job = make_job(link, due=None, type=type)
    return make_execution(
        link,
        job,
        "running",
        worker_id=f"'{worker}'",
        attempt=1,
        started_at="clock_timestamp()",
        deadline_at="clock_timestamp() + interval '1 hour'",
        type=f"'{type}'",
        **fields,
    )


def kill(link, worker):
    link.execute("UPDATE worker_process SET state = 'dead' WHERE id = %s", (worker,))


def test_a_living_workers_executions_are_left_alone(link):
    run_on(link, make_worker(link))
    assert recovery.recover_lost_workers(link).total == 0


def test_a_dead_workers_execution_is_retried_at_once_without_spending_a_retry(link):
    worker = make_worker(link)
    run_on(link, worker)
    kill(link, worker)
    assert recovery.recover_lost_workers(link).retrying == 1
    [(state, retries, lost, attempts, due)] = link.execute(
        "SELECT state, retry_count, lost, attempts, due_at <= clock_timestamp() FROM execution"
    )
    assert (state, retries, lost, due) == ("retrying", 0, 1, True)
    assert [(one["errorCode"], one["worker"]) for one in attempts] == [("worker_lost", "worker-1")]


def test_the_third_loss_is_poison(link):
    worker = make_worker(link)
    execution = run_on(link, worker, lost=2)
    kill(link, worker)
    assert recovery.recover_lost_workers(link).failed == 1
    assert link.execute("SELECT id, error_code FROM dead_letter") == [(execution, "poison")]
    assert link.execute("SELECT state, error_code FROM execution_history") == [("failed", "poison")]


def test_an_at_most_once_execution_is_never_repeated(link):
    worker = make_worker(link)
    run_on(link, worker, type="AT_MOST_ONCE")
    kill(link, worker)
    recovery.recover_lost_workers(link)
    assert link.execute("SELECT state, error_code FROM execution_history") == [("failed", "worker_lost")]


def test_a_cancelled_one_ends_cancelled(link):
    worker = make_worker(link)
    run_on(link, worker, cancel_requested_at="now()")
    kill(link, worker)
    assert recovery.recover_lost_workers(link).cancelled == 1


def test_a_row_past_its_deadline_or_of_an_unknown_worker_is_recovered_too(link):
    alive = make_worker(link)
    run_on(link, uuid.uuid4())
    late = run_on(link, alive)
    link.execute(
        "UPDATE execution SET deadline_at = clock_timestamp() - interval '1 s' WHERE id = %s", (late,)
    )
    assert recovery.recover_lost_workers(link).retrying == 2


def test_a_message_that_is_lost_is_pushed_again_and_one_that_waits_is_not(link, broker):
    job = make_job(link, due=None)
    old = "clock_timestamp() - interval '1 hour'"
    waiting = make_execution(link, job, queued_at=old)
    lost = make_execution(link, job, queued_at=f"{old} - interval '20 s'")
    fresh = make_execution(link, job)
    broker.push([("default", waiting), ("default", fresh)])
    broker.set_epoch("e")
    link.execute("UPDATE instance SET epoch = 'e'")
    reconcile = Reconcile(link, broker)
    assert reconcile.run_once().pushed == 1
    assert reconcile.run_once().pushed == 0
    assert broker.take(["default"], 10) == [waiting, fresh, lost]


def test_in_an_empty_list_everything_old_is_lost(link, broker):
    job = make_job(link, due=None)
    lost = make_execution(link, job, queued_at="clock_timestamp() - interval '16 s'")
    make_execution(link, job)
    broker.set_epoch("e")
    link.execute("UPDATE instance SET epoch = 'e'")
    assert Reconcile(link, broker).run_once().pushed == 1
    assert broker.take(["default"], 10) == [lost]


def test_a_stale_head_hides_nothing_for_long(link, broker):
    job = make_job(link, due=None)
    lost = make_execution(link, job, queued_at="clock_timestamp() - interval '16 s'")
    broker.push([("default", 999_999)])
    broker.set_epoch("e")
    link.execute("UPDATE instance SET epoch = 'e'")
    reconcile = Reconcile(link, broker)
    reconcile.run_once()
    assert reconcile.run_once().pushed == 1
    assert broker.take(["default"], 10) == [lost]


def test_a_wiped_redis_is_filled_again_oldest_first(link, broker):
    job = make_job(link, due=None)
    newer = make_execution(link, job)
    older = make_execution(link, job, queued_at="clock_timestamp() - interval '5 s'")
    make_execution(link, job, "pending")
    reconcile = Reconcile(link, broker)
    assert reconcile.run_once().pushed == 2
    assert broker.take(["default"], 10) == [older, newer]
    assert reconcile.run_once().pushed == 0, "the epoch stands now"


def test_a_silent_process_is_declared_dead_only_if_it_has_not_beaten_meanwhile(link):
    worker = make_worker(link)
    [pulse] = workers.pulses(link)
    workers.beat(link, worker)
    assert not workers.declare_dead(link, worker, pulse.beat)
    assert workers.declare_dead(link, worker, pulse.beat + 1)
    assert not workers.beat(link, worker), "a dead process is told so by its next beat"


def test_rows_of_the_dead_stay_while_they_own_something(link):
    worker = make_worker(link)
    run_on(link, worker)
    kill(link, worker)
    assert workers.bury(link, -1.0) == 0
    recovery.recover_lost_workers(link)
    assert workers.bury(link, -1.0) == 1

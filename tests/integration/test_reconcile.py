import json
import uuid

from jobsched import clock, log
from jobsched.db import recovery, workers
from jobsched.poller.reconcile import Reconcile
from tests.integration.factories import make_execution, make_job, make_worker


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


def states(recovery):
    return [one.state for one in recovery.recovered]


def test_a_living_workers_executions_are_left_alone(link):
    run_on(link, make_worker(link))
    assert recovery.recover_lost(link).recovered == []


def test_a_dead_workers_execution_is_retried_at_once_without_spending_a_retry(link):
    worker = make_worker(link)
    run_on(link, worker)
    kill(link, worker)
    assert states(recovery.recover_lost(link)) == ["retrying"]
    [(state, retries, lost, attempts, due)] = link.execute(
        "SELECT state, retry_count, lost, attempts, due_at <= clock_timestamp() FROM execution"
    )
    assert (state, retries, lost, due) == ("retrying", 0, 1, True)
    assert [(one["errorCode"], one["worker"]) for one in attempts] == [("worker_lost", "worker-1")]


def test_the_third_loss_is_poison(link):
    worker = make_worker(link)
    execution = run_on(link, worker, lost=2)
    kill(link, worker)
    assert states(recovery.recover_lost(link)) == ["failed"]
    assert link.execute("SELECT id, error_code FROM dead_letter") == [(execution, "poison")]
    assert link.execute("SELECT state, error_code FROM execution_history") == [("failed", "poison")]


def test_an_at_most_once_execution_is_never_repeated(link):
    worker = make_worker(link)
    run_on(link, worker, type="AT_MOST_ONCE")
    kill(link, worker)
    recovery.recover_lost(link)
    assert link.execute("SELECT state, error_code FROM execution_history") == [("failed", "worker_lost")]


def test_a_cancelled_one_ends_cancelled(link):
    worker = make_worker(link)
    run_on(link, worker, cancel_requested_at="now()")
    kill(link, worker)
    assert states(recovery.recover_lost(link)) == ["cancelled"]


def test_a_page_of_refused_rows_hides_no_other_and_is_told_in_one_line(link, broker, capsys, monkeypatch):
    monkeypatch.setattr("jobsched.poller.reconcile.BATCH", 2)
    log.configure(json=True)
    worker = make_worker(link)
    executions = [run_on(link, worker) for _ in range(5)]
    spoilt, sound = executions[:3], executions[3:]
    link.execute("UPDATE execution SET attempts = '{}', lost = 2147483647 WHERE id = ANY(%s)", (spoilt,))
    kill(link, worker)
    reconcile = Reconcile(link, broker)
    assert [reconcile.run_once().recovered for _ in range(4)] == [0, 1, 1, 0]
    assert link.execute("SELECT id FROM execution WHERE state = 'retrying' ORDER BY id") == [
        (i,) for i in sound
    ]
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [one for one in told if one["event"] == "recovery_refused"]
    assert (line["execution_ids"], line["count"], line["level"]) == (spoilt[:2], 2, "error")


def test_an_execution_of_an_unknown_worker_is_recovered_too(link):
    run_on(link, uuid.uuid4())
    assert states(recovery.recover_lost(link)) == ["retrying"]


def test_what_a_living_worker_runs_past_its_deadline_is_taken_only_once_it_was_watched(
    link, broker, monkeypatch
):
    alive = make_worker(link)
    late = run_on(link, alive)
    run_on(link, alive)
    link.execute(
        "UPDATE execution SET started_at = clock_timestamp() - interval '151 s', "
        "deadline_at = clock_timestamp() - interval '1 s' WHERE id = %s",
        (late,),
    )
    reconcile = Reconcile(link, broker)
    assert reconcile.run_once().recovered == 0
    passed = clock.monotonic() + 149.0
    monkeypatch.setattr(clock, "monotonic", lambda: passed)
    assert reconcile.run_once().recovered == 0
    passed += 2.0
    assert reconcile.run_once().recovered == 1
    assert link.execute("SELECT state FROM execution WHERE id = %s", (late,)) == [("retrying",)]


def test_a_clock_of_the_database_that_is_set_forward_takes_no_call_from_a_living_worker(link, broker):
    worker = make_worker(link)
    for _ in range(3):
        run_on(link, worker)
    # A step of two hours, as the rows see it.
    link.execute(
        "UPDATE execution SET started_at = started_at - interval '2 h', deadline_at = deadline_at - interval '2 h'"
    )
    assert Reconcile(link, broker).run_once().recovered == 0


def test_a_recovery_tells_whose_executions_became_what(link, broker, capsys):
    log.configure(json=True)
    first, second = make_worker(link, "w1"), make_worker(link, "w2")
    one, other = run_on(link, first), run_on(link, second, type="AT_MOST_ONCE")
    kill(link, first)
    kill(link, second)
    Reconcile(link, broker).run_once()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = {line["worker"]: line for line in lines if line["event"] == "executions_recovered"}
    assert (told["w1"]["retrying"], told["w1"]["failed"], told["w1"]["execution_ids"]) == (1, 0, [one])
    assert (told["w2"]["retrying"], told["w2"]["failed"], told["w2"]["execution_ids"]) == (0, 1, [other])
    assert told["w1"]["reason"] == "worker_lost"


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
    recovery.recover_lost(link)
    assert workers.bury(link, -1.0) == 1

"""Interleavings and rows that only a hand in the tables can make: what they must not do to their neighbours."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from jobsched import clock
from jobsched.callback.signing import sign
from jobsched.db import claims, firing, picture, recovery
from jobsched.db.connection import Link, convert
from jobsched.db.ended import Ended
from jobsched.db.vault import Vault
from jobsched.domain.outcome import Ending
from jobsched.errors import DatabaseRefused, DatabaseUnavailable
from jobsched.poller.fire import Fire
from jobsched.poller.reconcile import Reconcile
from jobsched.worker.attempt import call_for, verdict_of
from jobsched.worker.deliver import Deliver
from jobsched.worker.identity import Identity
from jobsched.worker.intake import Intake
from jobsched.worker.journal import Journal
from jobsched.worker.liveness import Liveness
from jobsched.worker.seats import Seats
from jobsched.worker.taking import Taking
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.transports import in_strand, running_strands


@pytest.fixture
def second(database_url):
    """Another process's connection."""
    second = Link(database_url, "second")
    yield second
    second.close()


def states(link):
    live = link.execute("SELECT id, state FROM execution")
    return dict(live + link.execute("SELECT id, state FROM execution_history"))


def fire_all(link, broker):
    fire, count = Fire(link, broker, 10_000), 0
    for _ in range(20):
        fired = fire.run_once()
        count += fired.executions
        if not fired.more:
            return count
    raise AssertionError("there is always more")


# Fire


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE job_schedule SET next_execution_time = '-infinity' WHERE job_id = {}",
        "UPDATE job_schedule SET next_slot = 'infinity' WHERE job_id = {}",
        "UPDATE job_schedule SET next_slot = NULL WHERE job_id = {}",
        "UPDATE job_schedule SET next_slot = '9999-12-31 23:59:59.9Z' WHERE job_id = {}",
        "UPDATE job_schedule SET next_slot = '0001-01-01 00:00Z' WHERE job_id = {}",
        "UPDATE job_schedule SET anchor = '20000-01-01' WHERE job_id = {}",
        "UPDATE job_schedule SET runs = 2147483647 WHERE job_id = {}",
        "UPDATE job SET end_at = 'infinity' WHERE id = {}",
        "UPDATE job SET start_at = '0044-03-15 BC' WHERE id = {}",
        "UPDATE job SET timezone = 'Mars/Base' WHERE id = {}",
        "UPDATE job SET schedule = '' WHERE id = {}",
        "UPDATE job SET misfire_grace_seconds = 'NaN' WHERE id = {}",
        "UPDATE job SET jitter_seconds = 'Infinity' WHERE id = {}",
    ],
)
def test_a_damaged_schedule_holds_up_no_other(link, broker, damage):
    before, bad, after = make_job(link), make_job(link), make_job(link)
    link.execute(damage.format(bad))
    fire_all(link, broker)
    fired = {row[0] for row in link.execute("SELECT job_id FROM execution")}
    assert fired >= {before, after}
    due = "SELECT count(*) FROM job_schedule WHERE next_execution_time <= clock_timestamp()"
    assert link.execute(due) == [(0,)]
    assert firing.outlook(link, 0.0).next_in is not None


def test_only_the_schedule_at_fault_is_set_aside_when_another_poller_comes_between(
    link, second, broker, monkeypatch
):
    bad = make_job(link, due="clock_timestamp() - interval '10 s'")
    good = make_job(link)
    link.execute("UPDATE job_schedule SET runs = 2147483647 WHERE job_id = %s", (bad,))
    transaction = Link.transaction

    @contextmanager
    def and_then_the_other_poller(self):
        try:
            with transaction(self) as cursor:
                yield cursor
        except DatabaseRefused:
            # Whatever the first one's failure has unlocked, the other one locks.
            second.raw.execute("BEGIN")
            second.raw.execute("SELECT FROM job_schedule WHERE job_id = %s FOR UPDATE SKIP LOCKED", (bad,))
            raise

    monkeypatch.setattr(Link, "transaction", and_then_the_other_poller)
    Fire(link, broker, 10_000).run_once(1)
    faults = dict(link.execute("SELECT job_id, fault FROM job_schedule"))
    assert faults[bad]
    assert faults[good] is None


def test_a_schedule_that_is_never_due_does_not_stop_the_loop(link):
    job = make_job(link)
    link.execute("UPDATE job_schedule SET next_execution_time = 'infinity' WHERE job_id = %s", (job,))
    assert firing.outlook(link, 0.0).next_in is None


# Claim


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE job SET timeout_seconds = 'NaN'",
        "UPDATE job SET timeout_seconds = 1e300",
        "UPDATE job SET timeout_seconds = -5",
        "UPDATE job SET headers = '[1]'",
        "UPDATE job SET headers = (repeat('[', 3000) || repeat(']', 3000))::json",
        "UPDATE job SET headers = ('{\"A\": ' || repeat('9', 5000) || '}')::json",
        "UPDATE execution SET scheduled_for = 'infinity'",
        "UPDATE execution SET scheduled_for = '0044-03-15 BC'",
    ],
)
def test_a_job_that_nobody_could_have_made_is_claimed_and_cannot_be_called(link, damage):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link, due=None))
    link.execute(damage)
    [claimed] = claims.claim(link, worker, [execution])
    with pytest.raises((ValueError, AttributeError)):
        call_for(claimed, "abc123", sign([b"k"]))


@pytest.mark.parametrize(
    "damage",
    ["success_status = '{2xx}'", "success_status = '{NULL}'", "no_retry_status = '{-}'"],
)
def test_a_policy_that_nobody_could_have_made_is_the_end_of_its_execution(link, damage):
    worker = make_worker(link)
    execution = make_execution(link, make_job(link, due=None))
    link.execute(f"UPDATE job SET {damage}")
    [claimed] = claims.claim(link, worker, [execution])
    verdict = verdict_of(claimed, Ending(status=500), clock.utc_now())
    assert (verdict.state, verdict.error_code) == ("failed", "invalid_job")


def test_what_was_cancelled_and_then_handed_back_is_never_sent(link):
    worker, job = make_worker(link), make_job(link, due=None)
    execution = make_execution(link, job)
    claims.claim(link, worker, [execution])
    link.execute("UPDATE execution SET cancel_requested_at = clock_timestamp()")
    claims.hand_back(link, worker, [execution])
    assert claims.claim(link, worker, [execution]) == []
    assert states(link) == {execution: "cancelled"}


def test_executions_of_a_job_that_somebody_deleted_by_hand_end(link):
    worker, job = make_worker(link), make_job(link, due=None)
    queued, running = make_execution(link, job), make_execution(link, job)
    claims.claim(link, worker, [running])
    link.execute("DELETE FROM job WHERE id = %s", (job,))
    link.execute("UPDATE worker_process SET state = 'dead'")
    assert claims.claim(link, worker, [queued]) == []
    assert len(recovery.recover_lost(link).recovered) == 1
    assert states(link) == {queued: "cancelled", running: "failed"}


def test_a_claim_locks_in_order_of_ids_wherever_the_rows_lie(link, second):
    worker, job = make_worker(link), make_job(link, due=None)
    ids = [make_execution(link, job) for _ in range(20)]
    # Now the first id is the last in the table, and in the order of its queue.
    link.execute("UPDATE execution SET queued_at = clock_timestamp() WHERE id = %s", (ids[0],))
    link.execute("SET enable_indexscan = off")  # the planner's choice must not matter
    with second.transaction() as cursor:
        cursor.execute("SELECT FROM execution WHERE id = %s FOR UPDATE", (ids[0],))
        claiming = threading.Thread(target=claims.claim, args=(link, worker, ids))
        claiming.start()
        waiting = (
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        for _ in range(500):
            if cursor.execute(waiting).fetchall():
                break
            cursor.execute("SELECT pg_sleep(0.01)")
        cursor.execute("SELECT FROM execution WHERE id = ANY(%s) ORDER BY id FOR UPDATE NOWAIT", (ids,))
    claiming.join()
    assert set(states(link).values()) == {"running"}


# Lost messages


def test_a_head_that_is_claimed_meanwhile_makes_nothing_lost(link):
    worker, job = make_worker(link), make_job(link, due=None)
    old = "clock_timestamp() - interval '1 hour'"
    head = make_execution(link, job, queued_at=old)
    for _ in range(5):
        make_execution(link, job, queued_at=old)
    claims.claim(link, worker, [head])
    assert recovery.requeue_lost(link, "default", head) == []


def test_a_clock_set_back_does_not_push_a_waiting_row_again_and_again(link):
    job = make_job(link, due=None)
    head = make_execution(link, job, queued_at="clock_timestamp() + interval '2 hours'")
    later = make_execution(link, job)
    assert recovery.requeue_lost(link, "default", head) == [later]
    assert recovery.requeue_lost(link, "default", head) == []


def test_a_message_lost_before_the_clock_was_set_back_is_found(link):
    job = make_job(link, due=None)
    lost = make_execution(link, job, queued_at="clock_timestamp() + interval '2 hours'")
    assert recovery.requeue_lost(link, "default", None) == [lost]
    assert recovery.requeue_lost(link, "default", None) == []


# Recovery and the picture


def test_one_row_that_cannot_be_recovered_stops_neither_recovery_nor_lost_messages(link, broker):
    worker, job = make_worker(link), make_job(link, due=None)
    bad, good = make_execution(link, job), make_execution(link, job)
    claims.claim(link, worker, [bad, good])
    link.execute("UPDATE worker_process SET state = 'dead'")
    link.execute("UPDATE execution SET attempts = '{}', lost = 2147483647 WHERE id = %s", (bad,))
    waiting = make_execution(link, job, queued_at="clock_timestamp() - interval '1 min'")
    broker.set_epoch("e")
    link.execute("UPDATE instance SET epoch = 'e'")
    Reconcile(link, broker).run_once()
    assert states(link)[good] == "retrying"
    assert broker.take(["default"], 10) == [waiting]


def test_a_running_row_without_a_deadline_does_not_spoil_the_picture(link):
    worker, job = make_worker(link), make_job(link, due=None)
    execution = make_execution(link, job)
    claims.claim(link, worker, [execution])
    link.execute("UPDATE execution SET deadline_at = NULL")
    [(shown, at)] = picture.read(link)["default"].started
    assert shown == execution
    assert isinstance(at, float)


# What errors say


def test_an_error_of_postgres_tells_nothing_of_the_row(link):
    worker, job = make_worker(link), make_job(link, due=None)
    execution = make_execution(link, job)
    claims.claim(link, worker, [execution])
    secret = Ended(
        execution, 1, "succeeded", 0.0, 1.0, 3, headers='{"Set-Cookie": "sesame"}', body=b"\0", status=None
    )
    link.execute("ALTER TABLE execution_history ADD CONSTRAINT none CHECK (state <> 'succeeded') NOT VALID")
    try:
        with pytest.raises(DatabaseRefused) as caught:
            claims.finish(link, worker, "w", [secret])
    finally:
        link.execute("ALTER TABLE execution_history DROP CONSTRAINT none")
    assert "sesame" not in str(caught.value)
    assert '"none"' in str(caught.value)
    with pytest.raises(DatabaseRefused) as caught:
        link.execute("SELECT %s::json", ('{"password": "sesame", x}',))
    assert "sesame" not in str(caught.value)


def test_what_is_no_fault_of_the_data_is_tried_again(link, second):
    link.execute("CREATE TABLE shape (n integer)")
    try:
        for _ in range(8):
            second.execute("SELECT n FROM shape WHERE n = %s", (1,))
        link.execute("ALTER TABLE shape ALTER n TYPE bigint")
        with pytest.raises(DatabaseUnavailable):
            second.execute("SELECT n FROM shape WHERE n = %s", (1,))
        assert second.execute("SELECT n FROM shape WHERE n = %s", (1,)) == []
    finally:
        link.execute("DROP TABLE shape")
    with link.transaction() as cursor:
        cursor.execute("SELECT 1")
    for state in ("XX000", "42501", "0A000", "26000"):
        with pytest.raises(DatabaseUnavailable):
            link.execute(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$")
    assert isinstance(convert(ValueError("x")), DatabaseRefused)


# The worker's threads


class Carrier:
    """Notes what is done to it; a turn ends what was started or aborted."""

    def __init__(self):
        self.log = []

    def start(self, call):
        self.log.append(("start", call.execution_id))

    def abort(self, execution_id, error_code, _message):
        self.log.append(("abort", execution_id, error_code))
        return True

    def turn(self, _timeout):
        self.log.append(("turn",))
        return []

    def wake(self):
        pass

    def listen(self, *_given):
        pass

    def unlisten(self, _fd):
        pass

    def close(self):
        pass


def test_a_call_that_is_no_longer_ours_is_ended_before_a_byte_of_it_is_sent():
    carrier = Carrier()
    deliver = Deliver(lambda: carrier, lambda *_: None, may_start=lambda call: call.execution_id != 2)
    deliver.start([SimpleNamespace(execution_id=1), SimpleNamespace(execution_id=2)])
    deliver._turn(carrier)
    assert carrier.log == [("start", 1), ("start", 2), ("abort", 2, "interrupted"), ("turn",)]


def test_a_transport_that_cannot_be_made_ends_the_start_instead_of_hanging_it():
    def fail():
        raise OSError("too many open files")

    deliver = Deliver(fail, lambda *_: None)
    beginning = threading.Thread(target=deliver.begin, daemon=True)
    beginning.start()
    beginning.join(5)
    assert not beginning.is_alive()
    deliver.end(5)
    assert not deliver.alive


def test_a_claim_that_hangs_does_not_stop_the_beat(link):
    seating = threading.Lock()
    liveness = Liveness(
        link,
        None,
        Seats(10),
        Identity(),
        lambda: SimpleNamespace(turns=1, abort=lambda *_: None),
        lambda: SimpleNamespace(seating=seating),
        name="w",
        pools=["default"],
    )
    liveness.run_once()
    liveness._beaten_at = float("-inf")
    looking = threading.Thread(target=liveness.run_once, daemon=True)
    with seating:
        looking.start()
        looking.join(5)
        assert not looking.is_alive()
    assert link.execute("SELECT beat FROM worker_process") == [(1,)]


def test_what_was_taken_when_the_stop_came_is_claimed_all_the_same(link, database_url, broker):
    identity, seats = Identity(), Seats(10)
    worker = identity.reborn()
    identity.prove(worker, clock.monotonic())
    recorder = SimpleNamespace(journal=Journal("w"))
    execution = make_execution(link, make_job(link, due=None))
    with running_strands() as strands:
        taking = Taking(broker, None, ["default"], seats, identity, None, strands)
        intake = Intake(database_url, taking, seats, identity, None, recorder, None, Vault(None), strands)
        taking._stopping = True
        seated = in_strand(strands, lambda: intake._claim_until_done([execution]))
        assert [seat.claimed.id for seat in seated] == [execution]
        identity.give_up()
        assert in_strand(strands, lambda: intake._claim_until_done([execution])) == []
        intake._link.close()

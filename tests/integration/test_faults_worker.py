"""What a worker's death, its lost answers and its own poverty do to executions: each is accounted for."""

import json
import os
import resource
import signal
from contextlib import closing
from pathlib import Path

import pytest

from jobsched import clock, log
from jobsched.callback.model import Call, Phases, Result
from jobsched.db import claims, recovery, workers
from jobsched.db.claims import Recorded
from jobsched.db.connection import Link
from jobsched.db.ended import Ended
from jobsched.db.vault import Vault
from jobsched.poller.reconcile import DeathWatch, Reconcile
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.worker.identity import Identity
from jobsched.worker.intake import Intake
from jobsched.worker.liveness import Liveness
from jobsched.worker.record import Recorder
from jobsched.worker.seats import Seat, Seats
from jobsched.worker.taking import Taking
from tests.conftest import eventually
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.processes import process, worker
from tests.integration.toxic import Toxic
from tests.integration.transports import in_strand, running_strands


@pytest.fixture
def broker(redis_url):
    client = connect(redis_url)
    client.flushall()
    broker = Broker(client)
    broker.set_epoch("e")
    yield broker
    client.close()


@pytest.fixture
def epoch(link, broker):
    """Redis is the one that was filled."""
    link.execute("UPDATE instance SET epoch = 'e'")


@pytest.fixture
def said(capsys):
    log.configure(json=True)

    def events():
        return [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]

    return events


def history(link, columns="state"):
    return link.execute(f"SELECT {columns} FROM execution_history ORDER BY id")


def headers(arrival):
    return {name.lower(): value for name, value in dict(arrival.headers).items()}


# Killed between two steps


@pytest.mark.parametrize(
    ("point", "type", "calls", "ends"),
    [
        ("worker.taken", "AT_LEAST_ONCE", 1, ("succeeded", 1, None)),
        ("worker.taken", "AT_MOST_ONCE", 1, ("succeeded", 1, None)),
        ("worker.claimed", "AT_LEAST_ONCE", 1, ("succeeded", 2, None)),
        ("worker.claimed", "AT_MOST_ONCE", 0, ("failed", 1, "worker_lost")),
        ("worker.answered", "AT_LEAST_ONCE", 2, ("succeeded", 2, None)),
        ("worker.answered", "AT_MOST_ONCE", 1, ("failed", 1, "worker_lost")),
        ("worker.recorded", "AT_LEAST_ONCE", 1, ("succeeded", 1, None)),
    ],
)
def test_a_worker_killed_at_any_step_loses_nothing_and_repeats_only_what_may_be(
    link, database_url, redis_url, broker, epoch, target, tmp_path, point, type, calls, ends
):
    job = make_job(link, due=None, api=f"{target.url}/ok", type=type, payload={"n": 1}, max_retry_count=0)
    execution = make_execution(link, job)
    broker.push([("default", execution)])
    with process(
        tmp_path / "log", "worker", "--name", "doomed",
        DATABASE_URL=database_url, REDIS_URL=redis_url, JOBSCHED_FAILPOINT=f"{point}:exit",
    ) as doomed:  # fmt: skip
        assert doomed.ends() == 9, doomed.said
    # What 20 s of silence and 15 s without a message bring about.
    link.execute("UPDATE worker_process SET state = 'dead'")
    link.execute("UPDATE execution SET queued_at = queued_at - interval '20 s' WHERE state = 'queued'")
    Reconcile(link, broker).run_once()
    for again in link.execute(
        "UPDATE execution SET state = 'queued', queued_at = clock_timestamp() WHERE state = 'retrying' RETURNING id"
    ):
        broker.push([("default", again[0])])

    def over():
        assert history(link, "state, attempt, error_code") == [ends]

    with worker(database_url, redis_url, "next"):
        eventually(over)
    assert len(target.arrivals) == calls
    assert len({(headers(one)["webhook-id"], one.body) for one in target.arrivals}) <= 1
    assert link.execute("SELECT count(*) FROM execution") == [(0,)]


# Answers that are lost on their way


class Shown:
    """RQ's picture, as far as a recorder draws it."""

    def __init__(self):
        self.states = []

    def ended(self, _queues, recorded):
        self.states += [one.state for one in recorded]


def result_of(claimed, status):
    call = Call(claimed.id, claimed.attempt, "POST", claimed.api, (), "", None, 30.0)
    return Result(call, status, (), b"", False, None, None, True, Phases(0, 0, 0, 0, 1), clock.utc_now())


@pytest.mark.parametrize(("status", "state", "wakes"), [(200, "succeeded", 0.0), (500, "retrying", 60.0)])
def test_an_outcome_whose_commit_was_not_answered_counts_as_recorded(
    link, database_url, broker, said, status, state, wakes
):
    me, job = make_worker(link), make_job(link, due=None, min_backoff_seconds=60, backoff_jitter=0)
    seats, shown, due_in = Seats(5), Shown(), []
    [claimed] = claims.claim(link, me, [make_execution(link, job)])
    seats.take(Seat(claimed, me))
    with (
        Toxic(database_url) as toxic,
        running_strands() as strands,
        closing(Link(toxic.url, "record", waits=strands)) as through,
    ):
        through.execute("SELECT 1")
        recorder = Recorder(through, broker, seats, shown, "worker-1", due_in.append, strands)
        toxic.lose_next_answer()
        recorder.begin()
        recorder.results([result_of(claimed, status)], clock.monotonic())
        assert toxic.has_lost()
        assert seats.wait_until_empty(10)
        recorder.end(5)
    assert shown.states == [state]
    assert due_in == [pytest.approx(wakes, abs=5)], "a poller is told as after any other commit"
    assert recorder.succeeded == (state == "succeeded")
    told = [event for event in said() if event != "attempt_failed"]
    assert told == ["recording_postponed", "outage_over"], "and nobody is told of fenced outcomes"


def test_what_a_poller_has_taken_back_meanwhile_is_fenced_all_the_same(link):
    me, job = make_worker(link), make_job(link, due=None)
    lost, poisoned = make_execution(link, job), make_execution(link, job, lost=2)
    claims.claim(link, me, [lost, poisoned])
    link.execute("UPDATE worker_process SET state = 'dead'")
    recovery.recover_lost(link)
    ended = [Ended(one, 1, "succeeded", 0.0, 1.0, 3) for one in (lost, poisoned)]
    assert claims.finish(link, me, "worker-1", ended, again=True) == []
    failed = [Ended(lost, 1, "retrying", 0.0, 1.0, 3, error_code="http_status")]
    assert claims.finish(link, me, "worker-1", failed, again=True) == []


def test_a_repeated_record_that_was_not_committed_is_written(link):
    me, job = make_worker(link), make_job(link, due=None)
    execution = make_execution(link, job)
    claims.claim(link, me, [execution])
    ended = [Ended(execution, 1, "succeeded", 0.0, 1.0, 3)]
    assert claims.finish(link, me, "worker-1", ended, again=True) == [Recorded(execution, "succeeded")]
    assert history(link, "id") == [(execution,)]


def test_a_claim_that_was_not_answered_is_given_back_also_by_a_worker_that_stops(
    link, database_url, broker, epoch
):
    """At most once, too: nothing of it was sent, so it must not count as lost."""
    job = make_job(link, due=None, type="AT_MOST_ONCE")
    ids = [make_execution(link, job) for _ in range(3)]
    seats, identity = Seats(10), Identity()
    with Toxic(database_url) as toxic, running_strands() as strands:
        recorder = Recorder(link, broker, seats, Shown(), "w1", None, strands)
        taking = Taking(broker, None, ["default"], seats, identity, None, strands)
        intake = Intake(toxic.url, taking, seats, identity, None, recorder, None, Vault(None), strands)
        liveness = Liveness(
            link, broker, seats, identity, lambda: None, lambda: intake, name="w1", pools=["default"]
        )
        liveness.run_once()
        intake._link.execute("SELECT 1")
        toxic.lose_next_answer()
        again = in_strand(strands, lambda: intake._claim_until_done(ids))
        assert again == [], "the second try finds them running already"
        assert link.execute("SELECT DISTINCT state FROM execution") == [("running",)]
        liveness.leave()
        intake._link.close()
    assert link.execute("SELECT DISTINCT state, attempt FROM execution") == [("queued", 1)]
    assert sorted(broker.take(["default"], 10)) == ids
    assert link.execute("SELECT count(*) FROM worker_process") == [(0,)]


# Postgres, seen from a worker


def test_backends_that_stand_still_stop_no_worker(link, database_url, redis_url, broker, target):
    job = make_job(link, due=None, api=f"{target.url}/ok")
    with worker(database_url, redis_url):

        def known():
            assert link.execute("SELECT count(*) FROM worker_process") == [(1,)]

        eventually(known)
        broker.push([("default", make_execution(link, job))])
        eventually(lambda: _equal(history(link), [("succeeded",)]))
        [(before,)] = link.execute("SELECT id FROM worker_process")
        pids = [
            pid
            for (pid,) in link.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' "
                "AND application_name IN ('jobsched-worker-claim', 'jobsched-worker-record', 'jobsched-worker-beat')"
            )
        ]
        assert len(pids) == 3
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            ids = [make_execution(link, job) for _ in range(5)]
            broker.push([("default", one) for one in ids])

            def recorded():
                assert history(link, "state, attempt") == [("succeeded", 1)] * 6

            # 7 s for the claim, 7 s for the record.
            eventually(recorded, 25)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert link.execute("SELECT id, state FROM worker_process") == [(before, "alive")]
    assert len(target.arrivals) == 6


def test_losses_without_a_workers_death_make_no_poison(link, broker, epoch, monkeypatch):
    """Three outages of the database in the life of one call, each longer than a worker may be silent."""
    me = make_worker(link)
    execution = make_execution(link, make_job(link, due=None), lost=2)
    claims.claim(link, me, [execution])
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    deaths, reconcile = DeathWatch(link), Reconcile(link, broker)
    for _ in range(3):
        assert deaths.run_once() == reconcile.run_once().recovered == 0
        now[0] += 60.0  # nobody could read, and nobody could beat
        assert deaths.run_once() == reconcile.run_once().recovered == 0
        workers.beat(link, me)
        now[0] += 2.0
    assert link.execute("SELECT state, lost FROM execution") == [("running", 2)]


# Poverty


def test_a_worker_without_descriptors_calls_nobody_and_blames_nobody(
    link, database_url, redis_url, broker, epoch, target, tmp_path
):
    job = make_job(link, due=None, api=f"{target.url}/ok", max_retry_count=0)
    once = make_job(link, due=None, api=f"{target.url}/ok", max_retry_count=0, type="AT_MOST_ONCE")
    with process(
        tmp_path / "log", "worker", "--name", "poor", DATABASE_URL=database_url, REDIS_URL=redis_url
    ) as poor:
        broker.push([("default", make_execution(link, job))])
        target.wait_for(1, 30)
        eventually(lambda: _equal(history(link), [("succeeded",)]))
        broken = target.connections_made
        _soft, hard = resource.prlimit(poor.pid, resource.RLIMIT_NOFILE)
        # Below what is open: not one more, whatever is closed meanwhile.
        resource.prlimit(poor.pid, resource.RLIMIT_NOFILE, (3, hard))
        waiting = [make_execution(link, one) for one in (job, once, job)]
        # By name and by address.
        broker.push([("default", one) for one in waiting])
        poor.says("descriptors_exhausted")
        [(beat,)] = link.execute("SELECT beat FROM worker_process")

        def beats():
            assert link.execute("SELECT beat > %s FROM worker_process", (beat,)) == [(True,)]

        eventually(beats)
        rows = link.execute("SELECT retry_count, lost, attempts FROM execution")
        assert set(map(str, rows)) <= {str((0, 0, []))}
        assert target.connections_made == broken
        resource.prlimit(poor.pid, resource.RLIMIT_NOFILE, (hard, hard))

        def recovered():
            # It may have had no descriptor to give them back to Redis with: then their messages are lost.
            link.execute(
                "UPDATE execution SET queued_at = queued_at - interval '20 s' WHERE state = 'queued'"
            )
            Reconcile(link, broker).run_once()
            assert history(link) == [("succeeded",)] * 4

        eventually(recovered, 20)
        poor.says("outage_over")
    assert len(target.arrivals) == 4
    assert link.execute("SELECT DISTINCT retry_count FROM execution_history") == [(0,)]


# It dies in its own round: what strikes from another thread can find it named and not begun, and miss it.
_DYING = """
import sys
from jobsched.config import load_settings
from jobsched.wiring import run_worker
from jobsched.worker.liveness import Liveness

Liveness._abort_cancelled = lambda self: sys.exit()
try:
    run_worker(load_settings(), "dying")
except Exception as error:
    print(f"ended: {error}", flush=True)
    sys.exit(1)
"""


def test_a_worker_whose_liveness_thread_has_died_ends_and_says_so(
    link, database_url, redis_url, broker, tmp_path: Path
):
    with process(
        tmp_path / "log",
        code=_DYING,
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        JOBSCHED_SHUTDOWN_GRACE="6",
    ) as dying:
        assert dying.ends() == 1
    assert '"worker_broken"' in dying.said
    assert "The thread liveness of worker dying has ended by itself." in dying.said


def test_an_old_worker_serves_rows_of_a_newer_schema(fresh_database_url):
    """During an upgrade the schema is ahead of the workers: what they do not know, they leave alone."""
    link = Link(fresh_database_url, "test")
    job = make_job(link, due=None)
    link.execute("ALTER TABLE job ADD COLUMN invented text NOT NULL DEFAULT 'x'")
    link.execute("ALTER TABLE execution ADD COLUMN invented jsonb")
    link.execute("ALTER TABLE execution_history ADD COLUMN invented jsonb")
    me, execution = make_worker(link), make_execution(link, job, invented="'{}'")
    assert [one.id for one in claims.claim(link, me, [execution])] == [execution]
    ended = [Ended(execution, 1, "succeeded", 0.0, 1.0, 3)]
    assert claims.finish(link, me, "worker-1", ended) == [Recorded(execution, "succeeded")]
    link.close()


def _equal(found, wanted):
    assert found == wanted

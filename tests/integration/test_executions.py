import json
import random
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobsched.clock import rfc3339 as shown
from jobsched.db.connection import open_pool
from jobsched.db.executions import DeadLetterRecord, ExecutionRecord
from jobsched.errors import NotFound
from tests.integration.stored import Stored

SLOT = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = {
    "attempt": 1, "startedAt": "2026-01-01T00:00:01.123456+00:00", "finishedAt": "2026-01-01T00:00:02+00:00",
    "responseStatus": 503, "errorCode": "http_status", "errorMessage": "The target answered 503.",
    "phases": {"totalMs": 876.5}, "worker": "w1",
}  # fmt: skip
SHOWN = ATTEMPT | {"startedAt": "2026-01-01T00:00:01.123Z", "finishedAt": "2026-01-01T00:00:02.000Z"}


@pytest.fixture
def stored(database_url):
    pool = open_pool(database_url, "test", 10)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def ids(page):
    return [item.id for item in page.items]


def test_an_execution_that_waits_for_a_retry_tells_of_its_last_attempt(stored):
    job = stored.job(max_retry_count=7)
    execution = stored.execution(
        job, "retrying", attempt=1, retry_count=1, attempts=json.dumps([ATTEMPT]), job_version=1
    )
    assert stored.executions.get(1, execution) == ExecutionRecord(
        id=execution, project_id=1, job_id=job.id, trigger="manual", state="retrying", scheduled_for=shown(SLOT),
        due_at=shown(SLOT), queued_at=None, started_at=SHOWN["startedAt"],
        finished_at=None, execution_duration_ms=None, attempt=1, retry_count=1, max_retry_count=7, worker="w1",
        response_status=503, response_headers=None, response_body=None, response_truncated=False,
        error_code="http_status", error_message="The target answered 503.", job_version=1,
        phases={"totalMs": 876.5}, attempts=[SHOWN], skipped_count=None, redrive_of=None,
    )  # fmt: skip


def test_a_running_execution_names_its_worker(stored):
    worker = uuid.uuid4()
    stored.sql(
        "INSERT INTO worker_process (id, kind, name, host, pid) VALUES (%s, 'worker', 'w9', 'h', 1)", worker
    )
    started = SLOT + timedelta(minutes=1)
    execution = stored.execution(
        stored.job(),
        "running",
        attempt=2,
        worker_id=worker,
        started_at=started,
        attempts=json.dumps([ATTEMPT]),
    )
    found = stored.executions.get(1, execution)
    assert (found.worker, found.started_at, found.attempts) == ("w9", shown(started), [SHOWN])


def test_the_attempt_that_ended_an_execution_is_among_its_attempts(stored):
    started, finished = SLOT + timedelta(seconds=3), SLOT + timedelta(seconds=4)
    execution = stored.finished(
        stored.job(), "succeeded", attempt=2, retry_count=1, attempts=json.dumps([ATTEMPT]), worker="w2",
        started_at=started, finished_at=finished, response_status=200, response_body=b"\xff\0ok",
        response_headers='[["A", "b"]]', phases='{"totalMs": 5}', duration_ms=1000.0,
    )  # fmt: skip
    found = stored.executions.get(1, execution)
    assert found.attempts == [
        SHOWN,
        {
            "attempt": 2, "startedAt": "2026-01-01T00:00:03.000Z", "finishedAt": "2026-01-01T00:00:04.000Z",
            "responseStatus": 200, "errorCode": None, "errorMessage": None, "phases": {"totalMs": 5},
            "worker": "w2",
        },
    ]  # fmt: skip
    assert (found.response_status, found.response_body, found.worker) == (200, b"\xff\0ok", "w2")


def test_what_never_ran_has_no_attempts(stored):
    execution = stored.finished(
        stored.job(), "skipped", attempt=0, error_code="misfire", skipped_count=12, due_at=None
    )
    found = stored.executions.get(1, execution)
    assert (found.attempts, found.skipped_count, found.error_code) == ([], 12, "misfire")


@pytest.mark.parametrize("execution_id", [0, -5, 999, 2**63])
def test_unknown_ids_and_other_projects_are_not_found(stored, execution_id):
    mine = stored.execution(stored.job())
    for project, wanted in ((1, execution_id), (2, mine)):
        for call in (stored.executions.get, stored.executions.dead_letter):
            with pytest.raises(NotFound):
                call(project, wanted)


def test_a_list_holds_live_and_finished_ones_newest_first(stored):
    job, other = stored.job(), stored.job()
    made = []
    for number in range(3):
        made.append(stored.execution(job, "pending" if number else "retrying"))
        made.append(stored.finished(job, "succeeded" if number else "failed"))
        made.append(stored.finished(other, "cancelled", trigger="manual"))
    page = stored.executions.page
    assert ids(page(1, limit=99)) == made[::-1]
    assert ids(page(1, limit=99, job_id=other.id)) == made[2::3][::-1]
    assert ids(page(1, limit=99, states=["retrying", "failed"])) == [made[1], made[0]]
    assert ids(page(1, limit=99, states=["pending"])) == [made[6], made[3]]
    assert ids(page(1, limit=99, states=["succeeded"], job_id=job.id)) == [made[7], made[4]]
    assert ids(page(1, limit=99, trigger="schedule")) == made[1::3][::-1]
    assert ids(page(1, limit=99, states=["nonsense"])) == ids(page(2, limit=99)) == []


def test_pages_join_without_gap_though_executions_finish_between_them(stored):
    job = stored.job()
    made = [stored.execution(job) for _ in range(6)]
    seen, before = [], None
    for _ in range(3):
        page = stored.executions.page(1, limit=2, before_id=before)
        seen += ids(page)
        before = page.next_before
        stored.moves.cancel(1, seen[-2])
        if before == made[4]:
            stored.moves.cancel(1, made[0])  # which is on the last page
            stored.moves.cancel(1, made[2])
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 6
    assert before is None


def test_a_list_sees_each_execution_once_while_they_finish(stored):
    job = stored.job()
    made = [stored.execution(job) for _ in range(150)]
    stop = threading.Event()

    def finish_them():
        for execution in made:
            stored.moves.cancel(1, execution)
        stored.pool.close()
        stop.set()

    thread = threading.Thread(target=finish_them)
    thread.start()
    while not stop.is_set():
        assert ids(stored.executions.page(1, limit=500)) == made[::-1]
    thread.join()


def test_bounds_hold_for_the_slot_from_inclusive_to_exclusive(stored):
    job = stored.job()
    made = [
        stored.finished(
            job, scheduled_for=SLOT + timedelta(days=n), finished_at=SLOT + timedelta(days=n, hours=1)
        )
        for n in range(3)
    ]
    live = stored.execution(job, scheduled_for=SLOT + timedelta(days=1))
    page = stored.executions.page(1, limit=9, from_=SLOT + timedelta(days=1), to=SLOT + timedelta(days=2))
    assert ids(page) == [live, made[1]]


def test_a_lower_bound_leaves_out_the_days_before_it(stored):
    with stored.link.transaction() as cursor:
        cursor.execute(
            "EXPLAIN SELECT 1 FROM execution_history e WHERE e.finished_at >= clock_timestamp()::date + 1 "
            "AND e.finished_at >= %s",
            (datetime.now(UTC) + timedelta(days=10),),
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert plan.count("Scan on execution_history_2") <= 5


def test_any_time_asked_for_gives_what_reading_everything_gives(stored):
    """History of ten days with busy minutes and gaps, slots that ran late or were retried, and every way to ask."""
    chance = random.Random(5)
    now = datetime.now(UTC)
    jobs = [stored.job() for _ in range(2)]
    slots = [
        now - timedelta(days=chance.choice([1, 2, 2, 6, 9]), seconds=chance.uniform(0, 90))
        for _ in range(400)
    ]
    slots += [now - timedelta(days=chance.uniform(0, 10)) for _ in range(200)]
    # Ids in the order of firing; some fire days after their slot, but none is over in days to come.
    fired = sorted(
        (min(now, slot + timedelta(days=2 if chance.random() < 0.04 else 0)), slot) for slot in slots
    )
    known = []
    for at, slot in fired:
        job, state = chance.choice(jobs), chance.choice(["succeeded"] * 6 + ["failed", "skipped"])
        trigger = chance.choice(["schedule"] * 4 + ["manual"])
        columns = {"scheduled_for": slot, "finished_at": at + timedelta(seconds=1), "trigger": trigger}
        known.append((stored.finished(job, state, **columns), job.id, state, trigger, slot))
    known.reverse()
    for _ in range(150):
        to = chance.choice(
            [now, now - timedelta(days=2, seconds=45), now - timedelta(days=chance.uniform(-1, 12))]
        )
        from_ = chance.choice([None, None, to - timedelta(seconds=chance.choice([0.5, 20, 4000, 200_000]))])
        states = chance.choice(
            [(), (), ("failed",), ("failed", "skipped"), ("succeeded", "failed", "running")]
        )
        trigger = chance.choice([None, None, "manual", "schedule", "redrive"])
        job_id = chance.choice([None, None, None, jobs[0].id])
        before = chance.choice([None, None, known[200][0]])
        wanted = [
            i
            for i, job, state, how, slot in known
            if slot < to
            and (from_ is None or slot >= from_)
            and (not states or state in states)
            and trigger in (None, how)
            and job_id in (None, job)
            and (before is None or i < before)
        ]
        page = stored.executions.page(
            1, limit=7, to=to, from_=from_, states=states, trigger=trigger, job_id=job_id, before_id=before
        )
        assert ids(page) == wanted[:7]
        assert page.next_before == (wanted[6] if len(wanted) > 7 else None)


def test_days_to_come_are_read_for_who_asks_for_a_time_to_come(stored):
    """A clock that went wrong has written there; else these days are as empty as they look."""
    now = datetime.now(UTC)
    job = stored.job()
    ahead = stored.finished(job, scheduled_for=now, finished_at=now + timedelta(days=10))
    today = stored.finished(job, scheduled_for=now, finished_at=now + timedelta(hours=1))
    assert ids(stored.executions.page(1, limit=9)) == [today]
    assert ids(stored.executions.page(1, limit=9, job_id=job.id)) == [today]
    assert ids(stored.executions.page(1, limit=9, to=now + timedelta(days=1))) == [today, ahead]
    assert stored.executions.get(1, ahead).id == ahead


@pytest.mark.parametrize("to", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_time_may_be_asked_for(stored, to):
    finished = stored.finished(stored.job())
    assert ids(stored.executions.page(1, limit=5, to=to)) == ([finished] if to.year > 2026 else [])


def test_dead_letters_are_listed_and_filtered(stored):
    job, other = stored.job(), stored.job()
    a = stored.dead_letter(job, payload='{"b": 1, "a": null}', last_attempt=json.dumps(ATTEMPT))
    b = stored.dead_letter(other, error_code="timeout", response_status=None)
    c = stored.dead_letter(job, scheduled_for="2026-02-01T00:00:00Z")
    letters = stored.executions.dead_letters
    assert ids(letters(1, limit=9)) == [c, b, a]
    assert ids(letters(1, limit=9, job_id=job.id)) == [c, a]
    assert ids(letters(1, limit=9, error_code="timeout")) == [b]
    assert ids(letters(1, limit=9, error_code="\0")) == ids(letters(2, limit=9)) == []
    assert ids(letters(1, limit=9, from_=SLOT, to=SLOT + timedelta(days=1))) == [b, a]
    first = letters(1, limit=2)
    assert ids(letters(1, limit=2, before_id=first.next_before)) == [a]
    assert stored.executions.dead_letter(1, a) == DeadLetterRecord(
        id=a, project_id=1, job_id=job.id, trigger="schedule", scheduled_for=shown(SLOT),
        failed_at=shown(SLOT + timedelta(minutes=1)), attempt=4, retry_count=3, response_status=500,
        error_code="http_status", error_message="The target answered 500.", payload={"b": 1, "a": None},
        last_attempt=SHOWN, queue="default",
    )  # fmt: skip

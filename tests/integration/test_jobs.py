import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from jobsched.db.connection import open_pool
from jobsched.db.jobs import Saved
from jobsched.errors import Conflict, NotFound, PreconditionFailed
from tests.conftest import eventually
from tests.integration.stored import DAILY, Stored, at_once


@pytest.fixture
def stored(database_url):
    pool = open_pool(database_url, "test", 10)
    stored = Stored(pool, database_url)
    yield stored
    stored.link.close()
    pool.close_all()


def ids(page):
    return [job.id for job in page.items]


def test_a_job_is_read_as_it_was_written(stored):
    spec = replace(
        DAILY,
        key="k", name="n", description="d", headers={"X-B": "1", "X-A": "2"}, secret_headers=("X-B",),
        payload={"b": [1, None, 1.5, "ü\U0001f600"], "a": {"deep": True}}, tags=("x", "y"), max_runs=3,
        success_status=("200-299", "404"), no_retry_status=("500-599",), priority=9, pool="gpu", jitter_seconds=2.5,
    )  # fmt: skip
    saved = stored.jobs.create(1, spec)
    job = stored.jobs.get(1, saved.job.id)
    assert job == saved.job
    assert job.spec == spec
    assert list(job.spec.headers) == ["X-B", "X-A"]
    assert list(job.spec.payload) == ["b", "a"]
    assert (job.version, job.runs, job.last_slot, job.last_state) == (1, 0, None, None)
    assert job.next_slot.hour == 0
    assert job.next_slot <= job.next_execution_time < job.next_slot + timedelta(seconds=2.5)
    assert not saved.due_soon


def test_what_is_due_before_pollers_look_again_says_so(stored):
    assert stored.jobs.create(1, replace(DAILY, schedule="@every 2s")).due_soon
    assert stored.jobs.create(1, replace(DAILY, schedule="2020-01-01T00:00:00Z", is_recurring=False)).due_soon
    assert not stored.jobs.create(1, replace(DAILY, schedule="@every 1h")).due_soon


def test_keys_are_unique_among_living_jobs_of_a_project(stored):
    first = stored.job(key="k")
    with pytest.raises(Conflict):
        stored.job(key="k")
    other = stored.job(key="other")
    with pytest.raises(Conflict):
        stored.jobs.update(1, other.id, lambda job: replace(job.spec, key="k"))
    assert stored.jobs.find_key(1, "k") == first
    assert stored.jobs.find_key(2, "k") is None
    assert stored.jobs.find_key(1, "k\0") is None
    stored.jobs.delete(1, first.id)
    assert stored.jobs.find_key(1, "k") is None
    stored.job(key="k")


def test_two_creations_with_one_key_make_one_job(stored):
    results = at_once(stored.pool, *[lambda: stored.jobs.create(1, replace(DAILY, key="k"))] * 4)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 3 + ["Saved"]
    assert len(stored.jobs.page(1, limit=10).items) == 1


def test_nothing_is_left_of_a_creation_that_failed(stored):
    stored.job(key="k")
    with pytest.raises(Conflict):
        stored.job(key="k")
    assert stored.sql("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM job_schedule)") == [(1, 1)]


@pytest.mark.parametrize("job_id", [0, -1, 999, 2**63, 10**30])
def test_unknown_ids_are_not_found(stored, job_id):
    for call in (stored.jobs.get, stored.jobs.delete, stored.jobs.pause):
        with pytest.raises(NotFound):
            call(1, job_id)
    assert not stored.jobs.known(1, job_id)


def test_another_project_sees_and_touches_nothing(stored):
    job = stored.job()
    for call in (stored.jobs.get, stored.jobs.delete, stored.jobs.pause, stored.moves.run_now):
        with pytest.raises(NotFound):
            call(2, job.id)
    assert stored.jobs.page(2, limit=10).items == []


def test_pages_go_from_the_newest_to_the_oldest_and_end(stored):
    made = [stored.job().id for _ in range(5)]
    first = stored.jobs.page(1, limit=2)
    assert ids(first) == made[:-3:-1]
    stored.job()  # what comes later is not among the pages that follow
    second = stored.jobs.page(1, limit=2, before_id=first.next_before)
    third = stored.jobs.page(1, limit=2, before_id=second.next_before)
    assert ids(first) + ids(second) + ids(third) == made[::-1]
    assert third.next_before is None
    assert stored.jobs.page(1, limit=3, before_id=made[3]).next_before is None


def test_filters_narrow_a_list_together(stored):
    a = stored.job(name="Report 50%", tags=("x", "y"), pool="gpu").id
    b = stored.job(description="a REPORT", tags=("y",), is_active=False).id
    c = stored.job(key="report_key", tags=("z",)).id
    d = stored.job(api="https://example.com/report").id
    stored.sql("INSERT INTO job_last VALUES (%s, now(), 'failed'), (%s, now(), 'succeeded')", a, b)
    page = stored.jobs.page
    assert ids(page(1, limit=9, q="report")) == [d, c, b, a]
    assert ids(page(1, limit=9, q="50%")) == [a]
    assert ids(page(1, limit=9, q="t_k")) == [c]
    assert ids(page(1, limit=9, q="\\")) == []
    assert ids(page(1, limit=9, tags=["x", "z"])) == [c, a]
    assert ids(page(1, limit=9, tags=["y"], is_active=True)) == [a]
    assert ids(page(1, limit=9, is_active=False)) == [b]
    assert ids(page(1, limit=9, pool="gpu")) == [a]
    assert ids(page(1, limit=9, states=["failed", "succeeded"])) == [b, a]
    assert ids(page(1, limit=9, q="\0")) == ids(page(1, limit=9, tags=["\ud800"])) == []


def test_an_edit_counts_a_version_and_leaves_the_schedule_alone(stored):
    job = stored.job(schedule="@every 1h")
    before = stored.sql("SELECT xmin, * FROM job_schedule")
    edited = stored.jobs.update(1, job.id, lambda present: replace(present.spec, name="n"), if_version=1).job
    assert edited == job._replace(spec=replace(job.spec, name="n"), version=2, updated_at=edited.updated_at)
    assert edited.updated_at > job.updated_at
    assert stored.sql("SELECT xmin, * FROM job_schedule") == before


def test_an_edit_that_changes_nothing_writes_nothing(stored):
    job = stored.job(payload={"a": 1})
    assert stored.jobs.update(1, job.id, lambda present: replace(present.spec)) == Saved(job, False)
    changed = stored.jobs.update(1, job.id, lambda present: replace(present.spec, payload={"a": True}))
    assert changed.job.version == 2


def test_an_edit_of_another_version_is_refused_before_it_is_computed(stored):
    job = stored.job()
    with pytest.raises(PreconditionFailed):
        stored.jobs.update(1, job.id, lambda present: pytest.fail("computed"), if_version=2)
    with pytest.raises(PreconditionFailed):
        stored.jobs.delete(1, job.id, if_version=2)
    assert stored.jobs.get(1, job.id) == job


def test_of_edits_at_once_with_one_version_one_wins(stored):
    job = stored.job()

    def rename(name):
        return lambda: stored.jobs.update(1, job.id, lambda present: replace(present.spec, name=name), 1)

    results = at_once(stored.pool, *[rename(str(number)) for number in range(4)])
    assert sorted(type(result).__name__ for result in results) == ["PreconditionFailed"] * 3 + ["Saved"]
    assert stored.jobs.get(1, job.id).version == 2


def test_edits_at_once_build_on_each_other(stored):
    job = stored.job()

    def more():
        return stored.jobs.update(
            1, job.id, lambda present: replace(present.spec, tags=(*present.spec.tags, "t"))
        )

    at_once(stored.pool, *[more] * 6)
    assert stored.jobs.get(1, job.id).spec.tags == ("t",) * 6


def test_a_changed_schedule_never_goes_back_to_a_slot_that_fired(stored):
    job = stored.job(schedule="@hourly")
    stored.sql("UPDATE job_schedule SET last_slot = date_trunc('hour', now()) + interval '3 hours'")
    edited = stored.jobs.update(1, job.id, lambda present: replace(present.spec, schedule="0 */1 * * *")).job
    assert edited.next_slot == edited.last_slot + timedelta(hours=1)


def test_pause_and_resume_can_be_repeated_and_count_from_now(stored):
    job = stored.job(schedule="@every 1h")
    stored.sql("UPDATE job_schedule SET anchor = anchor - interval '200 minutes'")
    for _ in range(2):
        paused = stored.jobs.pause(1, job.id).job
        assert (paused.spec.is_active, paused.next_execution_time, paused.version) == (False, None, 2)
    for _ in range(2):
        resumed = stored.jobs.resume(1, job.id).job
        assert (resumed.spec.is_active, resumed.version) == (True, 3)
        assert resumed.next_slot == job.anchor + timedelta(minutes=40)


def test_a_new_payload_leaves_executions_that_have_begun_with_the_old_one(stored):
    job = stored.job(payload={"v": 1})
    waiting = stored.execution(job)
    running = stored.execution(job, "running", attempt=1)
    overridden = stored.execution(job, "retrying", attempt=2, payload='"mine"')
    other = stored.execution(stored.job(), "running", attempt=1)
    stored.jobs.update(1, job.id, lambda present: replace(present.spec, payload={"v": 2}))
    rows = dict(stored.sql("SELECT id, payload::text FROM execution"))
    assert rows == {waiting: None, running: '{"v":1}', overridden: '"mine"', other: None}


def test_a_first_payload_leaves_executions_that_have_begun_without_one(stored):
    job = stored.job()
    stored.execution(job, "running", attempt=1)
    stored.jobs.update(1, job.id, lambda present: replace(present.spec, payload=1))
    assert stored.sql("SELECT payload::text FROM execution") == [("null",)]


def test_delete_cancels_what_waits_and_lets_run_what_runs(stored):
    job = stored.job()
    waiting = [stored.execution(job, state) for state in ("pending", "queued", "retrying", "blocked")]
    running = stored.execution(job, "running", attempt=1)
    kept = stored.execution(stored.job())
    stored.jobs.delete(1, job.id)
    assert [row[0] for row in stored.sql("SELECT id FROM execution ORDER BY id")] == [running, kept]
    page = stored.executions.page(1, limit=10, job_id=job.id, states=["cancelled"])
    assert [one.id for one in page.items] == waiting[::-1]
    assert {one.error_message for one in page.items} == {"The job was deleted."}
    assert stored.jobs.known(1, job.id)
    for call in (stored.jobs.get, stored.jobs.delete, stored.jobs.resume, stored.moves.run_now):
        with pytest.raises(NotFound):
            call(1, job.id)
    row = stored.sql("SELECT next_slot, next_execution_time FROM job_schedule WHERE job_id = %s", job.id)
    assert row == [(None, None)]


def test_run_now_and_delete_at_once_leave_nothing_waiting(stored):
    for _ in range(10):
        job = stored.job()
        at_once(
            stored.pool,
            lambda job=job: stored.moves.run_now(1, job.id),
            lambda job=job: stored.jobs.delete(1, job.id),
            lambda job=job: stored.moves.run_now(1, job.id),
        )
    assert stored.sql("SELECT count(*) FROM execution") == [(0,)]


def test_an_edit_waits_for_a_firing_and_sees_its_slot(stored):
    job = stored.job(schedule="@hourly")
    result = []
    with stored.link.transaction() as cursor:
        cursor.execute("SELECT 1 FROM job_schedule WHERE job_id = %s FOR UPDATE", (job.id,))
        edit = threading.Thread(
            target=lambda: result.append(
                stored.jobs.update(1, job.id, lambda present: replace(present.spec, schedule="0 */1 * * *"))
            )
        )
        edit.start()
        beside = Stored(stored.pool, stored.url)
        eventually(lambda: _assert_waiting(beside))
        cursor.execute(
            "UPDATE job_schedule SET last_slot = next_slot, next_slot = next_slot + interval '1 h'"
        )
    edit.join()
    beside.link.close()
    assert result[0].job.next_slot == job.next_slot + timedelta(hours=1)


def _assert_waiting(beside):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    assert beside.sql(waiting) == [(1,)]

"""Writing many jobs at once: rows as single creates make them, all or nothing, safe beside others."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsched.db.bulk import BulkJobs, Created
from jobsched.db.connection import open_pool
from jobsched.domain.bulk import BulkReader, NotAtOnce
from jobsched.domain.spec import parse_job_create
from tests.conftest import eventually
from tests.integration.stored import Stored, at_once

JOB = {"schedule": "@every 1h", "api": "https://example.com/hook"}
LATER = (datetime.now(UTC) + timedelta(days=400)).isoformat()


@pytest.fixture
def stored(database_url):
    pool = open_pool(database_url, "test", 8)
    stored = Stored(pool, database_url)
    stored.bulk = BulkJobs(pool)
    yield stored
    stored.link.close()
    pool.close_all()


def read(*documents: Any) -> BulkReader:
    reader = BulkReader(lambda _: None)
    for document in documents:
        reader.add(document, "\\ud800")  # the usual way for each; tests/unit/test_bulk.py compares both ways
    assert reader.faulty == []
    return reader


def create(stored, *documents: Any, partial: bool = False) -> Created | None:
    return stored.bulk.create(1, read(*documents), partial=partial)


FULL = {
    **JOB,
    "schedule": "30 9 * * MON-FRI",
    "timezone": "Europe/Berlin",
    "key": "k\tey\\n",
    "name": 'na"me\r\n',
    "description": "\\N",
    "isRecurring": False,
    "isActive": True,
    "method": "PUT",
    "headers": {"X-A": "tab\there\\", "Authorization": "Bearer x"},
    "secretHeaders": ["X-A", 'odd "name\\ {}'],
    "payload": {"a": ["\\", "\t\n", "é🙂", 1.5, None]},
    "type": "AT_MOST_ONCE",
    "maxRetryCount": 0,
    "minBackoffSeconds": 0.00001,
    "maxBackoffSeconds": 604800,
    "backoffFactor": 1.1,
    "backoffJitter": 0,
    "timeoutSeconds": 0.1,
    "successStatus": ["200-299", "404"],
    "noRetryStatus": ["400-404"],
    "followRedirects": True,
    "misfirePolicy": "skip",
    "misfireGraceSeconds": 1,
    "priority": 9,
    "pool": "gpu",
    "tags": ["", "a,b", "{}", 'q"uote', "back\\slash", "NULL", " "][1:],
    "startAt": "2020-01-01T00:00:00.123Z",
    "endAt": LATER,
    "maxRuns": 1_000_000_000,
    "jitterSeconds": 60,
}


def same_but_for_time(one, other):
    """Two jobs made within the same second or so of one definition."""
    assert (one.spec, one.version, one.runs) == (other.spec, other.version, other.runs)
    assert (one.last_slot, one.last_execution_time, one.last_state) == (None, None, None)
    assert one.created_at == one.updated_at
    assert abs(one.anchor - other.anchor) < timedelta(minutes=1)


def test_a_row_is_what_a_single_create_makes(stored):
    for document in (FULL, JOB, {**JOB, "isActive": False}, {**JOB, "schedule": "2020-01-01T00:00Z"}):
        spec = parse_job_create(document, check_target=lambda _: None)
        alone = stored.jobs.create(1, replace(spec, key=None)).job
        [job_id] = create(stored, document).ids
        job = stored.jobs.get(1, job_id)
        same_but_for_time(job._replace(spec=replace(job.spec, key=None)), alone)
        assert job.spec.key == spec.key
        if spec.schedule[0] != "@":
            assert job.next_slot == alone.next_slot


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


def test_any_text_arrives_as_it_was_sent(stored):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        st.lists(st.tuples(texts, texts, st.lists(texts.filter(bool), max_size=3)), min_size=1, max_size=5)
    )
    def run(rows):
        documents = [
            {**JOB, "name": name, "description": name[::-1], "payload": {text: text}, "tags": tags}
            for name, text, tags in rows
        ]
        found = [stored.jobs.get(1, job_id).spec for job_id in create(stored, *documents).ids]
        assert [(job.name, job.description, job.payload, list(job.tags)) for job in found] == [
            (document["name"], document["description"], document["payload"], document["tags"])
            for document in documents
        ]

    run()


def test_ids_are_in_the_order_given_and_grow(stored):
    created = create(stored, *[{**JOB, "name": str(n)} for n in range(500)])
    assert list(created.ids) == sorted(created.ids)
    assert [stored.jobs.get(1, job_id).spec.name for job_id in created.ids[::100]] == [
        "0",
        "100",
        "200",
        "300",
        "400",
    ]


def test_jitter_is_each_jobs_own(stored):
    created = create(stored, *[{**JOB, "schedule": "@daily", "jitterSeconds": 3600}] * 20)
    jobs = [stored.jobs.get(1, job_id) for job_id in created.ids]
    assert len({job.next_slot for job in jobs}) == 1
    assert len({job.next_execution_time for job in jobs}) == 20


def test_what_is_due_soon_is_told(stored):
    assert create(stored, JOB, {**JOB, "schedule": "@every 1s"}).due_soon is True
    assert (
        create(stored, JOB, {**JOB, "schedule": "@daily", "startAt": "2020-01-01T00:00:00Z"}).due_soon is True
    )
    assert create(stored, JOB).due_soon is False
    assert create(stored, {**JOB, "schedule": "@every 1s", "isActive": False}).due_soon is False


def test_a_key_that_exists_leaves_nothing_behind(stored):
    stored.job(key="b")
    reader = read(*[{**JOB, "key": key} for key in "abc"])
    assert stored.bulk.create(1, reader, partial=False) is None
    assert [(item.index, item.faults[0].pointer) for item in reader.faulty] == [(1, "/key")]
    assert stored.sql("SELECT count(*) FROM job") == [(1,)]
    assert stored.sql("SELECT count(*) FROM job_schedule") == [(1,)]


def test_partial_stores_the_rest(stored):
    stored.job(key="b")
    reader = read(*[{**JOB, "key": key} for key in "abc"])
    created = stored.bulk.create(1, reader, partial=True)
    assert [stored.jobs.get(1, job_id).spec.key for job_id in created.ids] == ["a", "c"]
    assert [item.index for item in reader.faulty] == [1]


def test_a_deleted_jobs_key_and_another_projects_are_free(stored):
    stored.jobs.delete(1, stored.job(key="a").id)
    stored.sql("INSERT INTO project (id, name) VALUES (2, 'other') RETURNING id")
    stored.bulk.create(2, read({**JOB, "key": "b"}), partial=False)
    assert len(create(stored, {**JOB, "key": "a"}, {**JOB, "key": "b"}).ids) == 2


def test_of_two_bulks_with_one_key_one_wins_and_the_other_names_it(stored):
    for _ in range(5):
        stored.sql("DELETE FROM job RETURNING id")
        keys = [f"k{n}" for n in range(40)]
        readers = [
            read(*[{**JOB, "key": key} for key in keys]),
            read(*[{**JOB, "key": key} for key in reversed(keys)]),
        ]  # fmt: skip
        results = at_once(
            stored.pool,
            *[lambda reader=reader: stored.bulk.create(1, reader, partial=False) for reader in readers],
        )
        assert sorted(result is None for result in results) == [False, True], results
        loser = readers[results.index(None)]
        assert len(loser.faulty) == 40
        assert stored.sql("SELECT count(*) FROM job") == [(40,)]


def test_a_key_that_another_transaction_is_making_is_waited_for(stored):
    reader = read({**JOB, "key": "a"}, {**JOB, "key": "b"})
    found = []
    with stored.link.transaction() as cursor:
        cursor.execute(
            "INSERT INTO job (project_id, key, schedule, api, is_recurring) "
            "VALUES (1, 'b', '@daily', 'https://example.com', true)"
        )

        def work():
            found.append(stored.bulk.create(1, reader, partial=True))
            stored.pool.close()

        thread = threading.Thread(target=work)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        eventually(lambda: assert_one(cursor.execute(waiting).fetchone()))
    thread.join(10)
    assert [stored.jobs.get(1, job_id).spec.key for job_id in found[0].ids] == ["a"]
    assert [item.index for item in reader.faulty] == [1]


@pytest.mark.parametrize("expected", [1, 2000, 3000])
def test_jobs_are_written_as_they_are_read_however_many_were_expected(stored, expected):
    jobs = read(*[{**JOB, "name": str(n), "schedule": f"@every {n + 1}s"} for n in range(2000)]).jobs
    created = stored.bulk.create_as_read(1, iter(jobs), expected)
    assert list(created.ids) == sorted(set(created.ids))
    found = [stored.jobs.get(1, job_id).spec for job_id in created.ids[::399]]
    assert [(job.name, job.schedule) for job in found] == [
        (str(n), f"@every {n + 1}s") for n in range(0, 2000, 399)
    ]
    assert created.due_soon
    assert stored.sql("SELECT count(*) FROM job JOIN job_schedule ON job_id = id") == [(2000,)]


@pytest.mark.parametrize("taken", [0, 1500, 1999])
def test_of_jobs_that_are_written_as_they_are_read_none_stays_if_a_key_exists(stored, taken):
    create(stored, {**JOB, "key": str(taken)})
    jobs = read(*[{**JOB, "key": str(n)} for n in range(2000)]).jobs
    with pytest.raises(NotAtOnce):
        stored.bulk.create_as_read(1, iter(jobs), 2000)
    assert stored.sql("SELECT count(*) FROM job") == [(1,)]
    assert stored.sql("SELECT count(*) FROM job_schedule") == [(1,)]


def assert_one(row):
    assert row == (1,)


def test_a_bulk_may_take_its_time(stored):
    with stored.pool.atomic():
        create(stored, JOB)
        assert stored.pool.execute_sql("SHOW statement_timeout").fetchone() == ("2min",)
        assert stored.pool.execute_sql("SHOW idle_in_transaction_session_timeout").fetchone() == ("1min",)
    assert stored.pool.execute_sql("SHOW statement_timeout").fetchone() == ("10s",)


def test_a_bulk_inside_a_transaction_goes_with_it(stored):
    with stored.pool.atomic() as outer:
        assert len(create(stored, JOB, JOB).ids) == 2
        outer.rollback()
    assert stored.sql("SELECT count(*) FROM job") == [(0,)]

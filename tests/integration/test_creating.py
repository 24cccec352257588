"""The time at which a job is created: carried forward from answers, judged by the database's clock."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import peewee
import pytest

from jobsched.db.connection import open_pool
from jobsched.db.creating import Creator
from jobsched.db.jobs import Jobs
from jobsched.domain.json_text import compact
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times
from jobsched.errors import Conflict
from tests.integration.stored import DAILY

HOURLY = replace(DAILY, schedule="@every 1h")


class Clock:
    """A monotonic clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def pool(database_url: str) -> Iterator[peewee.Database]:
    pool = open_pool(database_url, "test", 2)
    with pool.connection_context():
        yield pool
    pool.close_all()


def now(pool: peewee.Database) -> datetime:
    return pool.execute_sql("SELECT clock_timestamp()").fetchone()[0]


def test_a_carried_time_is_never_ahead_of_the_database(pool: peewee.Database) -> None:
    creator = Creator(pool)
    for _ in range(20):
        _id, created, times = creator.create(1, HOURLY)
        assert now(pool) - timedelta(seconds=1) < created < now(pool)
        assert timedelta(0) <= times.next_slot - created + timedelta(milliseconds=1) - timedelta(hours=1)


@pytest.mark.parametrize("wrong", [0.9, -5.0], ids=["ahead", "behind"])
def test_a_carried_time_that_is_wrong_is_refused_by_the_database_and_asked_for_anew(
    pool: peewee.Database, wrong: float
) -> None:
    clock = Clock()
    creator = Creator(pool, clock)
    creator.create(1, HOURLY)
    if wrong < 0:  # what was told lies in the past by now, and our clock has stood still
        pool.execute_sql("SELECT pg_sleep(0.2)")
    else:
        clock.seconds += wrong
    before = now(pool)
    job_id, created, times = creator.create(1, HOURLY)
    assert before <= created <= now(pool)
    stored = pool.execute_sql(
        "SELECT created_at, updated_at, next_slot, next_execution_time, anchor FROM job "
        "JOIN job_schedule ON job_id = id WHERE id = %s",
        (job_id,),
    ).fetchone()
    assert stored == (created, created, times.next_slot, times.next_execution_time, times.anchor)
    assert pool.execute_sql("SELECT count(*) FROM job").fetchone() == (2,), "what was refused left nothing"


def test_a_time_is_not_carried_for_long(pool: peewee.Database) -> None:
    clock = Clock()
    creator = Creator(pool, clock)
    _id, first, _times = creator.create(1, HOURLY)
    clock.seconds += 3600
    _id, second, _times = creator.create(1, HOURLY)
    assert second - first < timedelta(minutes=1)


def test_a_taken_key_does_not_spoil_the_callers_transaction(pool: peewee.Database) -> None:
    jobs = Jobs(pool)
    jobs.create(1, replace(HOURLY, key="k"))
    with pool.atomic():
        with pytest.raises(Conflict):
            jobs.create(1, replace(HOURLY, key="k"))
        jobs.create(1, replace(HOURLY, key="other"))
    assert pool.execute_sql("SELECT key FROM job ORDER BY id").fetchall() == [("k",), ("other",)]


def test_jobs_of_many_threads_are_all_created_each_as_it_is(database_url: str) -> None:
    pool = open_pool(database_url, "test", 8)
    creator = Creator(pool)

    def create(number: int) -> tuple[int, JobSpec, Times]:
        spec = replace(
            HOURLY,
            name=f"job {number}",
            payload=[{"n": number, "text": '\\" \x1f é'}, 2**70, 1e22],
            headers={"X-Number": str(number)},
            tags=tuple(f"tag-{n}" for n in range(number % 3)),
            schedule=f"@every {number + 1}h",
            key=f"key-{number}" if number % 4 == 0 else None,
            jitter_seconds=5.0 if number % 5 == 0 else 0.0,
        )
        made, _now, times = creator.create(1, spec)
        pool.close()
        return made, spec, times

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(create, range(120)))
    jobs = Jobs(pool)
    for job_id, spec, times in made:
        found = jobs.get(1, job_id)
        assert (found.spec, found.next_execution_time) == (spec, times.next_execution_time)
    assert len({job_id for job_id, _spec, _times in made}) == 120
    [(payload,)] = pool.execute_sql("SELECT payload::text FROM job WHERE id = %s", (made[7][0],)).fetchall()
    assert payload == compact(made[7][1].payload), "stored as it is sent"
    pool.close_all()

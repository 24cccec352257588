"""The time at which a job is created: carried forward from answers, judged by the database's clock."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import peewee
import pytest

from jobsched.db import creating
from jobsched.db.connection import Link, converted, open_pool
from jobsched.db.creating import Creator
from jobsched.db.jobs import Jobs
from jobsched.domain.json_text import compact
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times
from jobsched.errors import Conflict, DatabaseUnavailable
from tests.conftest import eventually
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


def until(condition: Callable[[], bool]) -> None:
    def check() -> None:
        assert condition()

    eventually(check)


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


def test_a_job_that_is_refused_leaves_those_that_came_with_it(
    database_url: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "_PATIENCE", 60.0)
    pool = open_pool(database_url, "test", 8)
    creator = Creator(pool)

    def create(name: str) -> int:
        try:
            return creator.create(1, replace(HOURLY, name=name))[0]
        finally:
            pool.close()

    with ThreadPoolExecutor(8) as threads:
        with link.transaction() as cursor:
            cursor.execute("LOCK TABLE job IN SHARE MODE")  # what is under way waits
            first = [threads.submit(create, "first") for _ in range(creating._AT_ONCE)]
            until(lambda: creator._gathering._free == 0)
            others = [threads.submit(create, name) for name in ("a", "no \0 here", "b")]
            until(lambda: len(creator._gathering._waiting) == 3)
        good = [future.result(10) for future in (*first, others[0], others[2])]
        with pytest.raises(peewee.DataError):
            others[1].result(10)
    assert link.execute("SELECT array_agg(id ORDER BY id) FROM job") == [(sorted(good),)]
    pool.close_all()


def test_where_the_server_goes_away_all_that_came_together_hear_that_nobody_knows(
    database_url: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "_PATIENCE", 60.0)
    pool, operator = open_pool(database_url, "together", 8), Link(database_url, "operator")
    creator = Creator(pool)
    waiting = (
        "FROM pg_stat_activity WHERE application_name = 'jobsched-together' AND wait_event_type = 'Lock'"
    )

    def create() -> None:
        try:
            with converted():
                creator.create(1, HOURLY)
        finally:
            pool.close()

    def end_all_that_wait(count: int) -> None:
        until(lambda: operator.execute(f"SELECT count(*) {waiting}") == [(count,)])
        operator.execute(f"SELECT pg_terminate_backend(pid, 5000) {waiting}")

    with ThreadPoolExecutor(8) as threads, link.transaction() as cursor:
        cursor.execute("LOCK TABLE job IN SHARE MODE")
        first = [threads.submit(create) for _ in range(creating._AT_ONCE)]
        until(lambda: creator._gathering._free == 0)
        others = [threads.submit(create) for _ in range(3)]
        until(lambda: len(creator._gathering._waiting) == 3)
        end_all_that_wait(len(first))
        # The others go together now, and wait for the same lock.
        end_all_that_wait(1)
        for future in (*first, *others):
            with pytest.raises(DatabaseUnavailable):
                future.result(10)
    assert link.execute("SELECT count(*) FROM job") == [(0,)]
    pool.close_all()
    operator.close()

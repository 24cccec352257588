"""Lists while rows come in: what was there when the first page was read comes once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobsched.db.connection import Link
from tests.integration.api_rig import Api, api
from tests.integration.factories import make_execution, make_job

__all__ = ["api"]


def all_ids(api: Api, path: str, between: Callable[[], object]) -> list[int]:
    """The ids of all pages; ``between`` runs before each but the first."""
    ids: list[int] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = api.call("GET", path, query_string=query).get_json()
        ids += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            return ids
        query["cursor"] = page["nextCursor"]
        between()


@pytest.fixture
def link(database_url: str) -> Any:
    link = Link(database_url, "beside")
    yield link
    link.close()


def test_new_jobs_neither_repeat_nor_hide_older_ones(api: Api) -> None:
    there = [api.create()["id"] for _ in range(10)]
    ids = all_ids(api, "/api/v1/jobs", api.create)
    assert ids == sorted(there, reverse=True)


def test_executions_stay_in_place_while_others_come_and_end(api: Api, link: Link) -> None:
    job = make_job(link, due=None)
    there = [make_execution(link, job) for _ in range(10)]

    def between() -> None:
        make_execution(link, job)
        # One that was listed and one that was not end: they move to the other table.
        for execution in (there[-1], there[0]):
            link.execute(
                "WITH gone AS (DELETE FROM execution WHERE id = %s RETURNING *) "
                "INSERT INTO execution_history (id, project_id, job_id, trigger, scheduled_for, state, attempt, "
                "retry_count, max_retry_count, attempts, finished_at) "
                "SELECT id, project_id, job_id, trigger, scheduled_for, 'succeeded', 1, 0, 3, '[]', now() FROM gone",
                (execution,),
            )

    assert all_ids(api, "/api/v1/executions", between) == sorted(there, reverse=True)


def test_a_row_that_commits_late_with_a_smaller_id_moves_no_other(api: Api, link: Link) -> None:
    """Ids are given out before the commit: a slow transaction shows its row in the middle of the list."""
    there = [make_job(link, due=None) for _ in range(3)]
    [(slow,)] = link.execute("SELECT nextval(pg_get_serial_sequence('job', 'id'))")
    there += [make_job(link, due=None) for _ in range(6)]
    late = iter([slow])

    def commit_late() -> None:
        for job_id in late:
            make_job(link, due=None, id=job_id)

    ids = all_ids(api, "/api/v1/jobs", commit_late)
    assert [job_id for job_id in ids if job_id != slow] == sorted(there, reverse=True)
    assert ids.count(slow) <= 1


def test_pages_hold_while_jobs_are_created_at_full_speed(api: Api) -> None:
    there = [api.create()["id"] for _ in range(30)]
    done = threading.Event()
    rounds: list[list[int]] = []

    def create() -> None:
        while not done.is_set():
            api.create()

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        rounds += [all_ids(api, "/api/v1/jobs", lambda: None) for _ in range(3)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for ids in rounds:
        assert len(ids) == len(set(ids))
        assert ids == sorted(ids, reverse=True)
        assert set(there) <= set(ids)

"""What the tests of stored jobs and executions share: a database of their own, with jobs and executions in it."""

import json
import threading
import uuid
from dataclasses import replace

from jobsched.db.connection import Link
from jobsched.db.executions import Executions
from jobsched.db.jobs import Jobs
from jobsched.db.user_moves import UserMoves
from jobsched.domain.spec import JobSpec

DAILY = JobSpec(schedule="@daily", api="https://example.com/hook", is_recurring=True)


class Stored:
    """The API's side (through the pool) and, beside it, a link to do what pollers and workers would."""

    def __init__(self, pool, url):
        self.pool = pool
        self.url = url
        self.jobs = Jobs(pool)
        self.executions = Executions(pool)
        self.moves = UserMoves(pool)
        self.link = Link(url, "beside")

    def job(self, **changes):
        return self.jobs.create(1, replace(DAILY, **changes)).job

    def sql(self, statement, *parameters):
        return self.link.execute(statement, parameters or None)

    def execution(self, job, state="pending", **columns):
        values = {
            "project_id": job.project_id, "job_id": job.id, "trigger": "manual", "state": state, "priority": 5,
            "pool": "default", "queue": "default", "scheduled_for": "2026-01-01T00:00:00Z",
            "due_at": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        if state == "running":
            values["worker_id"] = uuid.uuid4()
        values |= columns
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        return self.sql(f"INSERT INTO execution ({names}) VALUES ({marks}) RETURNING id", *values.values())[
            0
        ][0]

    def dead_letter(self, job, payload="null", **columns):
        values = {
            "project_id": job.project_id, "job_id": job.id, "trigger": "schedule", "payload": payload,
            "scheduled_for": "2026-01-01T00:00:00Z", "attempt": 4, "retry_count": 3, "response_status": 500,
            "error_code": "http_status", "error_message": "The target answered 500.", "queue": "default",
            "failed_at": "2026-01-01T00:01:00Z", "last_attempt": json.dumps({"attempt": 4}),
        } | columns  # fmt: skip
        names = ", ".join(["id", *values])
        marks = ", ".join(["nextval('execution_id_seq')", *["%s"] * len(values)])
        return self.sql(f"INSERT INTO dead_letter ({names}) VALUES ({marks}) RETURNING id", *values.values())[
            0
        ][0]

    def finished(self, job, state="succeeded", **columns):
        values = {
            "project_id": job.project_id, "job_id": job.id, "trigger": "schedule", "state": state,
            "scheduled_for": "2026-01-01T00:00:00Z", "attempt": 1, "retry_count": 0, "max_retry_count": 3,
            "attempts": "[]", "finished_at": "2026-01-01T00:00:01Z",
        } | columns  # fmt: skip
        names = ", ".join(["id", *values])
        marks = ", ".join(["nextval('execution_id_seq')", *["%s"] * len(values)])
        return self.sql(
            f"INSERT INTO execution_history ({names}) VALUES ({marks}) RETURNING id", *values.values()
        )[0][0]


def at_once(pool, *calls):
    """Run the calls in threads that start together; give what each returned or raised."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(index, call):
        barrier.wait()
        try:
            results[index] = call()
        except Exception as error:
            results[index] = error
        finally:
            pool.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results

"""Rows for tests, written straight into the tables."""

import json
import uuid
from typing import Any

from jobsched.db import workers
from jobsched.db.connection import Link


def make_job(link: Link, **fields: Any) -> int:
    """A job that is due now unless told otherwise: ``due`` is a SQL expression or None."""
    due = fields.pop("due", "clock_timestamp()")
    slot = fields.pop("slot", due)
    anchor = fields.pop("anchor", "clock_timestamp() - interval '1 day 10 minutes'")
    row = {
        "project_id": 1,
        "schedule": "@every 1h",
        "api": "http://127.0.0.1:1/",
        "is_recurring": True,
        **fields,
    }
    for name, value in row.items():
        if name in ("payload", "headers"):
            row[name] = json.dumps(value)
    names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    [(job_id,)] = link.execute(f"INSERT INTO job ({names}) VALUES ({marks}) RETURNING id", list(row.values()))
    link.execute(
        "INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor) "
        f"VALUES (%s, {slot or 'NULL'}, {due or 'NULL'}, {anchor})",
        (job_id,),
    )
    return int(job_id)


def make_execution(link: Link, job_id: int, state: str = "queued", **fields: Any) -> int:
    """An execution of ``job_id`` due now, in the default queue."""
    expressions = {
        "project_id": "1",
        "job_id": str(job_id),
        "trigger": "'manual'",
        "scheduled_for": "clock_timestamp()",
        "due_at": "clock_timestamp()",
        "state": f"'{state}'",
        "priority": "5",
        "pool": "'default'",
        "queue": "'default'",
        "queued_at": "clock_timestamp()" if state == "queued" else "NULL",
    }
    expressions |= {name: str(value) for name, value in fields.items()}
    names, values = ", ".join(expressions), ", ".join(expressions.values())
    return int(link.execute(f"INSERT INTO execution ({names}) VALUES ({values}) RETURNING id")[0][0])


def make_worker(link: Link, name: str = "worker-1") -> uuid.UUID:
    """The row of a living worker process."""
    worker = uuid.uuid4()
    workers.register(
        link, id=worker, kind="worker", name=name, host="h", pid=1, pools=["default"], concurrency=10
    )
    return worker

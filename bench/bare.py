"""What the API's single POST is held against: a Flask view that only inserts, under the same server.

    python -m bench.bare --port 8080

The same gunicorn with the same worker class and threads, the same pool of connections and the same rows of both
tables in one transaction. It checks no key and no field, knows no schedules and counts nothing. The statements are
written as fast as they can be: ``/one`` sends one that inserts both rows, ``/plain`` what most people would write,
BEGIN, two inserts and COMMIT.
"""

import json
from typing import Any

import click
from flask import Flask, Response, request
from peewee import Database

from jobsched.config import Settings, load_settings
from jobsched.db.connection import open_pool
from jobsched.db.text_format import as_text
from jobsched.domain.spec import JobSpec
from jobsched.web.server import serve

_DEFAULTS = JobSpec(schedule="", api="", is_recurring=True)
_COLUMNS = tuple(JobSpec.__dataclass_fields__)
_NAMES = tuple((name, "".join(part.title() for part in name.split("_"))) for name in _COLUMNS)
_FIELDS = tuple((name, camel[0].lower() + camel[1:]) for name, camel in _NAMES)
_JOB = (
    f"INSERT INTO job (project_id, {', '.join(_COLUMNS)}) "
    f"VALUES (1, {', '.join(['%s'] * len(_COLUMNS))}) RETURNING id, created_at"
)
_SCHEDULE = (
    "INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor) "
    "{values} RETURNING next_execution_time"
)
_TIMES = "now() + interval '1 hour', now() + interval '1 hour', now()"
_ONE = (
    f"WITH made AS ({_JOB}), planned AS ({_SCHEDULE.format(values=f'SELECT id, {_TIMES} FROM made')}) "
    "SELECT id, created_at, next_execution_time FROM made, planned"
)
_SECOND = _SCHEDULE.format(values=f"VALUES (%s, {_TIMES})")


def make_app(settings: Settings) -> Flask:
    """Two views that insert a job and its schedule."""
    app = Flask("bare", static_folder=None)
    database = open_pool(settings.need_database_url(), "bare", settings.db_pool)

    @app.post("/one")
    def one() -> Response:
        body = request.get_json()
        with database.connection_context():
            row = database.execute_sql(_ONE, _values(body)).fetchone()
        return _answer(body, *row)

    @app.post("/plain")
    def plain() -> Response:
        body = request.get_json()
        with database.connection_context():
            row = _in_a_transaction(database, body)
        return _answer(body, *row)

    @app.get("/ready")
    def ready() -> str:
        return "ok"

    return app


def _in_a_transaction(database: Database, body: dict[str, Any]) -> tuple[Any, ...]:
    with database.atomic():
        job_id, created = database.execute_sql(_JOB, _values(body)).fetchone()
        return job_id, created, *database.execute_sql(_SECOND, (job_id,)).fetchone()


def _values(body: dict[str, Any]) -> list[str | None]:
    values = {name: body.get(field, getattr(_DEFAULTS, name)) for name, field in _FIELDS}
    for name in ("headers", "payload"):
        values[name] = json.dumps(values[name])
    values["tags"] = tuple(values["tags"])
    return [as_text(value) for value in values.values()]


def _answer(body: dict[str, Any], job_id: int, created: Any, following: Any) -> Response:
    shown = {
        "id": job_id,
        **body,
        "createdAt": created.isoformat(),
        "nextExecutionTime": following.isoformat(),
    }
    return Response(json.dumps(shown), status=201, content_type="application/json")


@click.command()
@click.option("--port", type=int, required=True)
def main(port: int) -> None:
    """Serve on this machine until a stop is asked for."""
    settings = load_settings(host="127.0.0.1", port=port)
    serve(lambda: make_app(settings), settings)


if __name__ == "__main__":
    main()

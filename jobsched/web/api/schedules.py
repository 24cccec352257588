"""/api/v1/schedules"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from flask import Response
from flask_openapi3.models.tag import Tag

from jobsched.clock import utc_now
from jobsched.db.jobs import JobRecord
from jobsched.domain.preview import PreviewIn, parse_preview
from jobsched.domain.schedule import parse_schedule
from jobsched.domain.upcoming import Bounds, Run, runs_from
from jobsched.domain.words import describe
from jobsched.web import schemas_jobs, serialize
from jobsched.web.api.jobs import TAG as JOBS
from jobsched.web.auth import principal
from jobsched.web.body import read_json
from jobsched.web.params import NextQuery
from jobsched.web.routing import Api
from jobsched.web.services import Services

TAG: Final = Tag(name="schedules", description="What a schedule means, before there is a job.")


def register(api: Api, services: Services) -> None:
    """Add the routes that tell what is to come."""

    @api.route(
        "GET",
        "/api/v1/jobs/<int64:id>/next",
        tag=JOBS,
        role="read",
        answers={200: schemas_jobs.Upcoming},
        query=NextQuery,
        faults=(404,),
    )
    def next_runs(id: int, query: NextQuery) -> Response:
        """List the next runs of a job.

        With jitter, within `startAt`, `endAt` and `maxRuns`, and with a remark where a change of the clock moves
        or repeats one. A paused job has none.
        """
        record = services.jobs.get(principal().project_id, id)
        return _answer(islice(_runs(record), query.n), _described(record))

    @api.route(
        "POST",
        "/api/v1/schedules/preview",
        tag=TAG,
        role="read",
        answers={200: schemas_jobs.Upcoming},
        body=PreviewIn,
    )
    def preview_schedule() -> Response:
        """Show what a schedule would do.

        The next runs of a job that would be created now, and the schedule in words; or why it is refused.
        """
        preview = parse_preview(read_json())
        return _answer(preview.runs(utc_now()), describe(preview.schedule))


def _runs(record: JobRecord) -> Iterable[Run]:
    spec = record.spec
    if record.next_execution_time is None:
        return ()
    return runs_from(
        parse_schedule(spec.schedule, spec.timezone),
        record.next_slot,
        anchor=record.anchor,
        now=utc_now(),
        bounds=Bounds(
            start_at=spec.start_at,
            end_at=spec.end_at,
            max_runs=spec.max_runs,
            runs=record.runs,
            is_recurring=spec.is_recurring,
        ),
        job_id=record.id,
        jitter_seconds=spec.jitter_seconds,
    )


def _described(record: JobRecord) -> str:
    spec = record.spec
    schedule = parse_schedule(spec.schedule, spec.timezone)
    text = describe(schedule, recurring=spec.is_recurring or not schedule.recurring)
    return text if spec.is_active else f"{text}; paused"


def _answer(runs: Iterable[Run], description: str) -> Response:
    return serialize.answer({"items": [run.shown() for run in runs], "description": description})

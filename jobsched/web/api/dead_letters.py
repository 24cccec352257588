"""/api/v1/dead-letters"""

from contextlib import suppress

from flask import Response
from flask_openapi3.models.tag import Tag

from jobsched.domain.requests import (
    JOBS_PAYLOAD,
    DiscardIn,
    RedriveIn,
    check_payload,
    parse_discard,
    parse_redrive,
)
from jobsched.errors import NotFound
from jobsched.web import schemas, serialize
from jobsched.web.auth import principal
from jobsched.web.body import read_json
from jobsched.web.params import DeadLettersQuery, before_id
from jobsched.web.routing import Api
from jobsched.web.services import Services

TAG = Tag(name="dead letters", description="What failed for good, kept until redriven or discarded.")

_ALL = "/api/v1/dead-letters"


def register(api: Api, services: Services) -> None:
    """Add the routes of dead letters."""

    def method_of_dead(id: int) -> str:
        project = principal().project_id
        return services.jobs.get(project, services.executions.dead_letter(project, id).job_id).spec.method

    @api.route(
        "GET", _ALL, tag=TAG, role="read", answers={200: schemas.DeadLetterPage}, query=DeadLettersQuery
    )
    def list_dead_letters(query: DeadLettersQuery) -> Response:
        """List dead letters.

        Newest first by id, which is that of the execution that failed.
        """
        found = services.executions.dead_letters(
            principal().project_id,
            limit=query.limit,
            before_id=before_id("dead-letters", query.cursor),
            job_id=query.jobId,
            error_code=query.errorCode,
            from_=query.from_,
            to=query.to,
        )
        return serialize.page("dead-letters", found, serialize.dead_letter)

    @api.route(
        "POST",
        f"{_ALL}/redrive",
        tag=TAG,
        role="write",
        answers={202: schemas.Redrive},
        body=RedriveIn,
        faults=(409,),
        headers=("Location",),
    )
    def redrive_dead_letters() -> Response:
        """Send dead letters again.

        Each becomes a new execution of its job as it is now. An empty selector is 422 and never means all;
        `{"filter": {"all": true}}` does.
        """
        redrive = parse_redrive(read_json())
        if redrive.payload is not JOBS_PAYLOAD and redrive.selector.ids:
            # What is not there (any more) matches nothing, or is the conflict that the redrive itself finds.
            with suppress(NotFound):
                check_payload(redrive.payload, method_of_dead(redrive.selector.ids[0]))
        redriven = services.moves.redrive(principal().project_id, redrive)
        services.wake()
        location = {"Location": f"{_ALL}/redrives/{redriven.id}"}
        return serialize.answer({"id": redriven.id, "matched": redriven.matched}, 202, location)

    @api.route(
        "GET",
        f"{_ALL}/redrives/<int64:id>",
        tag=TAG,
        role="read",
        answers={200: schemas.RedriveProgress},
        faults=(404,),
    )
    def get_redrive(id: int) -> Response:
        """See how far a redrive is.

        `done` counts the executions that are over, `failed` those of them that did not succeed.
        """
        progress = services.moves.redrive_progress(principal().project_id, id)
        return serialize.answer(
            {
                "id": progress.id,
                "matched": progress.matched,
                "done": progress.done,
                "failed": progress.failed,
                "state": progress.state,
            }
        )

    @api.route(
        "POST",
        f"{_ALL}/discard",
        tag=TAG,
        role="write",
        answers={200: schemas.Discarded},
        body=DiscardIn,
    )
    def discard_dead_letters() -> Response:
        """Delete dead letters for good.

        An empty selector is 422 and never means all; `{"filter": {"all": true}}` does.
        """
        discarded = services.moves.discard(principal().project_id, parse_discard(read_json()))
        return serialize.answer({"discarded": discarded})

"""/api/v1/executions"""

from flask import Response
from flask_openapi3.models.tag import Tag

from jobsched.web import schemas, serialize
from jobsched.web.auth import principal
from jobsched.web.params import ExecutionsQuery, before_id
from jobsched.web.routing import Api
from jobsched.web.services import Services

TAG = Tag(name="executions", description="Runs of jobs: their state, attempts and answers.")

_ALL = "/api/v1/executions"
_ONE = "/api/v1/executions/<int64:id>"


def register(api: Api, services: Services) -> None:
    """Add the routes of executions."""

    @api.route("GET", _ALL, tag=TAG, role="read", answers={200: schemas.ExecutionPage}, query=ExecutionsQuery)
    def list_executions(query: ExecutionsQuery) -> Response:
        """List executions.

        Newest first by id, live and finished. All filters that are given must hold.
        """
        found = services.executions.page(
            principal().project_id,
            limit=query.limit,
            before_id=before_id("executions", query.cursor),
            job_id=query.jobId,
            states=query.state,
            trigger=query.trigger,
            from_=query.from_,
            to=query.to,
        )
        return serialize.page("executions", found, serialize.execution)

    @api.route("GET", _ONE, tag=TAG, role="read", answers={200: schemas.Execution}, faults=(404,))
    def get_execution(id: int) -> Response:
        """Read an execution.

        With its attempts, the phases of the last call and the captured answer.
        """
        return serialize.answer(serialize.execution(services.executions.get(principal().project_id, id)))

    @api.route(
        "POST",
        f"{_ONE}/cancel",
        tag=TAG,
        role="write",
        answers={200: schemas.Execution, 202: schemas.Execution},
        faults=(404, 409),
    )
    def cancel_execution(id: int) -> Response:
        """Cancel an execution.

        One that waits is cancelled at once (200). A call in flight is aborted within 2 s, unless its outcome
        is known first (202). One that is over: 409.
        """
        cancelled = services.moves.cancel(principal().project_id, id)
        # The end of one execution may free its job for the next.
        services.wake()
        status = 202 if cancelled.pending else 200
        return serialize.answer(serialize.execution(cancelled.execution), status)

    @api.route(
        "POST",
        f"{_ONE}/retry",
        tag=TAG,
        role="write",
        answers={202: schemas.Execution},
        faults=(404, 409),
        headers=("Location",),
    )
    def retry_execution(id: int) -> Response:
        """Run an execution again, now.

        One that waits for its time or for a retry is due at once. One that is over is repeated by a new
        execution, whose `redriveOf` names it. While it is queued, running or blocked, and when its job is
        deleted: 409.
        """
        record = services.moves.retry(principal().project_id, id)
        services.wake()
        location = {"Location": f"{_ALL}/{record.id}"}
        return serialize.answer(serialize.execution(record), 202, location)

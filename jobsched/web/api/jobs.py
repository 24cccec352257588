"""/api/v1/jobs"""

from collections.abc import Callable
from functools import partial

from flask import Response, request
from flask_openapi3.models.tag import Tag

from jobsched.db.jobs import JobRecord, Saved
from jobsched.domain.quick import QuickReader
from jobsched.domain.requests import JOBS_PAYLOAD, RunIn, check_payload, parse_run
from jobsched.domain.spec import JobSpec, apply_merge, apply_replace, parse_job_create, read_with_key
from jobsched.domain.spec_fields import JobCreate, JobPatch
from jobsched.errors import NotFound
from jobsched.web import schemas, serialize
from jobsched.web.auth import principal
from jobsched.web.body import JSON, MERGE_PATCH, read_json, read_loosely, read_optional_json, strictly
from jobsched.web.params import (
    Conditions,
    IfNoneMatch,
    JobExecutionsQuery,
    JobsQuery,
    KeyPath,
    RunQuery,
    before_id,
    if_match,
    known_version,
    only_new,
    path_key,
    single_version,
)
from jobsched.web.routing import Api
from jobsched.web.services import Services

TAG = Tag(name="jobs", description="What is called, when, and how failures are retried.")

_ALL = "/api/v1/jobs"
_ONE = "/api/v1/jobs/<int64:id>"
_BY_KEY = "/api/v1/jobs/key/<key:key>"


def register(api: Api, services: Services) -> None:
    """Add the routes of jobs."""
    jobs, reader = services.jobs, QuickReader(services.check_target, strictly)

    def saved(result: Saved, status: int = 200) -> Response:
        if result.due_soon:
            services.wake()
        headers = {"ETag": _etag(result.job)}
        if status == 201:
            headers["Location"] = f"{_ALL}/{result.job.id}"
        return serialize.answer(serialize.job(result.job), status, headers)

    def demanded_version(id: int) -> int | None:
        allowed = if_match()
        if allowed is not None and len(allowed) != 1:
            return single_version(allowed, jobs.get(principal().project_id, id).version)
        return single_version(allowed)

    @api.route(
        "POST",
        _ALL,
        tag=TAG,
        role="write",
        answers={201: schemas.Job},
        body=JobCreate,
        faults=(409,),
        headers=("ETag", "Location"),
    )
    def create_job() -> Response:
        """Create a job.

        Answers 201 with the job and its `Location`. A `key` that exists already is 409.
        """
        spec = reader.read_spec(*read_loosely())
        return saved(jobs.create(principal().project_id, spec), 201)

    @api.route("GET", _ALL, tag=TAG, role="read", answers={200: schemas.JobPage}, query=JobsQuery)
    def list_jobs(query: JobsQuery) -> Response:
        """List jobs.

        Newest first by id. All filters that are given must hold.
        """
        found = jobs.page(
            principal().project_id,
            limit=query.limit,
            before_id=before_id("jobs", query.cursor),
            q=query.q or None,
            is_active=query.isActive,
            pool=query.pool,
            tags=query.tag,
            states=query.state,
        )
        return serialize.page("jobs", found, serialize.listed_job)

    def shown(record: JobRecord) -> Response:
        headers = {"ETag": _etag(record)}
        if known_version(record.version):
            return Response(status=304, headers=headers)
        return serialize.answer(serialize.job(record), headers=headers)

    @api.route(
        "GET",
        _ONE,
        tag=TAG,
        role="read",
        answers={200: schemas.Job, 304: None},
        faults=(404,),
        conditions=IfNoneMatch,
        headers=("ETag",),
    )
    def get_job(id: int) -> Response:
        """Read a job.

        `ETag` is its version, which counts edits: runs change the times that are shown, but not the version. So
        a 304 says that the definition is unchanged, and nothing about runs.
        """
        return shown(jobs.get(principal().project_id, id))

    @api.route(
        "GET",
        _BY_KEY,
        tag=TAG,
        role="read",
        answers={200: schemas.Job, 304: None},
        path=KeyPath,
        faults=(404,),
        conditions=IfNoneMatch,
        headers=("ETag",),
    )
    def get_job_by_key(key: str) -> Response:
        """Read a job by its key.

        As by its id. A slash in the key is written as %2F.
        """
        record = jobs.find_key(principal().project_id, path_key(key))
        if record is None:
            raise NotFound(f"There is no job with the key {key!r}.")
        return shown(record)

    @api.route(
        "PUT",
        _BY_KEY,
        tag=TAG,
        role="write",
        answers={201: schemas.Job, 200: schemas.Job},
        path=KeyPath,
        body=JobCreate,
        faults=(409, 412),
        conditions=Conditions,
        headers=("ETag",),
    )
    def put_job_by_key(key: str) -> Response:
        """Create or replace the job with a key.

        201 if there was none, with its `Location`, else 200, changed or not. What the body leaves out becomes its
        default. `key` in the body is left out or the same. `If-None-Match: *` only creates, `If-Match` only edits.
        """
        project, key, body = principal().project_id, path_key(key), read_json()

        def change(record: JobRecord | None) -> JobSpec:
            return read_with_key(body, key, partial(definition, record))

        def definition(record: JobRecord | None, document: object) -> JobSpec:
            if record is None:
                return parse_job_create(document, check_target=services.check_target)
            present = serialize.read_only(record)
            return apply_replace(record.spec, present, document, check_target=services.check_target)

        allowed, version = if_match(), None
        if allowed is not None:
            found = jobs.find_key(project, key)
            version = single_version(allowed, found.version if found else None)
        result, created = jobs.upsert(
            project,
            key,
            change,
            if_version=version,
            must_exist="If-Match" in request.headers,
            must_be_new=only_new(),
        )
        return saved(result, 201 if created else 200)

    def edit(id: int, change: Callable[[JobRecord], JobSpec]) -> Response:
        version = demanded_version(id)
        return saved(jobs.update(principal().project_id, id, change, if_version=version))

    @api.route(
        "PUT",
        _ONE,
        tag=TAG,
        role="write",
        answers={200: schemas.Job},
        body=JobCreate,
        faults=(404, 409, 412),
        if_match=True,
        headers=("ETag",),
    )
    def replace_job(id: int) -> Response:
        """Replace a job.

        What the body leaves out becomes its default. An edit that leaves `schedule` and `timezone` as they
        were keeps the next execution time. `If-Match` with the ETag guards against a lost update.
        """
        body = read_json()

        def change(record: JobRecord) -> JobSpec:
            present = serialize.read_only(record)
            return apply_replace(record.spec, present, body, check_target=services.check_target)

        return edit(id, change)

    @api.route(
        "PATCH",
        _ONE,
        tag=TAG,
        role="write",
        answers={200: schemas.Job},
        body=JobPatch,
        faults=(404, 409, 412),
        if_match=True,
        headers=("ETag",),
    )
    def update_job(id: int) -> Response:
        """Change some fields of a job.

        A JSON merge patch (RFC 7396): null resets a field to its default. `payload` and `headers` are
        replaced whole. `If-Match` with the ETag guards against a lost update.
        """
        body = read_json(JSON, MERGE_PATCH)

        def change(record: JobRecord) -> JobSpec:
            present = serialize.read_only(record)
            return apply_merge(record.spec, present, body, check_target=services.check_target)

        return edit(id, change)

    @api.route("DELETE", _ONE, tag=TAG, role="write", answers={204: None}, faults=(404, 412), if_match=True)
    def delete_job(id: int) -> Response:
        """Delete a job.

        Waiting executions are cancelled, running ones finish, the history stays readable.
        """
        jobs.delete(principal().project_id, id, if_version=demanded_version(id))
        return Response(status=204)

    @api.route(
        "POST",
        f"{_ONE}/pause",
        tag=TAG,
        role="write",
        answers={200: schemas.Job},
        faults=(404,),
        headers=("ETag",),
    )
    def pause_job(id: int) -> Response:
        """Pause a job.

        No new slots; what waits or runs goes on. Repeating it changes nothing.
        """
        return saved(jobs.pause(principal().project_id, id))

    @api.route(
        "POST",
        f"{_ONE}/resume",
        tag=TAG,
        role="write",
        answers={200: schemas.Job},
        faults=(404,),
        headers=("ETag",),
    )
    def resume_job(id: int) -> Response:
        """Resume a paused job.

        Slots count from now; those of the pause are neither run nor recorded.
        """
        return saved(jobs.resume(principal().project_id, id))

    @api.route(
        "POST",
        f"{_ONE}/run",
        tag=TAG,
        role="write",
        answers={202: schemas.Execution},
        query=RunQuery,
        body=RunIn,
        body_optional=True,
        faults=(404,),
        headers=("Location",),
    )
    def run_job(id: int, query: RunQuery) -> Response:
        """Run a job now.

        Also a paused one. Answers 202 with the new execution, which the job's overlap policy may let wait
        (`blocked`) or end (`skipped`). `force=true` does not look at that policy.
        """
        payload = parse_run(read_optional_json())
        if payload is not JOBS_PAYLOAD:
            check_payload(payload, jobs.get(principal().project_id, id).spec.method)
        record = services.moves.run_now(principal().project_id, id, payload=payload, force=query.force)
        services.wake()
        location = {"Location": f"/api/v1/executions/{record.id}"}
        return serialize.answer(serialize.execution(record), 202, location)

    @api.route(
        "GET",
        f"{_ONE}/executions",
        tag=TAG,
        role="read",
        answers={200: schemas.ExecutionPage},
        query=JobExecutionsQuery,
        faults=(404,),
    )
    def list_job_executions(id: int, query: JobExecutionsQuery) -> Response:
        """List the executions of a job.

        Newest first, live and finished; of a deleted job, too.
        """
        project = principal().project_id
        found = services.executions.page(
            project,
            limit=query.limit,
            before_id=before_id("executions", query.cursor),
            job_id=id,
            states=query.state,
            trigger=query.trigger,
            from_=query.from_,
            to=query.to,
        )
        # Whose executions are found has been there.
        if not found.items and not jobs.known(project, id):
            raise NotFound(f"There is no job {id}.")
        return serialize.page("executions", found, serialize.execution)


def _etag(record: JobRecord) -> str:
    return f'"{record.version}"'

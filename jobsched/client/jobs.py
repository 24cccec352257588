"""``client.jobs``."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Unpack, cast, overload

from jobsched.client import bulk, naming
from jobsched.client.errors import ApiError
from jobsched.client.naming import body
from jobsched.client.transport import UNSET, Transport
from jobsched.client.types import (
    BulkResult,
    Execution,
    Job,
    JobFields,
    Page,
    UnkeyedJobFields,
    Upcoming,
)

_PATH = "/api/v1/jobs"


class Jobs:
    """Create, find, change, run and delete jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        job: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Create a job from a mapping, from keyword arguments, or from both (arguments win).

        >>> client.jobs.create(schedule="0 9 * * MON-FRI", api="https://example.com/hook")  # doctest: +SKIP
        """
        request = body(job, fields)
        return cast(Job, self._transport.post_once(_PATH, body=request, idempotency_key=idempotency_key))

    def create_many(
        self,
        jobs: Iterable[Mapping[str, Any]],
        *,
        partial: bool = False,
        idempotency_key: str | None = None,
    ) -> BulkResult:
        """Create many jobs at once: all or none, or with ``partial`` all that are valid.

        Without ``partial``, one faulty job raises Invalid, whose faults name each place (``/71/priority``).
        With it, ``errors`` of the result names them by ``index``. All jobs are read before anything is sent.

        One request creates at most 10,000 jobs, which is therefore the limit of all or none: ValueError beyond.
        With ``partial`` more are sent in several requests; if one of these fails, ``done`` of the ApiError is
        what the ones before it did.
        """
        items = [naming.encode(body(job)) for job in jobs]
        if not items:
            return bulk.nothing()
        if not partial:
            if len(items) > bulk.MOST_JOBS:
                raise ValueError(
                    f"{len(items)} jobs cannot be created all or none, only {bulk.MOST_JOBS}. "
                    "With partial=True they are sent in several requests."
                )
            return self._bulk(bulk.array(items), None, idempotency_key)
        result = bulk.nothing()
        for batch in bulk.batches(items):
            # A key counts for one request: the next one has another body.
            key = f"{idempotency_key}-{batch.first}" if idempotency_key and batch.first else idempotency_key
            try:
                answer = self._bulk(batch.body, {"partial": True}, key)
            except ApiError as error:
                error.done = result
                raise
            bulk.add(result, answer, batch.first)
        return result

    def _bulk(self, jobs: bytes, params: dict[str, Any] | None, key: str | None) -> BulkResult:
        answer = self._transport.post_once(f"{_PATH}/bulk", params=params, body=jobs, idempotency_key=key)
        return cast(BulkResult, answer)

    @overload
    def get(self, id: int) -> Job: ...
    @overload
    def get(self, id: int, *, unless_version: int) -> Job | None: ...
    def get(self, id: int, *, unless_version: int | None = None) -> Job | None:
        """One job. Raises NotFound.

        With ``unless_version``, None says that the job's definition is still that version. Runs change the times
        that it shows, but not the version.
        """
        headers = _if_none_match(unless_version)
        return cast("Job | None", self._transport.call("GET", _one(id), headers=headers))

    @overload
    def get_by_key(self, key: str) -> Job: ...
    @overload
    def get_by_key(self, key: str, *, unless_version: int) -> Job | None: ...
    def get_by_key(self, key: str, *, unless_version: int | None = None) -> Job | None:
        """The job that has this key of yours; otherwise as ``get``."""
        headers = _if_none_match(unless_version)
        return cast("Job | None", self._transport.call("GET", _keyed(key), headers=headers))

    def list(
        self,
        *,
        q: str | None = None,
        is_active: bool | None = None,
        pool: str | None = None,
        tag: str | Iterable[str] | None = None,
        state: str | Iterable[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """All jobs that match, newest first, page by page. ``limit`` is the size of a page, not the end."""
        filters = {"q": q, "is_active": is_active, "pool": pool, "tag": tag, "state": state, "limit": limit}
        return self._transport.pages(_PATH, filters)

    def page(self, **parameters: Any) -> Page[Job]:
        """One page as the API gives it; takes the filters of ``list``, and ``cursor``."""
        return cast(Page[Job], self._transport.call("GET", _PATH, params=parameters))

    def update(
        self,
        id: int,
        changes: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Change some fields and leave the others; None resets a field to its default.

        With ``version`` the edit is refused (Conflict, 412) if somebody edited the job since.
        """
        request, headers = body(changes, fields), _if_match(version)
        return cast(Job, self._transport.call("PATCH", _one(id), body=request, headers=headers))

    def replace(
        self,
        id: int,
        job: Mapping[str, Any] | None = None,
        /,
        *,
        version: int | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Put a whole job in the place of the old one: fields that are not given become their defaults."""
        request, headers = body(job, fields), _if_match(version)
        return cast(Job, self._transport.call("PUT", _one(id), body=request, headers=headers))

    def upsert(
        self,
        key: str,
        job: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        only_new: bool = False,
        **fields: Unpack[UnkeyedJobFields],
    ) -> Job:
        """Create the job with this key of yours, or replace the one that has it, as ``replace`` does.

        Repeating it changes nothing, not even the version: made for deployments that describe their jobs.
        With ``version``, only a job of that version is replaced; with ``only_new``, none is; else Conflict (412).
        """
        request, headers = body(job, fields), _if_match(version)
        if only_new:
            headers["If-None-Match"] = "*"
        return cast(Job, self._transport.call("PUT", _keyed(key), body=request, headers=headers))

    def delete(self, id: int, *, version: int | None = None) -> None:
        """Delete a job: waiting executions are cancelled, running ones finish, history stays readable.

        With ``version`` it is refused (Conflict, 412) if somebody edited the job since.
        """
        self._transport.call("DELETE", _one(id), headers=_if_match(version))

    def pause(self, id: int) -> Job:
        """Stop firing. What waits or runs goes on. Repeating it is fine."""
        return cast(Job, self._transport.call("POST", f"{_one(id)}/pause", repeat=True))

    def resume(self, id: int) -> Job:
        """Fire again, counting from now. Repeating it is fine."""
        return cast(Job, self._transport.call("POST", f"{_one(id)}/resume", repeat=True))

    def run(
        self, id: int, *, payload: Any = UNSET, force: bool = False, idempotency_key: str | None = None
    ) -> Execution:
        """Run now, whatever the schedule says; returns the new execution, which has not run yet.

        ``payload`` replaces the job's for this run; ``force`` ignores the job's overlap policy.
        """
        return cast(
            Execution,
            self._transport.post_once(
                f"{_one(id)}/run",
                params={"force": True} if force else None,
                body=UNSET if payload is UNSET else {"payload": payload},
                idempotency_key=idempotency_key,
            ),
        )

    def next(self, id: int, n: int = 10) -> Upcoming:
        """The next ``n`` times at which a job will run, and its schedule in words."""
        return cast(Upcoming, self._transport.call("GET", f"{_one(id)}/next", params={"n": n}))

    def executions(
        self,
        id: int,
        *,
        state: str | Iterable[str] | None = None,
        trigger: str | None = None,
        from_: str | datetime | None = None,
        to: str | datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Execution]:
        """All executions of one job, newest first, page by page; also of a job that was deleted."""
        filters = {"state": state, "trigger": trigger, "from_": from_, "to": to, "limit": limit}
        return self._transport.pages(f"{_one(id)}/executions", filters)

    def executions_page(self, id: int, **parameters: Any) -> Page[Execution]:
        """One page of a job's executions as the API gives it; takes ``cursor`` too."""
        path = f"{_one(id)}/executions"
        return cast(Page[Execution], self._transport.call("GET", path, params=parameters))


def _one(id: int) -> str:
    return _PATH + naming.path(id)


def _keyed(key: str) -> str:
    return _PATH + naming.path("key", key)


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _if_none_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-None-Match": f'"{version}"'}

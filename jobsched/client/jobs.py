"""``client.jobs``."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Unpack, cast
from urllib.parse import quote

from jobsched.client.naming import body
from jobsched.client.transport import UNSET, Transport
from jobsched.client.types import Execution, Job, JobFields

_PATH = "/api/v1/jobs"


class Jobs:
    """Create, find, change, run and delete jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, job: Mapping[str, Any] | None = None, /, **fields: Unpack[JobFields]) -> Job:
        """Create a job from a mapping, from keyword arguments, or from both (arguments win).

        >>> client.jobs.create(schedule="0 9 * * MON-FRI", api="https://example.com/hook")  # doctest: +SKIP
        """
        return cast(Job, self._transport.call("POST", _PATH, body=body(job, fields)))

    def get(self, id: int) -> Job:
        """One job. Raises NotFound."""
        return cast(Job, self._transport.call("GET", _job(id)))

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

    def page(self, **parameters: Any) -> dict[str, Any]:
        """One page as the API gives it; takes the filters of ``list``, and ``cursor``."""
        return cast(dict[str, Any], self._transport.call("GET", _PATH, params=parameters))

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
        return cast(
            Job,
            self._transport.call("PATCH", _job(id), body=body(changes, fields), headers=_if_match(version)),
        )

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
        return cast(
            Job, self._transport.call("PUT", _job(id), body=body(job, fields), headers=_if_match(version))
        )

    def delete(self, id: int) -> None:
        """Delete a job: waiting executions are cancelled, running ones finish, history stays readable."""
        self._transport.call("DELETE", _job(id))

    def pause(self, id: int) -> Job:
        """Stop firing. What waits or runs goes on. Repeating it is fine."""
        return cast(Job, self._transport.call("POST", f"{_job(id)}/pause"))

    def resume(self, id: int) -> Job:
        """Fire again, counting from now. Repeating it is fine."""
        return cast(Job, self._transport.call("POST", f"{_job(id)}/resume"))

    def run(self, id: int, *, payload: Any = UNSET, force: bool = False) -> Execution:
        """Run now, whatever the schedule says; returns the new execution, which has not run yet.

        ``payload`` replaces the job's for this run; ``force`` ignores the job's overlap policy.
        """
        return cast(
            Execution,
            self._transport.call(
                "POST",
                f"{_job(id)}/run",
                params={"force": True} if force else None,
                body=UNSET if payload is UNSET else {"payload": payload},
            ),
        )

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
        return self._transport.pages(f"{_job(id)}/executions", filters)

    def executions_page(self, id: int, **parameters: Any) -> dict[str, Any]:
        """One page of a job's executions as the API gives it; takes ``cursor`` too."""
        return cast(dict[str, Any], self._transport.call("GET", f"{_job(id)}/executions", params=parameters))


def _job(id: int) -> str:
    return f"{_PATH}/{quote(str(id), safe='')}"


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}

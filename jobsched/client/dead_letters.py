"""``client.dead_letters``: executions that failed for good."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from jobsched.client import naming
from jobsched.client.transport import UNSET, Transport
from jobsched.client.types import DeadLetter, Discarded, Page, Redrive, RedriveProgress, Selector
from jobsched.client.waiting import wait_until

_PATH = "/api/v1/dead-letters"


class DeadLetters:
    """Look at what failed for good; send it again, or throw it away."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        job_id: int | None = None,
        error_code: str | None = None,
        from_: str | datetime | None = None,
        to: str | datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[DeadLetter]:
        """All dead letters that match, newest first, page by page. ``limit`` is the size of a page."""
        filters = {"job_id": job_id, "error_code": error_code, "from_": from_, "to": to, "limit": limit}
        return self._transport.pages(_PATH, filters)

    def page(self, **parameters: Any) -> Page[DeadLetter]:
        """One page as the API gives it; takes the filters of ``list``, and ``cursor``."""
        return cast(Page[DeadLetter], self._transport.call("GET", _PATH, params=parameters))

    def redrive(
        self,
        ids: Iterable[int] | None = None,
        filter: Selector | Mapping[str, Any] | None = None,
        *,
        rate_per_second: float | None = None,
        payload: Any = UNSET,
        idempotency_key: str | None = None,
    ) -> Redrive:
        """Run dead letters again with their jobs as they are now; returns ``id`` and ``matched``.

        By ``ids`` or by ``filter``; nothing at all is Invalid and never means "all", for which
        ``filter={"all": True}`` stands. ``payload`` may be given for one id.
        """
        request = _selection(ids, filter)
        if rate_per_second is not None:
            request["ratePerSecond"] = rate_per_second
        if payload is not UNSET:
            request["payload"] = payload
        return cast(
            Redrive,
            self._transport.post_once(f"{_PATH}/redrive", body=request, idempotency_key=idempotency_key),
        )

    def redrive_progress(self, id: int) -> RedriveProgress:
        """How far a redrive is: ``matched``, ``done``, ``failed``, ``state``. Raises NotFound."""
        path = f"{_PATH}/redrives{naming.path(id)}"
        return cast(RedriveProgress, self._transport.call("GET", path))

    def wait(
        self,
        id: int,
        timeout: float | None = None,
        progress: Callable[[RedriveProgress], object] | None = None,
    ) -> RedriveProgress:
        """Look until all executions of a redrive are over; ``progress`` is told whatever is seen meanwhile.

        Raises TimeoutError after ``timeout`` seconds; None waits for ever.
        """

        def look() -> RedriveProgress:
            seen = self.redrive_progress(id)
            if progress is not None:
                progress(seen)
            return seen

        return wait_until(
            lambda seen: seen["state"] == "finished",
            look,
            timeout,
            lambda seen: f"Redrive {id} has ended {seen['done']} of {seen['matched']} executions",
        )

    def discard(
        self,
        ids: Iterable[int] | None = None,
        filter: Selector | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Discarded:
        """Throw dead letters away for good, by ``ids`` or by ``filter``, as in ``redrive``."""
        request = _selection(ids, filter)
        return cast(
            Discarded,
            self._transport.post_once(f"{_PATH}/discard", body=request, idempotency_key=idempotency_key),
        )


def _selection(ids: Iterable[int] | None, filter: Mapping[str, Any] | None) -> dict[str, Any]:
    selection: dict[str, Any] = {}
    if ids is not None:
        selection["ids"] = [*ids]
    if filter is not None:
        selection["filter"] = naming.body(filter)
    return selection

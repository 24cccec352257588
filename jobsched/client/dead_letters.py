"""``client.dead_letters``: executions that failed for good."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

from jobsched.client.naming import body
from jobsched.client.transport import UNSET, Transport
from jobsched.client.types import Selector

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
    ) -> Iterator[dict[str, Any]]:
        """All dead letters that match, newest first, page by page. ``limit`` is the size of a page."""
        filters = {"job_id": job_id, "error_code": error_code, "from_": from_, "to": to, "limit": limit}
        return self._transport.pages(_PATH, filters)

    def page(self, **parameters: Any) -> dict[str, Any]:
        """One page as the API gives it; takes the filters of ``list``, and ``cursor``."""
        return cast(dict[str, Any], self._transport.call("GET", _PATH, params=parameters))

    def redrive(
        self,
        ids: Iterable[int] | None = None,
        filter: Selector | Mapping[str, Any] | None = None,
        *,
        rate_per_second: float | None = None,
        payload: Any = UNSET,
    ) -> dict[str, Any]:
        """Run dead letters again with their jobs as they are now; returns ``id`` and ``matched``.

        By ``ids`` or by ``filter``; nothing at all is Invalid and never means "all", for which
        ``filter={"all": True}`` stands. ``payload`` may be given for one id.
        """
        request = _selection(ids, filter)
        if rate_per_second is not None:
            request["ratePerSecond"] = rate_per_second
        if payload is not UNSET:
            request["payload"] = payload
        return cast(dict[str, Any], self._transport.call("POST", f"{_PATH}/redrive", body=request))

    def redrive_progress(self, id: int | str) -> dict[str, Any]:
        """How far a redrive has come: ``matched``, ``done``, ``failed``, ``state``."""
        path = f"{_PATH}/redrives/{quote(str(id), safe='')}"
        return cast(dict[str, Any], self._transport.call("GET", path))

    def discard(
        self, ids: Iterable[int] | None = None, filter: Selector | Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Throw dead letters away for good, by ``ids`` or by ``filter``, as in ``redrive``."""
        request = _selection(ids, filter)
        return cast("dict[str, Any] | None", self._transport.call("POST", f"{_PATH}/discard", body=request))


def _selection(ids: Iterable[int] | None, filter: Mapping[str, Any] | None) -> dict[str, Any]:
    selection: dict[str, Any] = {}
    if ids is not None:
        selection["ids"] = [*ids]
    if filter is not None:
        selection["filter"] = body(filter)
    return selection

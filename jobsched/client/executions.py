"""``client.executions``."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast

from jobsched.client import naming
from jobsched.client.transport import Transport
from jobsched.client.types import FINAL_STATES, Execution, Page
from jobsched.client.waiting import wait_until

_PATH = "/api/v1/executions"


class Executions:
    """Find, watch, cancel and repeat runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, id: int) -> Execution:
        """One execution with its attempts, phases and the captured answer. Raises NotFound."""
        return cast(Execution, self._transport.call("GET", _one(id)))

    def list(
        self,
        *,
        state: str | Iterable[str] | None = None,
        job_id: int | None = None,
        trigger: str | None = None,
        from_: str | datetime | None = None,
        to: str | datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Execution]:
        """All executions that match, newest first, page by page.

        ``from_`` (inclusive) and ``to`` (exclusive) bound ``scheduledFor``; ``limit`` is the size of a page.
        """
        filters = {
            "state": state,
            "job_id": job_id,
            "trigger": trigger,
            "from_": from_,
            "to": to,
            "limit": limit,
        }
        return self._transport.pages(_PATH, filters)

    def page(self, **parameters: Any) -> Page[Execution]:
        """One page as the API gives it; takes the filters of ``list``, and ``cursor``."""
        return cast(Page[Execution], self._transport.call("GET", _PATH, params=parameters))

    def cancel(self, id: int, *, idempotency_key: str | None = None) -> Execution:
        """Cancel. A running call is aborted within 2 s, unless its outcome is known first.

        Raises Conflict for an execution that is final already.
        """
        path = f"{_one(id)}/cancel"
        return cast(Execution, self._transport.post_once(path, idempotency_key=idempotency_key))

    def retry(self, id: int, *, idempotency_key: str | None = None) -> Execution:
        """Run again now: a waiting one without waiting, a final one as a new execution (``redriveOf``)."""
        path = f"{_one(id)}/retry"
        return cast(Execution, self._transport.post_once(path, idempotency_key=idempotency_key))

    def wait(self, id: int, timeout: float | None = None) -> Execution:
        """Look until the execution is final and return it, however it ended.

        Looks often at first and every 2 s later. Raises TimeoutError after ``timeout`` seconds; None waits
        for ever.
        """
        return wait_until(
            lambda execution: execution["state"] in FINAL_STATES,
            lambda: self.get(id),
            timeout,
            lambda execution: f"Execution {id} is still {execution['state']}",
        )


def _one(id: int) -> str:
    return _PATH + naming.path(id)

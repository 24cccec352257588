"""``client.executions``."""

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

from jobsched.client.transport import Transport
from jobsched.client.types import FINAL_STATES, Execution

_PATH = "/api/v1/executions"
_FIRST_LOOK = 0.1
_SLOWEST_LOOK = 2.0


class Executions:
    """Find, watch, cancel and repeat runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, id: int) -> Execution:
        """One execution with its attempts, phases and the captured answer. Raises NotFound."""
        return cast(Execution, self._transport.call("GET", _execution(id)))

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

    def page(self, **parameters: Any) -> dict[str, Any]:
        """One page as the API gives it; takes the filters of ``list``, and ``cursor``."""
        return cast(dict[str, Any], self._transport.call("GET", _PATH, params=parameters))

    def cancel(self, id: int) -> Execution:
        """Cancel. A running call is aborted within 2 s, unless its outcome is known first.

        Raises Conflict for an execution that is final already.
        """
        return cast(Execution, self._transport.call("POST", f"{_execution(id)}/cancel"))

    def retry(self, id: int) -> Execution:
        """Run again now: a waiting one without waiting, a final one as a new execution (``redriveOf``)."""
        return cast(Execution, self._transport.call("POST", f"{_execution(id)}/retry"))

    def wait(self, id: int, timeout: float | None = None) -> Execution:
        """Look until the execution is final and return it, however it ended.

        Looks often at first and every 2 s later. Raises TimeoutError after ``timeout`` seconds; None waits
        for ever.
        """
        end = None if timeout is None else time.monotonic() + timeout
        nap = _FIRST_LOOK
        while True:
            execution = self.get(id)
            if execution["state"] in FINAL_STATES:
                return execution
            left = nap if end is None else end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Execution {id} is still {execution['state']} after {timeout:g} s.")
            time.sleep(min(nap, left))
            nap = min(nap * 1.5, _SLOWEST_LOOK)


def _execution(id: int) -> str:
    return f"{_PATH}/{quote(str(id), safe='')}"

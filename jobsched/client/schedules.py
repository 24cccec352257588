"""``client.schedules``."""

from datetime import datetime
from typing import Any, cast

from jobsched.client.transport import Transport
from jobsched.client.types import Upcoming


class Schedules:
    """Schedules that are no job's yet."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def preview(
        self,
        schedule: str,
        timezone: str = "UTC",
        n: int = 10,
        *,
        start_at: str | datetime | None = None,
        end_at: str | datetime | None = None,
        max_runs: int | None = None,
    ) -> Upcoming:
        """The next ``n`` runs of a job that would be created now, and its schedule in words.

        Raises Invalid, which says why a schedule is refused.
        """
        body: dict[str, Any] = {"schedule": schedule, "timezone": timezone, "n": n}
        bounds = {"startAt": start_at, "endAt": end_at, "maxRuns": max_runs}
        body |= {name: value for name, value in bounds.items() if value is not None}
        # It changes nothing: a POST only because a schedule is awkward in an address.
        return cast(
            Upcoming, self._transport.call("POST", "/api/v1/schedules/preview", body=body, repeat=True)
        )

"""``client.schedules``."""

from typing import cast

from jobsched.client.transport import Transport
from jobsched.client.types import Preview


class Schedules:
    """Schedules that are no job's yet."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def preview(self, schedule: str, timezone: str = "UTC", n: int = 10) -> Preview:
        """The next ``n`` times of a schedule and what it means in words; Invalid says why it is refused."""
        body = {"schedule": schedule, "timezone": timezone, "n": n}
        # It changes nothing: a POST only because a schedule is awkward in an address.
        return cast(
            Preview, self._transport.call("POST", "/api/v1/schedules/preview", body=body, repeat=True)
        )

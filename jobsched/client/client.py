"""The client's front door."""

from types import TracebackType
from typing import Self, cast

from jobsched.client.dead_letters import DeadLetters
from jobsched.client.discovery import find_server
from jobsched.client.executions import Executions
from jobsched.client.jobs import Jobs
from jobsched.client.schedules import Schedules
from jobsched.client.signing_secrets import SigningSecrets
from jobsched.client.transport import Transport
from jobsched.client.types import Health, Readiness, Stats


class Client:
    """jobsched's HTTP API.

    ``url`` and ``api_key`` default to JOBSCHED_URL and JOBSCHED_API_KEY, then to a local ``jobsched up``
    (see ``jobsched.client.discovery``). ``timeout`` is in seconds and bounds the wait for each answer.
    While the server cannot be reached, what may be repeated is tried again up to three times; nothing happens
    twice (see ``jobsched.client.transport``). For one thread at a time; a with-statement closes its connections.

    Raises ValueError for an address or a key that cannot be one.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, timeout: float = 30) -> None:
        base, key = find_server(url, api_key)
        self._transport = Transport(base, key, timeout)
        self.jobs = Jobs(self._transport)
        self.executions = Executions(self._transport)
        self.dead_letters = DeadLetters(self._transport)
        self.schedules = Schedules(self._transport)
        self.signing_secrets = SigningSecrets(self._transport)

    @property
    def url(self) -> str:
        """The base address of the server in use."""
        return self._transport.url

    def stats(self) -> Stats:
        """Queues, their sums, workers and the poller's lag, as ``GET /queue/stats`` gives them."""
        return cast(Stats, self._transport.call("GET", "/queue/stats"))

    def ready(self) -> Readiness:
        """The server's own checks. An answer that says "not ready" (503) is an answer, not an error."""
        return cast(Readiness, self._transport.call("GET", "/ready", expect=(503,)))

    def health(self) -> Health:
        """Whether the server's process answers at all; it looks at nothing else."""
        return cast(Health, self._transport.call("GET", "/health"))

    def close(self) -> None:
        """Close the connections. The client must not be used afterwards."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

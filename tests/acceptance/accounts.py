"""Who was called when: what the target saw, put beside what the history says."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from standardwebhooks import Webhook

from jobsched.client import Client
from jobsched.testing.target import Arrival

LIVE = ("pending", "queued", "running", "retrying", "blocked")


@dataclass(frozen=True)
class Call:
    """One arrival in the words of the job scheduler. ``at``: wall clock, seconds."""

    at: float
    job: int
    execution: int
    key: str
    attempt: int
    slot: str
    arrival: Arrival


def calls_of(arrivals: Iterable[Arrival]) -> list[Call]:
    """The callbacks among ``arrivals``, in the order of their arrival."""
    calls = []
    for arrival in arrivals:
        headers = arrival.headers
        assert headers["webhook-id"] == headers["idempotency-key"]
        calls.append(
            Call(
                arrival.t,
                int(headers["jobsched-job-id"]),
                int(headers["jobsched-execution-id"]),
                headers["webhook-id"],
                int(headers["jobsched-attempt"]),
                headers["jobsched-scheduled-for"],
                arrival,
            )
        )
    return calls


def assert_signed(client: Client, calls: Iterable[Call]) -> None:
    """Every call is signed with the project's secret, as the verifier of Standard Webhooks sees it."""
    [secret] = client.signing_secrets.list()["items"]
    webhook = Webhook(secret["secret"])
    for call in calls:
        webhook.verify(call.arrival.body, dict(call.arrival.headers), json_parse=False)


def by_job(calls: Iterable[Call]) -> dict[int, list[Call]]:
    """The calls of each job, in the order of their arrival."""
    sorted_out: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        sorted_out[call.job].append(call)
    return sorted_out


def slots_of(calls: Iterable[Call]) -> Counter[tuple[int, str]]:
    """How often each slot of each job was called."""
    return Counter((call.job, call.slot) for call in calls)


def history(client: Client, **filters: Any) -> dict[int, list[dict[str, Any]]]:
    """The executions of each job that are over, by their ids."""
    sorted_out: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for execution in client.executions.list(limit=500, **filters):
        sorted_out[execution["jobId"]].append(execution)
    for executions in sorted_out.values():
        executions.reverse()
    return sorted_out


def stamp(instant: datetime) -> str:
    """An instant as answers and callbacks write it."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """Unix seconds of an instant in an answer."""
    return datetime.fromisoformat(text).timestamp()


def every(start: datetime, step: float, count: int) -> list[str]:
    """The slots of an interval anchored at ``start``: the first is one interval later."""
    return [stamp(start + timedelta(seconds=step * n)) for n in range(1, count + 1)]

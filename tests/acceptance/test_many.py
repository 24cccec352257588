"""Two pollers and three workers at once: every slot of every job is called exactly once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import LIVE, calls_of, every, history, slots_of, stamp
from tests.conftest import eventually

SECONDS = 10
JOBS = 500


def register(stand: Stand, url: str, start: datetime) -> dict[int, list[str]]:
    """The jobs' ids, each with the slots that it must be called for."""
    clients = [stand.client() for _ in range(4)]

    def some(client: Client, first: int) -> dict[int, list[str]]:
        wanted = {}
        for n in range(first, JOBS, len(clients)):
            step = 1 + n % 8 // 4
            job = client.jobs.create(
                schedule=f"@every {step}s",
                start_at=stamp(start),
                max_runs=SECONDS // step,
                api=f"{url}/ok",
                priority=n % 11,
            )
            wanted[job["id"]] = every(start, step, SECONDS // step)
        return wanted

    with ThreadPoolExecutor(len(clients)) as pool:
        parts = list(pool.map(some, clients, range(len(clients))))
    return {job: slots for part in parts for job, slots in part.items()}


def test_two_pollers_and_three_workers_call_every_slot_exactly_once() -> None:
    with Target() as target, Stand() as stand:
        stand.start_api()
        names = ["poller-1", "poller-2", "w1", "w2", "w3"]
        for name in names[:2]:
            stand.start(name, "poller")
        for name in names[2:]:
            stand.start(name, "worker", "--name", name, "--concurrency", "20")
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=12)
        wanted = register(stand, target.url, start)
        slots = Counter((job, slot) for job, each in wanted.items() for slot in each)
        client = stand.client()

        def all_over() -> None:
            assert target.count >= slots.total()
            assert client.executions.page(state=LIVE)["items"] == []

        eventually(all_over, 60)
        for name in names:
            assert stand.stop(name) == 0, stand.log_of(name)
            assert "Traceback" not in stand.log_of(name)
        calls = calls_of(target.arrivals)
        assert slots_of(calls) == slots
        assert max(Counter(call.key for call in calls).values()) == 1
        told = [one for each in history(client).values() for one in each]
        assert sorted((one["id"], one["jobId"], one["scheduledFor"]) for one in told) == sorted(
            (call.execution, call.job, call.slot) for call in calls
        )
        assert {(one["state"], one["attempt"], one["retryCount"]) for one in told} == {("succeeded", 1, 0)}
        # All three had work; a flaw of one could not hide behind the others.
        assert {one["worker"] for one in told} == {"w1", "w2", "w3"}
        assert stand.query("SELECT count(*) FROM worker_process") == [(0,)]

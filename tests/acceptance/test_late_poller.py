"""A poller is stopped, an hour passes (in the rows), and it is started again: what runs is what is documented.

tests/integration/test_misfire_hour.py looks at each form of schedule and each grace; here it is the real process.
"""

from datetime import UTC, datetime, timedelta

from jobsched.clock import rfc3339
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.conftest import eventually

POLICIES = ("fire_once", "fire_all", "skip")


def test_a_poller_that_was_away_for_an_hour_runs_what_each_policy_says() -> None:
    with Target() as target, Stand() as stand:
        stand.start_api()
        stand.start("poller", "poller")
        client = stand.client()
        eventually(lambda: _is(client.ready()["checks"]["poller"], "ok"), 20)
        stand.stop("poller")

        now = datetime.now(UTC)
        newest = now.replace(microsecond=now.microsecond // 1000 * 1000) - timedelta(minutes=2)
        slots = [newest - timedelta(minutes=10) * number for number in reversed(range(6))]
        instant = rfc3339(slots[2])
        every, once = {}, {}
        for policy in POLICIES:
            common = {"api": f"{target.url}/ok", "misfire_policy": policy}
            every[policy] = client.jobs.create(schedule="@every 10m", **common)["id"]
            once[policy] = client.jobs.create(schedule=f"@at {instant}", **common)["id"]
        stand.query(
            "UPDATE job_schedule SET next_slot = %s, next_execution_time = %s, anchor = %s WHERE job_id = ANY(%s)",
            (slots[0], slots[0], slots[0] - timedelta(minutes=10), list(every.values())),
        )

        stand.start("poller", "poller")
        stand.start("worker", "worker")

        def history(job_id: int) -> list[tuple[str, str, int | None]]:
            found = client.jobs.executions(job_id)
            return sorted((one["scheduledFor"], one["state"], one["skippedCount"]) for one in found)

        def ran(*times: str) -> list[tuple[str, str, None]]:
            return [(each, "succeeded", None) for each in times]

        texts = [rfc3339(slot) for slot in slots]
        expected = {
            every["fire_once"]: [(texts[4], "skipped", 5), *ran(texts[5])],
            every["fire_all"]: ran(*texts),
            every["skip"]: [(texts[5], "skipped", 6)],
            once["fire_once"]: ran(instant),
            once["fire_all"]: ran(instant),
            once["skip"]: [(instant, "skipped", 1)],
        }
        eventually(lambda: _is({job_id: history(job_id) for job_id in expected}, expected), 20)
        following = rfc3339(slots[5] + timedelta(minutes=10))
        for policy in POLICIES:
            assert client.jobs.get(every[policy])["nextExecutionTime"] == following
            assert client.jobs.get(once[policy])["nextExecutionTime"] is None
        assert target.count == 9


def _is(found: object, expected: object) -> None:
    assert found == expected

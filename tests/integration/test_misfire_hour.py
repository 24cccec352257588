"""No poller ran for an hour: each misfire policy gives exactly the runs that docs/schedules.md promises.

Jobs are registered and read through the API. Their rows are then dated back as an hour without a poller leaves
them, and the real poller's code fires what is due.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from jobsched.clock import rfc3339
from jobsched.poller.fire import Fire
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.integration.api_rig import api

__all__ = ["api"]

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
DAY = timedelta(days=1)

#: Seconds; the newest slot of the recurring jobs is 2 to 4 minutes late, the one-off ones half an hour.
DEFAULT_GRACE, FIVE_MINUTES, TWO_HOURS = 60, 300, 7200

#: For each policy and grace: how many of the newest slots run of the six of "each 10 minutes", the one of "daily",
#: the nine of "@every 7m", the instant, and the delay. All others are skipped.
DOCUMENTED = {
    ("fire_once", DEFAULT_GRACE): (1, 1, 1, 1, 1),
    ("fire_once", FIVE_MINUTES): (1, 1, 1, 1, 1),
    ("fire_once", TWO_HOURS): (6, 1, 9, 1, 1),
    ("fire_all", DEFAULT_GRACE): (6, 1, 9, 1, 1),
    ("fire_all", FIVE_MINUTES): (6, 1, 9, 1, 1),
    ("fire_all", TWO_HOURS): (6, 1, 9, 1, 1),
    ("skip", DEFAULT_GRACE): (0, 0, 0, 0, 0),
    ("skip", FIVE_MINUTES): (1, 0, 1, 0, 0),
    ("skip", TWO_HOURS): (6, 1, 9, 1, 1),
}


@dataclass(frozen=True)
class Late:
    """A job as an hour without a poller leaves it: its due slots, and the first that is not due yet."""

    schedule: str
    slots: tuple[datetime, ...]
    following: datetime | None
    anchor: datetime


def late_jobs(now: datetime) -> tuple[Late, ...]:
    """One job of each form. No slot lies within a minute of ``now``, so that the test may take its time."""
    minute = now.replace(second=0, microsecond=0)
    newest = minute - 3 * MINUTE
    tens = tuple(newest - 10 * MINUTE * number for number in reversed(range(6)))
    daily = minute - 30 * MINUTE
    sevens = tuple(now - 2 * MINUTE - 7 * MINUTE * number for number in reversed(range(9)))
    half = now - 30 * MINUTE
    return (
        Late(f"{newest.minute % 10}-59/10 * * * *", tens, newest + 10 * MINUTE, now - HOUR),
        Late(f"{daily.minute} {daily.hour} * * *", (daily,), daily + DAY, now - HOUR),
        Late("@every 7m", sevens, sevens[-1] + 7 * MINUTE, sevens[0] - 7 * MINUTE),
        Late(f"@at {rfc3339(half)}", (half,), None, now - HOUR),
        Late("@in 25m", (half,), None, half - 25 * MINUTE),
    )


@pytest.fixture
def fire(link, redis_url):
    client = connect(redis_url)
    client.flushall()
    yield Fire(link, Broker(client), 10_000)
    client.close()


def backdate(link, job_id, late):
    link.execute(
        "UPDATE job_schedule SET next_slot = %s, next_execution_time = %s, last_slot = NULL, anchor = %s "
        "WHERE job_id = %s",
        (late.slots[0], late.slots[0], late.anchor, job_id),
    )


def fire_all_due(fire):
    while fire.run_once().more:
        pass


@pytest.mark.parametrize(("policy", "grace"), DOCUMENTED)
def test_after_an_hour_without_a_poller_each_policy_runs_what_is_documented(api, link, fire, policy, grace):
    [(now,)] = link.execute("SELECT date_trunc('milliseconds', clock_timestamp())")
    lates = late_jobs(now.astimezone(UTC))
    ids = [
        api.create(schedule=late.schedule, misfirePolicy=policy, misfireGraceSeconds=grace)["id"]
        for late in lates
    ]
    for job_id, late in zip(ids, lates, strict=True):
        backdate(link, job_id, late)

    fire_all_due(fire)

    for job_id, late, count in zip(ids, lates, DOCUMENTED[policy, grace], strict=True):
        history = api.call("GET", f"/api/v1/jobs/{job_id}/executions").get_json()["items"]
        run = late.slots[len(late.slots) - count :]
        skipped = late.slots[: len(late.slots) - count]
        assert [
            (one["scheduledFor"], one["state"], one["trigger"], one["skippedCount"], one["errorCode"])
            for one in sorted(history, key=lambda one: one["scheduledFor"])
            if one["state"] != "skipped"
        ] == [(rfc3339(slot), "queued", "schedule", None, None) for slot in run], late.schedule
        assert [
            (one["scheduledFor"], one["skippedCount"], one["errorCode"], one["attempt"], one["attempts"])
            for one in history
            if one["state"] == "skipped"
        ] == ([(rfc3339(skipped[-1]), len(skipped), "misfire", 0, [])] if skipped else []), late.schedule

        job = api.call("GET", f"/api/v1/jobs/{job_id}").get_json()
        assert job["nextExecutionTime"] == (late.following and rfc3339(late.following)), late.schedule
        assert job["lastState"] == ("skipped" if skipped else None)
        assert job["isActive"] is True

    before = api.sql("SELECT (SELECT count(*) FROM execution), (SELECT count(*) FROM execution_history)")
    fire_all_due(fire)
    after = api.sql("SELECT (SELECT count(*) FROM execution), (SELECT count(*) FROM execution_history)")
    assert after == before


@pytest.mark.parametrize(
    ("policy", "run", "skipped", "goes_on"),
    [("fire_once", 1, [5], True), ("fire_all", 4, [], False), ("skip", 0, [6], True)],
)
def test_only_what_ran_counts_towards_max_runs(api, link, fire, policy, run, skipped, goes_on):
    [(now,)] = link.execute("SELECT clock_timestamp()")
    late = late_jobs(now.astimezone(UTC))[0]
    job_id = api.create(schedule=late.schedule, misfirePolicy=policy, maxRuns=4)["id"]
    backdate(link, job_id, late)
    fire_all_due(fire)
    history = api.call("GET", f"/api/v1/jobs/{job_id}/executions").get_json()["items"]
    assert sum(one["state"] == "queued" for one in history) == run
    assert [one["skippedCount"] for one in history if one["state"] == "skipped"] == skipped
    following = api.call("GET", f"/api/v1/jobs/{job_id}").get_json()["nextExecutionTime"]
    assert following == (rfc3339(late.following) if goes_on else None)


def test_the_slots_of_a_pause_are_neither_run_nor_recorded(api, link, fire):
    [(now,)] = link.execute("SELECT clock_timestamp()")
    late = late_jobs(now.astimezone(UTC))[0]
    job_id = api.create(schedule=late.schedule, misfirePolicy="fire_all")["id"]
    assert api.call("POST", f"/api/v1/jobs/{job_id}/pause").get_json()["nextExecutionTime"] is None
    backdate(link, job_id, late)
    fire_all_due(fire)
    resumed = api.call("POST", f"/api/v1/jobs/{job_id}/resume").get_json()
    fire_all_due(fire)
    assert resumed["nextExecutionTime"] == rfc3339(late.following)
    assert api.call("GET", f"/api/v1/jobs/{job_id}/executions").get_json()["items"] == []

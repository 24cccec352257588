"""A day in which the clock changes, lived through in minutes: Postgres, Redis and every process by a stepping clock.

At the end each job's slots are compared, one by one, with what a person with a wall clock would have run.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from jobsched.db.connection import Link
from tests.acceptance.accounts import stamp
from tests.chaos.bench.scenarios import wall
from tests.chaos.bench.scenarios.stage import Findings, Stage, told
from tests.chaos.clock import Clock, ClockedStand

YEAR = 2027

# How many runs a day: 16 to 320, then 24, then one (or 24), then 1 to 7 or, with seconds, more.
_OFTEN = ("*/5 * * * *", "*/15 * * * *", "*/20 * * * *", "7-59/13 * * * *", "*/30 * * * *", "@every 7m", "@every 47m",
          "@every 1h30m", "0 */10 * * * *", "30 */20 1-4 * * *", "*/2 2 * * *", "@every 4m30s")  # fmt: skip
_HOURLY = ("0 * * * *", "17 * * * *", "@hourly", "15 5 * * * *", "30 0-23 * * *", "@every 1h")
_ALIASES = ("@daily", "@midnight", "@weekly", "@hourly")
_EDGES = (
    # Fixed times in every hour of the night, and at its edges; {m} is a minute of the job's own.
    "30 1 * * *", "59 1 * * *", "0 2 * * *", "30 2 * * *", "15 2 * * *", "45 1 * * *", "0 3 * * *", "30 3 * * *",
    "{m} 0 * * *", "{m} 1 * * *", "{m} 2 * * *", "{m} 3 * * *", "{m} 4 * * *", "0,20,40 2 * * *", "30 1-3 * * *",
    "10,50 0-6 * * *", "*/20 2 * * *", "*/7 1-3 * * *", "15 0-23/6 * * *", "{m} 1,2,3 * * 0", "45 23 * * *",
    "30 30 2 * * *", "*/20 30 2 * * *", "*/30 59 1 * * *", "*/10 0 3 * * *", "20 {m} 1 * * *", "0 {m} 2 * * *",
    "20 30 1 * * *", "*/15 30 1 * * *",
)  # fmt: skip


@dataclass(frozen=True)
class Night:
    """One night: the zone whose clock changes, and how. ``hours`` are simulated."""

    zone: str
    forward: bool
    jobs: int
    hours: float

    @property
    def name(self) -> str:
        return f"{self.zone} {'forward' if self.forward else 'back'}"


#: The zones of a night's jobs, besides its own, which half of them have.
_OTHERS = ("UTC", "Europe/London", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Europe/Athens")

NIGHTS = (
    Night("Europe/Berlin", True, 2000, 24),
    Night("Europe/Berlin", False, 2000, 24),
    Night("America/New_York", True, 400, 6),
    Night("America/New_York", False, 400, 6),
    Night("Australia/Lord_Howe", True, 400, 6),
    Night("Australia/Lord_Howe", False, 400, 6),
)
SMALL = (Night("Europe/Berlin", False, 60, 3),)

#: The clock is stepped no further while so many executions are live, and at most so often a second.
_MOST_LIVE, _STEPS_A_SECOND = 1500, 40

_LIVE = "SELECT count(*) FROM execution"
_LEFT = """
SELECT (SELECT count(*) FROM execution), (SELECT count(*) FROM job_schedule WHERE next_execution_time IS NOT NULL)
"""
_HISTORY = "SELECT job_id, scheduled_for, state, attempt, id FROM execution_history"


def run(
    *,
    nights: Sequence[Night] = NIGHTS,
    kill_every: float = 12.0,
    step: tuple[float, float] = (10.0, 30.0),
    seed: int = 1,
) -> dict[str, Any]:
    """Live through ``nights``, one after the other, by ``step`` seconds (from, to) at a time.

    A poller is killed about every ``kill_every`` seconds.
    """
    findings = Findings()
    figures = {
        night.name: _live_through(night, kill_every, step, random.Random(seed), findings) for night in nights
    }
    total = {key: sum(each[key] for each in figures.values()) for key in ("jobs", "slots", "pollers_killed")}
    return told(findings, total | figures)


def _live_through(
    night: Night, kill_every: float, step: tuple[float, float], chance: random.Random, findings: Findings
) -> dict[str, Any]:
    found = Findings()
    change = wall.change(night.zone, YEAR, forward=night.forward)
    # An odd moment, so that no slot falls on either end.
    first = change.at - timedelta(hours=night.hours / 6 + 1) + timedelta(seconds=11.5)
    last = first + timedelta(hours=night.hours)
    plans = [_plan(night, change.at, chance) for _ in range(night.jobs)]
    with Clock() as clock:
        clock.show(first - timedelta(minutes=10))
        stand = ClockedStand(clock, JOBSCHED_LOG_FORMAT="json", JOBSCHED_POLL_INTERVAL="0.05")
        with Stage(stand) as stage:
            client = stage.cast(pollers=1, workers=2, concurrency=100)
            common = {
                "api": stage.target.url + "/ok",
                "misfire_policy": "fire_all",
                "start_at": stamp(first),
                "end_at": stamp(last),
            }
            jobs = client.jobs.create_many(
                [common | {"schedule": schedule, "timezone": zone} for schedule, zone in plans]
            )["ids"]
            began = time.monotonic()
            killed, stuck = _go_through(stage, clock, last, kill_every, step, chance)
            seconds = time.monotonic() - began
            found.expect(not stuck, f"left at the end: {stuck}")
            found.none_of(stage.ended(), "processes have ended")
            rows = stand.query(_HISTORY)
            arrived = Counter((call.execution, call.attempt) for call in stage.calls())
            warnings = stage.warnings()
    expected = {
        (job, stamp(slot))
        for job, (schedule, zone) in zip(jobs, plans, strict=True)
        for slot in wall.slots(schedule, zone, first, last)
    }
    ran = Counter((job, stamp(slot)) for job, slot, *_ in rows)
    schedules = dict(zip(jobs, plans, strict=True))
    found.none_of([(*schedules[one[0]], one[1]) for one in sorted(expected - ran.keys())], "slots missing")
    found.none_of([(*schedules[one[0]], one[1]) for one in sorted(ran.keys() - expected)], "slots too many")
    found.none_of([one for one, count in ran.items() if count > 1], "slots that ran twice")
    found.none_of([row for row in rows if row[2] != "succeeded"], "executions that did not succeed")
    found.none_of([one for one, count in arrived.items() if count > 1], "attempts that arrived twice")
    found.none_of(
        {row[4] for row in rows} ^ {one[0] for one in arrived}, "executions without a call, or calls without"
    )
    findings.extend(f"{night.name}: {one}" for one in found)
    return {
        "jobs": night.jobs,
        "slots": len(expected),
        "calls": sum(arrived.values()),
        "simulated_hours": night.hours,
        "real_seconds": round(seconds, 1),
        "pollers_killed": killed,
        "warnings in the logs": sum(warnings.values()),
    }


def _go_through(
    stage: Stage,
    clock: Clock,
    last: datetime,
    kill_every: float,
    step: tuple[float, float],
    chance: random.Random,
) -> tuple[int, str]:
    """Step the clock until all is over. How many pollers were killed, and what was left at the end."""
    killed = 0
    link = stage.stand.link()
    kill_at = time.monotonic() + chance.uniform(0.3, 1.0) * kill_every
    until = last + timedelta(minutes=2)
    next_step = time.monotonic()
    while clock.now() < until:
        clock.step(chance.uniform(*step))
        next_step = max(next_step + 1 / _STEPS_A_SECOND, time.monotonic())
        if time.monotonic() > kill_at:
            kill_at = time.monotonic() + chance.uniform(0.5, 1.5) * kill_every
            killed += 1
            stage.kill("p1")
            stage.poller("p1")
        while _count(link) > _MOST_LIVE:
            time.sleep(0.1)
        time.sleep(max(0.0, next_step - time.monotonic()))
    end = time.monotonic() + 60
    while (left := link.execute(_LEFT)) != [(0, 0)] and time.monotonic() < end:
        time.sleep(0.1)
    link.close()
    return killed, "" if left == [(0, 0)] else f"{left[0][0]} executions live, {left[0][1]} schedules to come"


def _count(link: Link) -> int:
    count: int = link.execute(_LIVE)[0][0]
    return count


def _plan(night: Night, change: datetime, chance: random.Random) -> tuple[str, str]:
    """The schedule and the zone of one job."""
    zone = night.zone if chance.random() < 0.5 else chance.choice(_OTHERS)
    kind = chance.choices((_OFTEN, _HOURLY, _ALIASES, _EDGES, ()), (22, 20, 8, 44, 6))[0]
    if kind:
        return chance.choice(kind).format(m=chance.randrange(60)), zone
    local = change.astimezone(ZoneInfo(zone)).replace(tzinfo=None, second=0, microsecond=0)
    at = local + timedelta(minutes=chance.randrange(-50, 70))
    return f"@at {at.isoformat()}", zone

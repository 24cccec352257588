"""Named scenarios of the chaos bench: one fault each, brought about on purpose, and figures of what followed.

Each is a function that starts processes of its own, and returns ``passed``, ``findings`` (a sentence for each
thing that was wrong) and ``figures``. ``small``: sizes for a run of seconds; None for what takes long in any size, or
of which tests/chaos/test_faults.py has a small one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.bench.scenarios import (
    clock_jump,
    disk_full,
    dst_day,
    postgres_away,
    postgres_restarted,
    redis_away,
    redis_wiped,
    rolling_restart,
    worker_frozen,
    worker_killed,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``shows``: what it must show, in one sentence."""

    name: str
    shows: str
    run: Callable[..., dict[str, Any]]
    small: Mapping[str, Any] | None = None


_ALL = (
    Scenario(
        "redis_wiped",
        "Redis is emptied several times under full load: every execution is delivered once, the last one "
        "within 15 s of its wipe",
        redis_wiped.run,
    ),
    Scenario(
        "redis_away",
        "Redis is away for 60 s: the API answers everything, and within 10 s of its return nothing is late",
        redis_away.run,
        {"seconds": 3.0, "jobs": 20, "step": 1.0, "callers": 1, "before": 1.0, "after": 1.0},
    ),
    Scenario(
        "postgres_restarted",
        "Postgres is killed and started again under load: every process goes on by itself, and nothing that "
        "was acknowledged is missing",
        postgres_restarted.run,
    ),
    Scenario(
        "worker_killed",
        "a worker is killed with 200 calls in flight: exactly those are sent again by another within 30 s, and "
        "what runs at most once fails as worker_lost",
        worker_killed.run,
    ),
    Scenario(
        "worker_frozen",
        "a worker stands still for 60 s with calls in flight: another runs them, and what the first says "
        "when it wakes up is not believed",
        worker_frozen.run,
    ),
    Scenario(
        "rolling_restart",
        "every process is stopped and replaced twice under load: no request fails behind a client with two "
        "addresses, nothing is lost, nothing is sent twice",
        rolling_restart.run,
        {"rounds": 1, "jobs": 20, "apis": 2, "pollers": 1, "workers": 1, "between": 0.0},
    ),
    Scenario(
        "postgres_away",
        "Postgres is away for 40 s with 200 calls in flight: no worker is declared dead, no call is sent "
        "twice, and every outcome is recorded",
        postgres_away.run,
    ),
    Scenario(
        "dst_day",
        "24 hours with a change of the clock, compressed: every slot of 2,000 jobs runs exactly once, and no other",
        dst_day.run,
        {"nights": dst_day.SMALL, "kill_every": 4.0, "step": (20.0, 40.0)},
    ),
    Scenario(
        "clock_jump",
        "the database's clock jumps by an hour ahead and back and swings by 30 s, with calls in flight: no duplicates, "
        "nothing lost, no worker declared dead, and slots only move forward",
        clock_jump.run,
        {"jobs": 3, "step": 60, "calls": 10, "answer_seconds": 3.0, "hold": 1.5},
    ),
    Scenario(
        "disk_full",
        "the disk of Postgres is full for 10 s: the API answers 503 meanwhile, never 500, and nothing "
        "acknowledged is lost",
        disk_full.run,
    ),
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}

"""A load whose every slot is known beforehand, and the account of what became of it."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import calls_of, every, stamp
from tests.conftest import eventually

# One statement: between two, a firing could move work from the second to the first.
_LEFT = """
SELECT (SELECT count(*) FROM execution),
    (SELECT count(*) FROM job_schedule WHERE next_execution_time IS NOT NULL)
"""
_HISTORY = """
SELECT id, job_id, scheduled_for, state, attempt, attempts, error_code FROM execution_history ORDER BY id
"""


class Load:
    """Jobs that are due every second, ``runs`` times, from about a second after their registration."""

    def __init__(self, client: Client, url: str, *, jobs: int, runs: int, **fields: Any) -> None:
        self.start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        self.jobs = [
            client.jobs.create(
                schedule="@every 1s", start_at=stamp(self.start), max_runs=runs, api=url, **fields
            )["id"]
            for _ in range(jobs)
        ]
        self.slots = {(job, slot) for job in self.jobs for slot in every(self.start, 1, runs)}

    def account(self, stand: Stand, target: Target, *, repeats: int, within: float = 45) -> int:
        """Wait for the end, then account for every slot; returns how many calls were repeated.

        Every slot fired and ended once, as a success. The target saw each execution under one key, no more
        often than its history tells, and at most ``repeats`` calls more than there are slots.
        """

        def all_over() -> None:
            assert stand.query(_LEFT) == [(0, 0)], stand.query(
                "SELECT state, count(*) FROM execution GROUP BY 1"
            )

        patiently(all_over, within)
        rows = stand.query(_HISTORY)
        ended = Counter((job, stamp(slot)) for _id, job, slot, *_ in rows)
        assert {slot: count for slot, count in ended.items() if count != 1} == {}, "slots that ended twice"
        assert set(ended) == self.slots, (self.slots - set(ended), set(ended) - self.slots)
        assert Counter((state, code) for *_, state, _n, _attempts, code in rows) == {
            ("succeeded", None): len(self.slots)
        }
        calls = calls_of(target.arrivals)
        known = {row[0]: row for row in rows}
        assert {(call.job, call.slot) for call in calls} == self.slots
        assert {call.execution for call in calls} == set(known)
        assert len({(call.key, call.execution) for call in calls}) == len(known)
        assert len({call.key for call in calls}) == len(known)
        arrived = Counter((call.execution, call.attempt) for call in calls)
        assert {key: count for key, count in arrived.items() if count > 1} == {}, "attempts that came twice"
        for execution, attempt in arrived:
            assert attempt <= known[execution][4]
        repeated = len(calls) - len(self.slots)
        assert repeated <= repeats
        return repeated


def patiently(assertion: Any, timeout: float) -> None:
    """As ``eventually``, but looks less often and forgives a server that is away."""

    def look() -> None:
        try:
            assertion()
        except AssertionError:
            until(time.monotonic() + 0.1)
            raise
        except Exception as error:
            raise AssertionError(str(error)) from error

    eventually(look, timeout)


def until(moment: float) -> None:
    """Wait for a moment of the monotonic clock: for faults that must last, and tests of what must not happen."""

    def come() -> None:
        assert time.monotonic() >= moment

    eventually(come, max(0.0, moment - time.monotonic()) + 5)


def lasting(seconds: float) -> None:
    """Let a fault last."""
    until(time.monotonic() + seconds)

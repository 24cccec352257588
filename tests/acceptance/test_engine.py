"""The engine, end to end: 1,000 jobs of every kind, all due within seconds, and each call accounted for.

Everything is registered, run and ended once, by the fixture ``story``; the tests read what came of it.
"""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import LIVE, Call, by_job, calls_of, every, history, seconds, slots_of, stamp
from tests.conftest import eventually

#: Seconds by which a machine that is busy with other things may delay a call.
LATE = 4.0

Planned = dict[str, list[dict[str, Any]]]

_ZONES = ("Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "UTC")
_NEVER = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


@dataclass
class Story:
    """What was registered, what was done to it and what came of it."""

    start: datetime
    jobs: Planned
    calls: dict[int, list[Call]] = field(default_factory=dict)
    mended_calls: dict[int, list[Call]] = field(default_factory=dict)
    history: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    dead: dict[int, dict[str, Any]] = field(default_factory=dict)
    redrive: dict[str, Any] = field(default_factory=dict)
    aborted_after: list[float] = field(default_factory=list)
    ran_now: dict[int, dict[str, Any]] = field(default_factory=dict)

    def slots(self, group: str) -> dict[int, list[str]]:
        """The slots that each job of a group was called for, in their own order."""
        return {
            job["id"]: sorted(call.slot for call in self.calls.get(job["id"], [])) for job in self.jobs[group]
        }

    def told(self, group: str, *names: str) -> list[tuple[Any, ...]]:
        """Of every execution of a group, the fields of these names."""
        return [
            tuple(execution[name] for name in names)
            for job in self.jobs[group]
            for execution in self.history.get(job["id"], [])
        ]

    def gaps(self, group: str) -> list[tuple[int, list[float]]]:
        """Of each job of a group, how many calls it got and the seconds between them."""
        found = []
        for job in self.jobs[group]:
            at = [call.at for call in self.calls.get(job["id"], [])]
            found.append((len(at), [later - at[n] for n, later in enumerate(at[1:])]))
        return found


def plan_for_tomorrow(url: str) -> Planned:
    """Jobs that are not due before tomorrow."""
    tomorrow = stamp(datetime.now(UTC) + timedelta(days=1))
    return {
        "aliases": [
            {"schedule": _NEVER[n % 7], "start_at": tomorrow, "api": f"{url}/ok", "payload": {"n": n}}
            for n in range(96)
        ],
        "run by hand": [
            {"schedule": "@yearly", "start_at": tomorrow, "api": f"{url}/ok"}
            | ({"is_active": False} if n % 2 else {})
            for n in range(10)
        ],
    }


def plan(start: datetime, url: str, broken: str) -> Planned:
    """The other jobs, by what is expected of them. ``broken``: a target that is mended later."""
    after = [start + timedelta(milliseconds=25 * n) for n in range(240)]
    local = [datetime.now(ZoneInfo(zone)).utcoffset() for zone in _ZONES]
    walls = [start + timedelta(seconds=n % 6) + (local[n % 4] or timedelta()) for n in range(60)]
    odd = {"min_backoff_seconds": 0.2, "max_retry_count": 1}
    once = {"schedule": stamp(start + timedelta(seconds=1)), "max_retry_count": 0}
    return {
        "instants": [
            {"schedule": stamp(at), "api": f"{url}/ok", "payload": {"n": n}, "priority": n % 11}
            for n, at in enumerate(after)
        ],
        "local instants": [
            {
                "schedule": f"@at {wall.replace(tzinfo=None).isoformat()}",
                "timezone": _ZONES[n % 4],
                "api": f"{url}/ok",
            }
            for n, wall in enumerate(walls)
        ],
        "delays": [
            {"schedule": f"@in {10 + n % 5}s", "api": f"{url}/status/204", "method": "GET"}
            for n in range(160)
        ],
        "intervals": [
            {
                "schedule": "@every 2s",
                "start_at": stamp(start),
                "max_runs": 3,
                "api": f"{url}/echo",
                "method": "PUT",
                "payload": [n],
                "priority": n % 11,
            }
            for n in range(140)
        ],
        "crons": [
            {
                "schedule": "*/2 * * * * *",
                "start_at": stamp(start),
                "end_at": stamp(start + timedelta(seconds=6)),
                "api": f"{url}/ok",
            }
            for n in range(100)
        ],
        "zoned crons": [
            {
                "schedule": f"{wall.second} {wall.minute} {wall.hour} {wall.day} {wall.month} *",
                "timezone": _ZONES[n % 4],
                "is_recurring": False,
                "api": f"{url}/ok",
            }
            for n, wall in enumerate(walls)
        ],
        "mends itself": [once | {"api": f"{url}/fail-twice", "max_retry_count": 3} for _ in range(20)],
        "always 500": [once | {"api": f"{url}/status/500", "max_retry_count": 3} for _ in range(20)],
        "not found": [once | {"api": f"{url}/status/404", **odd} for _ in range(10)],
        "gone": [once | {"api": f"{url}/status/410", **odd} for _ in range(4)],
        "told to wait": [once | {"api": f"{url}/retry-after/2", **odd} for _ in range(10)],
        "hangs": [once | {"api": f"{url}/hang", "timeout_seconds": 1} for _ in range(5)],
        "drips": [once | {"api": f"{url}/drip", "timeout_seconds": 1} for _ in range(5)],
        "redirects": [once | {"api": f"{url}/redirect?to={url}/ok?redirected"} for _ in range(5)],
        "closes": [once | {"api": f"{url}/close"} for _ in range(5)],
        "cut off": [once | {"api": f"{url}/cut-headers"} for _ in range(5)],
        "big": [once | {"api": f"{url}/big"} for _ in range(5)],
        "broken": [once | {"api": f"{broken}/ok", **odd, "payload": {"broken": n}} for n in range(10)],
        "cancelled waiting": [
            {"schedule": stamp(start), "api": f"{url}/status/500", "min_backoff_seconds": 60}
            for _ in range(5)
        ],
        "cancelled running": [
            {"schedule": stamp(start), "api": f"{url}/hang", "timeout_seconds": 120} for _ in range(5)
        ],
        "paused": [{"schedule": "@every 1s", "start_at": stamp(start), "api": f"{url}/ok"} for _ in range(5)],
        "resumed": [
            {"schedule": "@every 1s", "start_at": stamp(start), "max_runs": 2, "api": f"{url}/ok"}
            for _ in range(5)
        ],
        "deleted": [{"schedule": stamp(start), "api": f"{url}/ok"} for _ in range(10)],
    }


_PLAIN = ("instants", "local instants", "delays", "intervals", "crons", "zoned crons")


def register(stand: Stand, planned: Planned) -> Planned:
    """Create all jobs, four at a time, the last group first."""
    own = threading.local()

    def create(fields: dict[str, Any]) -> Any:
        if not hasattr(own, "client"):
            own.client = stand.client()
        return own.client.jobs.create(fields)

    with ThreadPoolExecutor(4) as pool:
        return {group: list(pool.map(create, planned[group])) for group in reversed(planned)}


def wait_until_idle(client: Client) -> None:
    """Wait until nothing is waiting or running, and no slot is left in the near future."""

    def nothing_left() -> None:
        live = client.executions.page(state=LIVE, limit=500)["items"]
        assert [(one["id"], one["jobId"], one["state"], one["dueAt"]) for one in live] == []

    eventually(nothing_left, 40)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Target() as target, Stand() as stand, socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        stand.start("poller", "poller")
        stand.start("worker", "worker", "--name", "w1")
        stand.start_api()
        client = stand.client()
        began = datetime.now(UTC)
        jobs = register(stand, plan_for_tomorrow(target.url))
        # Time for the other 894, at the speed of these 106, and half as much again.
        now = datetime.now(UTC)
        start = (now + 13 * (now - began) + timedelta(seconds=3)).replace(microsecond=0)
        told = Story(start + timedelta(seconds=start.second % 2), jobs)
        told.jobs |= register(stand, plan(told.start, target.url, f"http://127.0.0.1:{port}"))
        act(told, client)
        see(told, client, target)
        mend(told, client, reserved, port)
        told.calls = by_job(calls_of(target.arrivals))
        told.history = history(client)
        for name in ("worker", "poller", "api"):
            assert stand.stop(name) == 0, stand.log_of(name)
            assert "Traceback" not in stand.log_of(name)
        yield told


def act(told: Story, client: Client) -> None:
    """Before anything is due: pause, delete, run by hand."""
    for job in told.jobs["paused"] + told.jobs["resumed"]:
        client.jobs.pause(job["id"])
    for job in told.jobs["deleted"]:
        client.jobs.delete(job["id"])
    for n, job in enumerate(told.jobs["run by hand"]):
        told.ran_now[job["id"]] = dict(client.jobs.run(job["id"], payload={"by hand": n}))
    assert datetime.now(UTC) < told.start, "registering took longer than planned"


def see(told: Story, client: Client, target: Target) -> None:
    """While it runs: cancel what waits and what runs, resume; then wait until all is over."""
    running = {job["id"] for job in told.jobs["cancelled running"]}
    waiting = {job["id"] for job in told.jobs["cancelled waiting"]}

    def of(jobs: set[int], state: str) -> list[int]:
        found = [one for one in client.executions.list(state=state, limit=500) if one["jobId"] in jobs]
        return [one["id"] for one in found]

    eventually(lambda: _equal(len(of(running, "running")), 5), 90)
    ids = of(running, "running")
    for execution in ids:
        client.executions.cancel(execution)
    flagged = datetime.now(UTC).timestamp()
    for execution in ids:
        ended = client.executions.wait(execution, timeout=10)
        told.aborted_after.append(seconds(str(ended["finishedAt"])) - flagged)
    eventually(lambda: _equal(len(of(waiting, "retrying")), 5), 20)
    for execution in of(waiting, "retrying"):
        assert client.executions.cancel(execution)["state"] == "cancelled"
    for job in told.jobs["resumed"]:
        client.jobs.resume(job["id"])
    last = told.start + timedelta(seconds=7)
    eventually(lambda: _true(datetime.now(UTC) > last), 60)
    wait_until_idle(client)
    told.dead = {letter["jobId"]: letter for letter in client.dead_letters.list(limit=500)}


def mend(told: Story, client: Client, reserved: socket.socket, port: int) -> None:
    """Start the target that was not there and send its dead letters again."""
    reserved.close()
    ids = [told.dead[job["id"]]["id"] for job in told.jobs["broken"]]
    with Target(port=port) as mended:
        told.redrive = client.dead_letters.redrive(ids)
        mended.wait_for(len(ids), 20)
        eventually(
            lambda: _equal(
                client.dead_letters.redrive_progress(told.redrive["id"]),
                {"id": told.redrive["id"], "matched": 10, "done": 10, "failed": 0, "state": "finished"},
            ),
            20,
        )
        told.mended_calls = by_job(calls_of(mended.arrivals))
    wait_until_idle(client)


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def _true(found: object) -> None:
    assert found


def test_a_thousand_jobs_were_registered(story: Story) -> None:
    assert sum(len(jobs) for jobs in story.jobs.values()) == 1000
    assert len({job["id"] for jobs in story.jobs.values() for job in jobs}) == 1000


def test_every_due_slot_was_called_exactly_once_and_nothing_else(story: Story) -> None:
    start = story.start
    wanted: dict[str, dict[int, list[str]]] = {
        "instants": {
            job["id"]: [stamp(start + timedelta(milliseconds=25 * n))]
            for n, job in enumerate(story.jobs["instants"])
        },
        "delays": {
            job["id"]: [stamp(datetime.fromisoformat(job["createdAt"]) + timedelta(seconds=10 + n % 5))]
            for n, job in enumerate(story.jobs["delays"])
        },
        "intervals": {job["id"]: every(start, 2, 3) for job in story.jobs["intervals"]},
        # startAt and endAt are both inclusive, and the start is an even second.
        "crons": {job["id"]: [stamp(start), *every(start, 2, 3)] for job in story.jobs["crons"]},
        "aliases": {job["id"]: [] for job in story.jobs["aliases"]},
    }
    for group in ("zoned crons", "local instants"):
        wanted[group] = {
            job["id"]: [stamp(start + timedelta(seconds=n % 6))] for n, job in enumerate(story.jobs[group])
        }
    assert {group: story.slots(group) for group in wanted} == wanted


def test_the_history_agrees_with_the_target_call_by_call(story: Story) -> None:
    for group in _PLAIN:
        called = sorted(
            (call.job, call.execution, call.slot, call.attempt)
            for job in story.jobs[group]
            for call in story.calls[job["id"]]
        )
        told = sorted(
            (one["jobId"], one["id"], one["scheduledFor"], one["attempt"])
            for job in story.jobs[group]
            for one in story.history[job["id"]]
        )
        assert called == told, group
        assert set(story.told(group, "state", "trigger", "attempt", "retryCount", "worker")) == {
            ("succeeded", "schedule", 1, 0, "w1")
        }, group


def test_no_call_came_before_its_time_and_none_much_later(story: Story) -> None:
    delays = sorted(
        call.at - seconds(call.slot)
        for group in _PLAIN
        for job in story.jobs[group]
        for call in story.calls[job["id"]]
    )
    assert delays[0] >= 0
    assert delays[len(delays) // 2] < 1.0
    assert delays[-1] < LATE


def test_method_payload_and_headers_arrive_as_registered(story: Story) -> None:
    seen = {}
    for group in ("instants", "delays", "intervals"):
        for job in story.jobs[group]:
            arrival = story.calls[job["id"]][0].arrival
            seen[job["id"]] = (arrival.method, arrival.body, arrival.headers.get("content-type"))
    wanted = {}
    for n, job in enumerate(story.jobs["instants"]):
        wanted[job["id"]] = ("POST", b'{"n":%d}' % n, "application/json")
    for job in story.jobs["delays"]:
        wanted[job["id"]] = ("GET", b"", None)
    for n, job in enumerate(story.jobs["intervals"]):
        wanted[job["id"]] = ("PUT", b"[%d]" % n, "application/json")
    assert seen == wanted


def test_a_target_that_fails_twice_is_called_again_after_one_and_two_seconds(story: Story) -> None:
    for count, gaps in story.gaps("mends itself"):
        assert count == 3
        assert 0.9 <= gaps[0] <= 1.1 + LATE
        assert 1.8 <= gaps[1] <= 2.2 + LATE
    assert story.told("mends itself", "state", "attempt", "retryCount", "responseStatus", "errorCode") == [
        ("succeeded", 3, 2, 200, None)
    ] * len(story.jobs["mends itself"])


def test_a_target_that_always_fails_is_called_after_one_two_and_four_seconds_and_then_dead(
    story: Story,
) -> None:
    for count, gaps in story.gaps("always 500"):
        assert count == 4
        for gap, delay in zip(gaps, (1, 2, 4), strict=True):
            assert 0.9 * delay <= gap <= 1.1 * delay + LATE
    group = story.jobs["always 500"]
    assert story.told("always 500", "state", "attempt", "retryCount", "responseStatus", "errorCode") == [
        ("failed", 4, 3, 500, "http_status")
    ] * len(group)
    for job in group:
        (one,) = story.history[job["id"]]
        assert [(a["attempt"], a["responseStatus"], a["errorCode"]) for a in one["attempts"]] == [
            (n, 500, "http_status") for n in (1, 2, 3, 4)
        ]
        letter = story.dead[job["id"]]
        assert (letter["id"], letter["attempt"], letter["errorCode"]) == (one["id"], 4, "http_status")


def test_half_of_the_delays_is_not_the_same_as_the_other_half(story: Story) -> None:
    first = [gaps[0] for _count, gaps in story.gaps("always 500")]
    assert max(first) - min(first) > 0.01, "no jitter"


def test_all_attempts_of_an_execution_carry_one_key_and_growing_numbers(story: Story) -> None:
    for group in ("mends itself", "always 500", "not found", "told to wait"):
        for job in story.jobs[group]:
            calls = story.calls[job["id"]]
            assert [call.attempt for call in calls] == list(range(1, len(calls) + 1))
            assert len({(call.key, call.slot, call.arrival.body) for call in calls}) == 1


def test_a_404_is_retried_and_then_dead(story: Story) -> None:
    assert [count for count, _gaps in story.gaps("not found")] == [2] * 10
    assert (
        story.told("not found", "state", "retryCount", "responseStatus", "errorCode")
        == [("failed", 1, 404, "http_status")] * 10
    )


def test_a_410_is_dead_at_once(story: Story) -> None:
    assert [count for count, _gaps in story.gaps("gone")] == [1] * 4
    assert story.told("gone", "state", "retryCount", "responseStatus") == [("failed", 0, 410)] * 4


def test_retry_after_lengthens_the_delay(story: Story) -> None:
    for count, gaps in story.gaps("told to wait"):
        assert count == 2
        assert 2.0 <= gaps[0] <= 2.0 + LATE
    assert story.told("told to wait", "state", "responseStatus") == [("failed", 429)] * 10


@pytest.mark.parametrize("group", ["hangs", "drips"])
def test_an_answer_that_does_not_end_in_time_is_a_timeout(story: Story, group: str) -> None:
    assert story.told(group, "state", "attempt", "errorCode") == [("failed", 1, "timeout")] * 5
    for (duration,) in story.told(group, "executionDurationMs"):
        assert 950 <= duration <= 1000 + 1000 * LATE


def test_a_redirect_is_a_failure_and_is_not_followed(story: Story) -> None:
    assert (
        story.told("redirects", "state", "responseStatus", "errorCode")
        == [("failed", 302, "http_status")] * 5
    )
    followed = [call for calls in story.calls.values() for call in calls if "redirected" in call.arrival.path]
    assert [call.arrival.path.split("?")[0] for call in followed] == ["/redirect"] * 5


@pytest.mark.parametrize("group", ["closes", "cut off"])
def test_an_answer_that_is_cut_off_is_never_a_success(story: Story, group: str) -> None:
    assert story.told(group, "state", "attempt", "errorCode") == [("failed", 1, "protocol_error")] * 5
    assert [count for count, _gaps in story.gaps(group)] == [1] * 5


def test_a_big_answer_is_a_success_and_kept_in_part(story: Story) -> None:
    assert (
        story.told("big", "state", "responseStatus", "responseTruncated", "responseBody")
        == [("succeeded", 200, True, "x" * 8192)] * 5
    )


def test_dead_letters_are_exactly_what_failed_for_good(story: Story) -> None:
    failing = (
        "always 500",
        "not found",
        "gone",
        "told to wait",
        "hangs",
        "drips",
        "redirects",
        "closes",
        "cut off",
        "broken",
    )
    assert set(story.dead) == {job["id"] for group in failing for job in story.jobs[group]}
    assert Counter(letter["errorCode"] for letter in story.dead.values()) == {
        "http_status": 49,
        "timeout": 10,
        "protocol_error": 10,
        "connect_failed": 10,
    }


def test_dead_letters_are_redriven_once_the_target_is_mended(story: Story) -> None:
    group = story.jobs["broken"]
    assert story.redrive["matched"] == 10
    for n, job in enumerate(group):
        failed, redriven = story.history[job["id"]]
        assert (failed["state"], failed["errorCode"], failed["attempt"]) == ("failed", "connect_failed", 2)
        assert (
            redriven["state"],
            redriven["trigger"],
            redriven["redriveOf"],
            redriven["attempt"],
            redriven["scheduledFor"],
        ) == ("succeeded", "redrive", failed["id"], 1, failed["scheduledFor"])
        (call,) = story.mended_calls[job["id"]]
        assert (call.execution, call.arrival.body) == (redriven["id"], b'{"broken":%d}' % n)


def test_what_was_cancelled_while_it_waited_is_not_called_again(story: Story) -> None:
    assert [count for count, _gaps in story.gaps("cancelled waiting")] == [1] * 5
    assert story.told("cancelled waiting", "state", "attempt") == [("cancelled", 1)] * 5


def test_what_was_cancelled_while_it_ran_is_aborted_within_two_seconds(story: Story) -> None:
    assert [count for count, _gaps in story.gaps("cancelled running")] == [1] * 5
    assert (
        story.told("cancelled running", "state", "attempt", "errorCode")
        == [("cancelled", 1, "cancelled")] * 5
    )
    assert max(story.aborted_after) < 2.0


def test_paused_and_deleted_jobs_are_never_called(story: Story) -> None:
    for group in ("paused", "deleted"):
        assert [story.calls.get(job["id"], []) for job in story.jobs[group]] == [[]] * len(story.jobs[group])
        assert story.told(group, "state") == []


def test_a_resumed_job_goes_on_with_the_next_slot_of_its_grid(story: Story) -> None:
    grid = every(story.start, 1, 100)
    for job in story.jobs["resumed"]:
        slots = [one["scheduledFor"] for one in story.history[job["id"]]]
        assert len(slots) == 2
        assert slots == grid[grid.index(slots[0]) :][:2]
        assert [call.slot for call in story.calls[job["id"]]] == slots


def test_run_now_sends_the_payload_it_was_given_even_if_the_job_is_paused(story: Story) -> None:
    for n, job in enumerate(story.jobs["run by hand"]):
        (call,) = story.calls[job["id"]]
        (one,) = story.history[job["id"]]
        assert call.arrival.body == b'{"by hand":%d}' % n
        assert (one["id"], one["state"], one["trigger"]) == (
            story.ran_now[job["id"]]["id"],
            "succeeded",
            "manual",
        )
        assert call.slot == one["scheduledFor"] == story.ran_now[job["id"]]["scheduledFor"]


def test_nothing_was_called_twice_for_one_attempt(story: Story) -> None:
    calls = [call for each in story.calls.values() for call in each]
    attempts = Counter((call.key, call.attempt) for call in calls)
    assert {key: count for key, count in attempts.items() if count > 1} == {}
    plain = [call for group in _PLAIN for job in story.jobs[group] for call in story.calls[job["id"]]]
    assert set(slots_of(plain).values()) == {1}

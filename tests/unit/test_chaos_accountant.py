"""The accountant of the chaos bench can fail: a world in order is clean, and whatever is changed in it is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.bench.account_rows import MOST_TOLD, DeadLetter
from tests.unit.chaos_world import (
    CRON,
    DELETED,
    DIES,
    FAILS,
    ONCE,
    PAUSED,
    QUEUES,
    START,
    STEADY,
    World,
    arrival,
    build,
    call,
    strike,
    time_of,
)


def test_a_world_in_order_is_clean() -> None:
    verdict = build().judge()
    assert verdict.clean, verdict
    assert verdict.figures["executions"] == 39
    assert verdict.figures["duplicates_explained"] == 1
    assert verdict.figures["sent_again_after_strike_max"] == pytest.approx(20.99, abs=0.01)
    assert verdict.figures["at_most_once"] == 3
    assert verdict.figures["calls_202"] == 4


def _drop(id: int) -> Callable[[World], object]:
    return lambda world: world.stored.pop(id)


def _no_arrival(id: int) -> Callable[[World], object]:
    return lambda world: world.arrivals.remove(world.of(id))


def _set(id: int, **fields: Any) -> Callable[[World], object]:
    return lambda world: world.set(id, **fields)


def _tries(world: World, id: int, **last: Any) -> None:
    """Change the last attempt of an execution."""
    *others, newest = world.stored[id].attempts
    world.set(id, attempts=(*others, {**newest, **last}))


def _row(job: int, **fields: Any) -> Callable[[World], object]:
    def act(world: World) -> None:
        world.jobs[job] = replace(world.jobs[job], **fields)

    return act


def _struck(**fields: Any) -> Callable[[World], object]:
    def act(world: World) -> None:
        world.strikes[0] = replace(world.strikes[0], **fields)

    return act


def _twice_unexplained(world: World) -> None:
    world.run(21, FAILS, 5, "/ok", "worker_lost", 200)
    del world.arrivals[-5:-2]


CHANGES: dict[str, tuple[str, str, Callable[[World], object]]] = {
    "an execution is gone": ("lost", "12:00:03.000 was neither run", _drop(13)),
    "the last slot is gone": ("lost", "12:00:05.000 was neither run", _drop(15)),
    "a cron slot is gone": ("lost", "12:00:02.000 was neither run", _drop(82)),
    "the slot of a one-off is gone": ("lost", "11:59:57.000 was neither run", _drop(86)),
    "a slot before a pause is gone": ("lost", "12:00:02.000 was neither run", _drop(122)),
    "a slot after a resume is gone": ("lost", "12:00:09.000 was neither run", _drop(129)),
    "a slot after an edit is gone": ("lost", "12:00:14.000 was neither run", _drop(134)),
    "a slot before a delete is gone": ("lost", "12:00:02.000 was neither run", _drop(112)),
    "skipped slots are not counted": ("lost", "12:00:02.000 was neither run", _drop(52)),
    "too many are counted": ("wrong_state", "counts 4 skipped slots", _set(54, skipped_count=4)),
    "an arrival is gone": ("lost", "never reached the target", _no_arrival(13)),
    "a run by hand is gone": ("lost", "acknowledged with execution 16", _drop(16)),
    "a retry is gone": ("lost", "acknowledged with execution 17", _drop(17)),
    "a redrive is gone": ("lost", "nothing was made of [32]", _drop(35)),
    "a job is gone": ("lost", "there is no job 1", lambda world: world.jobs.pop(STEADY)),
    "a job is deleted by nobody": ("lost", "nobody asked", _row(STEADY, deleted_at=START + 9)),
    "an arrival of nobody": (
        "lost",
        "no execution 99",
        lambda world: world.arrivals.append(arrival(99, 1, STEADY, 3, 3, "schedule", "/ok")),
    ),
    "a slot fires twice": (
        "duplicates",
        "several executions: 13, 90",
        lambda world: world.run(90, STEADY, 3, "/ok", 200),
    ),
    "a slot that is none": (
        "wrong_state",
        "12:00:03.500, when its schedule has no slot",
        lambda world: world.run(90, STEADY, 3.5, "/ok", 200),
    ),
    "a slot in a pause": ("wrong_state", "no slot", lambda world: world.run(90, PAUSED, 6, "/ok", 200)),
    "a slot of the schedule before": (
        "wrong_state",
        "no slot",
        lambda world: world.run(90, PAUSED, 13, "/ok", 200),
    ),
    "a slot after a delete": ("wrong_state", "no slot", lambda world: world.run(90, DELETED, 5, "/ok", 200)),
    "an attempt arrives twice": (
        "duplicates",
        "arrived 2 times",
        lambda world: world.arrivals.append(replace(world.of(13), at=START + 3.2)),
    ),
    "another webhook-id": (
        "duplicates",
        "before as exec_abc123_21",
        lambda world: world.change(21, 2, webhook_id="exec_abc124_21"),
    ),
    "the webhook-id of another": (
        "duplicates",
        "as execution 12 did",
        lambda world: world.change(13, webhook_id="exec_abc123_12"),
    ),
    "an attempt that was never recorded": (
        "duplicates",
        "Postgres has had only 1",
        lambda world: world.arrivals.append(replace(world.of(13), attempt=2, at=START + 4)),
    ),
    "an attempt that was never sent": ("duplicates", "was never sent", _set(13, attempt=2, attempts=())),
    "a repetition without a reason": ("duplicates", "nothing had struck that worker", _twice_unexplained),
    "a strike on another worker": ("duplicates", "nothing had struck", _struck(worker="worker3.1")),
    "a strike at another time": (
        "duplicates",
        "nothing had struck",
        _struck(began=START + 60, ended=START + 61),
    ),
    "a strike before": ("wrong_state", "which nothing had struck", _struck(began=START - 3, ended=START - 2)),
    "at most once, twice": (
        "duplicates",
        "is at most once, but goes on",
        lambda world: world.run(42, ONCE, 2, "/slow/500", "worker_lost", 200),
    ),
    "a run that nobody asked for": (
        "duplicates",
        "nobody asked for",
        lambda world: world.run(90, STEADY, 3.1, "/ok", 200, trigger="manual"),
    ),
    "a redrive too many": (
        "duplicates",
        "one redrive more of 32",
        lambda world: world.run(90, DIES, 2, "/ok", 200, trigger="redrive", due=7, of=32),
    ),
    "a job of the same name": ("duplicates", "there 2 times", _row(CRON, name="job1")),
    "a job that nobody made": ("duplicates", "nobody asked for it", _row(CRON, name="stranger")),
    "a wrong state": ("wrong_state", "has failed with the answer 200", _set(13, state="failed")),
    "success after a failure": ("wrong_state", "succeeded with the answer 500", _set(31, state="succeeded")),
    "another answer than was given": (
        "wrong_state",
        "was answered 200 (/ok)",
        lambda world: _tries(world, 13, responseStatus=204),
    ),
    "failed too early": (
        "wrong_state",
        "failed after 0 of [5] retries",
        lambda world: world.run(21, FAILS, 5, "/fail/2", 500, state="failed"),
    ),
    "retried too often": ("wrong_state", "more than allowed", _set(21, retry_count=9)),
    "retries that do not add up": ("wrong_state", "counts 1 retries", _set(21, retry_count=1)),
    "attempts that do not add up": ("wrong_state", "ended in attempt 2", _set(13, attempt=2)),
    "cancelled by nobody": ("wrong_state", "nobody asked", _set(13, state="cancelled")),
    "a cancel without effect": (
        "wrong_state",
        "with 200, but is succeeded",
        lambda world: world.calls.append(call("cancel", 3, 200, STEADY, execution=13, answer={"id": 13})),
    ),
    "a cancel refused too early": (
        "wrong_state",
        "was not over then",
        lambda world: world.calls.append(call("cancel", 2.0, 409, STEADY, execution=13)),
    ),
    "a skip where overlaps are allowed": (
        "wrong_state",
        "allows overlaps",
        lambda world: world.skipped(13, STEADY, 3, "overlap", 1, 3.1),
    ),
    "a dead letter is gone": ("wrong_state", "is no dead letter", lambda world: world.dead.pop(31)),
    "a dead letter comes back": (
        "wrong_state",
        "is still there",
        lambda world: world.dead.update({33: DeadLetter(33, DIES, "http_status")}),
    ),
    "a dead letter of a success": (
        "wrong_state",
        "is a dead letter, but succeeded",
        lambda world: world.dead.update({13: DeadLetter(13, STEADY, None)}),
    ),
    "an edit is lost": ("wrong_state", "version 3, not 4", _row(PAUSED, version=3)),
    "a field is not as edited": (
        "wrong_state",
        "schedule is '@every 1s'",
        _row(PAUSED, fields={"schedule": "@every 1s"}),
    ),
    "a delete is lost": ("wrong_state", "the job is still there", _row(DELETED, deleted_at=None)),
    "a schedule is set aside": ("wrong_state", "was set aside", _row(STEADY, fault="unreadable")),
    "an answer that is none": (
        "wrong_state",
        "was answered 500",
        lambda world: world.answer("pause", status=500),
    ),
    "an answer that the contract does not know": (
        "wrong_state",
        "was answered 404",
        lambda world: world.answer("discard", status=404),
    ),
    "runs beside each other": ("wrong_state", "allows no overlap", lambda world: world.retime(53, -1.0)),
    "poison too early": (
        "wrong_state",
        "is poison after the loss of attempts [1]",
        lambda world: world.run(91, QUEUES, 2, "/slow/1500", "poison", state="failed", took=20),
    ),
    "another slot in the header": (
        "wrong_state",
        "as schedule for",
        lambda world: world.change(13, scheduled_for=time_of(4)),
    ),
    "a late start": ("out_of_time", "arrived 100.0 s later", lambda world: world.retime(13, 99.95)),
    "a late start with a strike long before": (
        "out_of_time",
        "arrived 60.0 s later; strikes explain 30.0 s",
        lambda world: world.retime(13, 59.95),
    ),
    "a repetition that comes late": (
        "out_of_time",
        "sent again only at",
        lambda world: world.change(91, 2, at=START + 90),
    ),
    "given up without a reason": (
        "out_of_time",
        "was given up 120.0 s later",
        lambda world: world.skipped(13, STEADY, 3, "misfire", 1, 123),
    ),
    "something is left": (
        "stuck",
        "is retrying since attempt 1",
        _set(13, state="retrying", finished_at=None),
    ),
    "something is due": ("stuck", "did not fire", _row(STEADY, next_execution_time=START + 6)),
    "a lock is left": (
        "leaked",
        "advisory locks: 1 are left, 0 may be",
        lambda world: world.leaks.found.update({"advisory locks": 1}),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_out_of_order_is_found(name: str) -> None:
    kind, words, change = CHANGES[name]
    world = build()
    change(world)
    verdict = world.judge()
    found: list[str] = getattr(verdict, kind)
    assert any(words in sentence for sentence in found), verdict


def test_slots_around_an_edit_are_excused() -> None:
    world = build()
    world.calls.append(
        call("patch", 4.9, 200, STEADY, sent={"schedule": "@every 5s"}, answer={"id": 1, "version": 2})
    )
    world.jobs[STEADY] = replace(
        world.jobs[STEADY], version=2, fields={**world.jobs[STEADY].fields, "schedule": "@every 5s"}
    )
    assert world.judge().clean, world.judge()
    del world.stored[14]
    world.arrivals.remove(world.of(14))
    assert world.judge().clean, "it was due just before the edit, and perhaps not fired yet"
    del world.stored[13]
    world.arrivals.remove(world.of(13))
    world.stored.pop(12)
    assert world.judge().lost, "what comes before a slot that was fired was fired"


def test_a_call_without_an_answer_excuses_both_outcomes() -> None:
    world = build()
    world.calls.append(call("run", 4, None, STEADY))
    assert world.judge().clean
    world.run(90, STEADY, 4.01, "/ok", 200, trigger="manual")
    assert world.judge().clean
    world.run(94, STEADY, 4.02, "/ok", 200, trigger="manual")
    assert world.judge().duplicates == ["execution 94 of job 1 is a run by hand that nobody asked for"]
    assert world.judge().figures["calls_unacknowledged"] == 1


def test_a_job_that_nobody_acknowledged_is_accounted_for_once_it_is_there() -> None:
    world = build()
    world.answer("create", status=None, answer=None, job=None)
    assert world.judge().clean, world.judge()
    world.stored.pop(13)
    assert "job 1: the slot 12:00:03.000 was neither run nor counted as skipped" in world.judge().lost
    del world.jobs[STEADY]
    assert not any("there is no job 1" in sentence for sentence in world.judge().lost)


def test_strikes_explain_delays() -> None:
    world = build()
    world.retime(13, 24.0)
    assert world.judge().clean, "a worker was killed just before"
    world.strikes.append(strike(3.5, 33.5))
    world.retime(13, 35.0)
    assert world.judge().clean, "and Postgres was away for 30 s"


def test_a_failure_recorded_after_the_delete_of_its_job_is_not_retried() -> None:
    """The call ended before the delete, but Postgres could not be written to until after it."""
    world = build()
    world.run(113, DELETED, 3, "/slow/3000", 500, state="failed", took=0.2)
    assert any("after 0 of" in sentence for sentence in world.judge().wrong_state)
    world.strikes.append(strike(3.0, 4.0))
    assert not any("after 0 of" in sentence for sentence in world.judge().wrong_state)


def test_nothing_is_promised_for_what_was_corrupted_on_purpose() -> None:
    world = build()
    world.poisoned = frozenset({STEADY})
    for id in (11, 12, 13):
        world.stored.pop(id)
    assert world.judge().clean, world.judge()


def test_a_long_list_is_cut_and_counted() -> None:
    world = build()
    for id in range(1000, 1000 + MOST_TOLD + 7):
        world.run(id, STEADY, 3.5, "/ok", 200, trigger="manual")
    assert len(world.judge().duplicates) == MOST_TOLD + 1
    assert world.judge().duplicates[-1] == "and 7 more"

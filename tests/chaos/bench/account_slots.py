"""Every slot of every job: run once, counted as skipped, or excused by what the user did at that very time."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.bench import slots as schedules
from tests.chaos.bench.account_books import Books, clock, slot_of
from tests.chaos.bench.account_lives import Change, Life
from tests.chaos.bench.account_rows import Findings
from tests.chaos.bench.records import Stored

#: Seconds by which the clocks of the client and of Postgres may be read apart.
_MARGIN = 0.05


@dataclass(slots=True)
class _Slots:
    """The slots of a job: those that it must have, and those that it may have."""

    sure: set[int]
    possible: set[int]


def check_slots(books: Books, findings: Findings) -> int:
    """Compare each job's slots with its rows. Returns how many slots there had to be."""
    count = 0
    for life in books.lives.values():
        rows = [one for one in books.by_job[life.job] if one.trigger == "schedule"]
        recorded: dict[int, list[Stored]] = defaultdict(list)
        for one in rows:
            recorded[slot_of(one)].append(one)
        found = _slots_of(books, life, sorted(recorded))
        count += len(found.sure)
        _told_twice(findings, life, recorded)
        _never_scheduled(findings, life, recorded, found)
        _missing(findings, life, recorded, found)
    return count


def _told_twice(findings: Findings, life: Life, recorded: dict[int, list[Stored]]) -> None:
    for slot, rows in recorded.items():
        if len(rows) > 1:
            ids = ", ".join(str(one.id) for one in rows)
            findings.add(
                "duplicates", f"job {life.job}: the slot {clock(slot / 1000)} has several executions: {ids}"
            )


def _never_scheduled(
    findings: Findings, life: Life, recorded: dict[int, list[Stored]], found: _Slots
) -> None:
    for slot in sorted(recorded.keys() - found.possible):
        ids = ", ".join(str(one.id) for one in recorded[slot])
        findings.add(
            "wrong_state",
            f"job {life.job}: execution {ids} is for {clock(slot / 1000)}, when its schedule has no slot",
        )


def _missing(findings: Findings, life: Life, recorded: dict[int, list[Stored]], found: _Slots) -> None:
    """What is neither run nor counted. A row of skipped slots counts for the newest before it that have no row."""
    open_slots = sorted(found.possible - recorded.keys())
    counted: set[int] = set()
    for slot in sorted(recorded):
        for one in recorded[slot]:
            others = (one.skipped_count or 1) - 1
            before = open_slots[: bisect_left(open_slots, slot)]
            theirs = [each for each in reversed(before) if each not in counted][: max(0, others)]
            counted.update(theirs)
            if len(theirs) < others:
                findings.add(
                    "wrong_state",
                    f"job {life.job}: execution {one.id} counts {one.skipped_count} skipped slots, but only "
                    f"{len(theirs) + 1} had no run by {clock(slot / 1000)}",
                )
    for slot in sorted(found.sure - recorded.keys() - counted):
        findings.add(
            "lost", f"job {life.job}: the slot {clock(slot / 1000)} was neither run nor counted as skipped"
        )


def _slots_of(books: Books, life: Life, recorded: list[int]) -> _Slots:
    found = _Slots(set(), set())
    changes = _of_timing(life)
    for change, following in pairwise([*changes, None]):
        assert change is not None
        if not change.fields["isActive"]:
            continue
        _add(books, life, change, following, recorded, found)
    return _limited(life, books, found)


def _of_timing(life: Life) -> list[Change]:
    """The changes that move slots: one that does not, or asks for what is already so, keeps the next one."""
    kept = [life.changes[0]]
    for change in life.changes[1:]:
        if change.timing != kept[-1].timing:
            kept.append(change)
    return kept


def _add(
    books: Books, life: Life, change: Change, following: Change | None, recorded: list[int], found: _Slots
) -> None:
    fields = change.fields
    first = change is life.changes[0]
    from_the_start = first and (
        fields["startAt"] is not None or not schedules.is_recurring(fields["schedule"])
    )
    began = 0.0 if from_the_start else change.began - _MARGIN
    sure_from = 0.0 if from_the_start else change.ended + _MARGIN
    stop_began, stop_ended = _stop(life, following, books.ended)
    start_at = fields["startAt"] and schedules.instant(fields["startAt"])
    end_at = fields["endAt"] and schedules.instant(fields["endAt"])
    theirs = list(
        schedules.slots(
            fields["schedule"],
            change.anchor,
            int(began * 1000),
            int((stop_ended + _MARGIN) * 1000),
            start_at=start_at,
            end_at=end_at,
        )
    )
    found.possible.update(theirs)
    if not change.certain:
        return
    sure_until = _reached(books, life)
    if stop_began < float("inf"):
        # Slots that were due and not yet fired when a job was stopped are dropped with it. But firing goes
        # forward: all before one that was fired was fired, too.
        fired = [slot for slot in recorded if began * 1000 <= slot <= stop_began * 1000]
        sure_until = max(books.fired_up_to(stop_began, fields["jitterSeconds"]), max(fired, default=0) / 1000)
    found.sure.update(slot for slot in theirs if sure_from * 1000 <= slot <= sure_until * 1000)


def _reached(books: Books, life: Life) -> float:
    """Up to when its schedule row says that every slot was dealt with."""
    row = books.jobs.get(life.job)
    if row is None or row.next_execution_time is None:
        return books.ended
    jitter: float = life.changes[-1].fields["jitterSeconds"]
    return min(books.ended, row.next_execution_time - jitter - _MARGIN)


def _stop(life: Life, following: Change | None, ended: float) -> tuple[float, float]:
    """From when on a definition may have been out of force, and from when on it certainly was."""
    began, stopped = float("inf"), ended
    if following is not None:
        began = following.began
        stopped = min(stopped, following.ended) if following.certain else stopped
    if life.deleted is not None:
        began = min(began, life.deleted.began)
        stopped = min(stopped, life.deleted.ended) if life.deleted.acknowledged else stopped
    return began, stopped


def _limited(life: Life, books: Books, found: _Slots) -> _Slots:
    """Without the slots after the last of ``maxRuns``; skipped ones are no runs."""
    most = life.changes[-1].fields["maxRuns"]
    if most is None:
        return found
    run = sorted(
        slot_of(one) for one in books.by_job[life.job] if one.trigger == "schedule" and one.state != "skipped"
    )
    if len(run) >= most:
        last = run[most - 1]
        return _Slots(
            {slot for slot in found.sure if slot <= last}, {slot for slot in found.possible if slot <= last}
        )
    return found

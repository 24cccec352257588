"""The accountant: compares what was asked for, what Postgres says and what the target received. Pure.

He believes nobody. What a job's slots are he computes himself; what the target was told to answer he reads from
the paths that it was called at; and whatever is out of order needs a strike that explains it: one that took effect,
on that very worker, at that very time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.chaos.bench.account_books import FINAL, Books, clock
from tests.chaos.bench.account_calls import check_calls
from tests.chaos.bench.account_delivery import Repeated, check_delivery
from tests.chaos.bench.account_lives import is_uncertain
from tests.chaos.bench.account_rows import DeadLetter, Findings, JobRow
from tests.chaos.bench.account_slots import check_slots
from tests.chaos.bench.account_states import check_states
from tests.chaos.bench.account_times import check_times
from tests.chaos.bench.records import Arrival, Call, Leaks, Stored, Strike, Verdict


def account(
    calls: Sequence[Call],
    stored: Iterable[Stored],
    arrivals: Iterable[Arrival],
    strikes: Iterable[Strike],
    leaks: Leaks,
    dead_letters: Iterable[DeadLetter],
    schedules: Iterable[JobRow],
    *,
    poisoned: frozenset[int] = frozenset(),
    ended: float,
) -> Verdict:
    """Judge a run that is over and drained.

    ``schedules``: every job with its schedule row, deleted ones included. ``poisoned``: jobs that a fault has
    corrupted on purpose. ``ended``: when the records were read.
    """
    books = Books(calls, stored, arrivals, strikes, dead_letters, schedules, poisoned, ended)
    findings = Findings()
    slots = check_slots(books, findings)
    check_calls(books, findings)
    repeated = check_delivery(books, findings)
    check_states(books, findings)
    delays = check_times(books, findings, repeated)
    _stuck(books, findings)
    _leaked(leaks, findings)
    return findings.verdict(_figures(books, slots, repeated) | delays)


def _stuck(books: Books, findings: Findings) -> None:
    """What is not over, and what is still to come, once everything was to have come to rest."""
    for one in books.rows:
        if one.state not in FINAL:
            findings.add(
                "stuck",
                f"execution {one.id} of job {one.job_id} is {one.state} since attempt {one.attempt}; due at "
                f"{clock(one.due_at or one.scheduled_for)}, worker {one.worker}",
            )
    for row in books.job_rows:
        if row.next_execution_time is not None and row.next_execution_time < books.ended:
            findings.add(
                "stuck", f"job {row.id} was due at {clock(row.next_execution_time)} and did not fire"
            )


def _leaked(leaks: Leaks, findings: Findings) -> None:
    for name, found in sorted(leaks.found.items()):
        allowed = leaks.allowed.get(name, 0)
        if found > allowed:
            findings.add("leaked", f"{name}: {found} are left, {allowed} may be")


def _figures(books: Books, slots: int, repeated: Repeated) -> dict[str, float]:
    began = min((call.began for call in books.calls), default=0.0)
    loaded = max((call.ended for call in books.calls), default=0.0)
    over = [one for one in books.rows if one.state in ("succeeded", "failed", "cancelled")]
    in_time = [one for one in over if one.finished_at is not None and one.finished_at <= loaded]
    once = [one for one in books.rows if _is_at_most_once(books, one)]
    statuses = Counter(str(call.status or "unanswered") for call in books.calls)
    return {
        "load_seconds": round(loaded - began, 1),
        "executions": len(books.rows),
        "slots": slots,
        "completed_per_second": round(len(in_time) / max(1.0, loaded - began), 1),
        "arrivals": len(books.arrivals),
        "duplicates_explained": repeated.explained,
        "duplicates_unexplained": repeated.unexplained,
        "retries": sum(one.retry_count for one in books.rows),
        "at_most_once": len(once),
        "calls": len(books.calls),
        "calls_unacknowledged": sum(is_uncertain(call) for call in books.calls),
        **{f"calls_{status}": count for status, count in sorted(statuses.items())},
        **{f"ended_{state}": count for state, count in sorted(Counter(o.state for o in books.rows).items())},
    }


def _is_at_most_once(books: Books, one: Stored) -> bool:
    life = books.life(one)
    return life is not None and "AT_MOST_ONCE" in life.ever("type")

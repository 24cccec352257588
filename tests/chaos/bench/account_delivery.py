"""What the target received, put beside what Postgres says was sent: nothing missing, nothing twice without a reason."""

import re
from collections import Counter
from dataclasses import dataclass

from tests.chaos.bench.account_books import (
    FINAL,
    NEVER_SENT,
    UNKNOWN_END,
    Books,
    Try,
    clock,
    cut_off_at,
    ended_in_attempt,
    slot_of,
)
from tests.chaos.bench.account_rows import Findings
from tests.chaos.bench.records import Arrival, Stored
from tests.chaos.bench.slots import instant

_WEBHOOK_ID = re.compile(r"exec_[a-z0-9]{6}_([0-9]+)")


@dataclass(slots=True)
class Repeated:
    """How many calls were sent again because nobody knew how they had ended."""

    explained: int = 0
    unexplained: int = 0
    #: Seconds from each strike to the next arrival of what it had cut off.
    after: tuple[float, ...] = ()


def check_delivery(books: Books, findings: Findings) -> Repeated:
    """Compare arrivals and attempts. Returns what was repeated."""
    _identities(books, findings)
    for one in books.rows:
        _arrivals_of(books, findings, one)
        _at_most_once(books, findings, one)
    repeated = Repeated()
    after: list[float] = []
    for one in books.rows:
        after += _repetitions(books, findings, one, repeated)
    repeated.after = tuple(after)
    return repeated


def _identities(books: Books, findings: Findings) -> None:
    """One webhook-id for each execution, for ever, and another for each other; every arrival is somebody's."""
    first: dict[int, str] = {}
    owner: dict[str, int] = {}
    strangers = set()
    for arrival in books.arrivals:
        one = books.stored.get(arrival.execution)
        if one is None:
            if arrival.execution not in strangers:
                findings.add("lost", f"{_seen(arrival)}, but no execution {arrival.execution} is stored")
            strangers.add(arrival.execution)
            continue
        if arrival.job != one.job_id:
            findings.add("wrong_state", f"{_seen(arrival)} for job {arrival.job}, not for job {one.job_id}")
        if instant(arrival.scheduled_for) != slot_of(one) or arrival.trigger != one.trigger:
            findings.add("wrong_state", f"{_seen(arrival)} as {arrival.trigger} for {arrival.scheduled_for}")
        known = first.setdefault(arrival.execution, arrival.webhook_id)
        if known != arrival.webhook_id:
            findings.add("duplicates", f"{_seen(arrival)} as {arrival.webhook_id}, before as {known}")
        if owner.setdefault(arrival.webhook_id, arrival.execution) != arrival.execution:
            findings.add(
                "duplicates",
                f"{_seen(arrival)} as {arrival.webhook_id}, as execution {owner[arrival.webhook_id]} did",
            )
        match = _WEBHOOK_ID.fullmatch(arrival.webhook_id)
        if match is None or int(match[1]) != arrival.execution:
            findings.add("duplicates", f"{_seen(arrival)} under the strange webhook-id {arrival.webhook_id}")


def _arrivals_of(books: Books, findings: Findings, one: Stored) -> None:
    tries = books.tries[one.id]
    counts = Counter(arrival.attempt for arrival in books.arrived[one.id])
    recorded = {attempt.number for attempt in tries}
    for number, count in sorted(counts.items()):
        if count > 1:
            findings.add("duplicates", f"attempt {number} of execution {one.id} arrived {count} times")
        if number > one.attempt:
            findings.add(
                "duplicates",
                f"attempt {number} of execution {one.id} arrived, but Postgres has had only {one.attempt}",
            )
        elif number not in recorded and (one.state in FINAL or number < one.attempt):
            findings.add(
                "duplicates",
                f"attempt {number} of execution {one.id} arrived, which Postgres says was never sent",
            )
    for attempt in tries:
        if attempt.status is not None and not counts[attempt.number]:
            findings.add(
                "lost",
                f"attempt {attempt.number} of execution {one.id} is recorded with the answer {attempt.status}, "
                "but never reached the target",
            )
    if one.state in ("succeeded", "failed") and not counts and not _never_left(tries):
        findings.add("lost", f"execution {one.id} has {one.state}, but never reached the target")


def _never_left(tries: list[Try]) -> bool:
    """Whether no attempt need have reached the target."""
    return all(attempt.code in NEVER_SENT | UNKNOWN_END for attempt in tries)


def _repetitions(books: Books, findings: Findings, one: Stored, repeated: Repeated) -> list[float]:
    """Attempts of unknown end that arrived and were sent again. Returns how long after their strikes."""
    arrivals = books.arrived[one.id]
    after = []
    for attempt in books.tries[one.id]:
        if attempt.code not in UNKNOWN_END:
            continue
        strike = books.loss(attempt)
        later = [arrival for arrival in arrivals if arrival.attempt > attempt.number]
        if strike is not None and later:
            after.append(later[0].at - cut_off_at(attempt, strike))
        if not later or not any(arrival.attempt == attempt.number for arrival in arrivals):
            continue
        if strike is not None:
            repeated.explained += 1
            continue
        repeated.unexplained += 1
        findings.add(
            "duplicates",
            f"attempt {attempt.number} of execution {one.id} arrived, ended as {attempt.code} on "
            f"{attempt.worker} at {clock(attempt.ended or books.ended)}, and attempt {later[0].attempt} was sent "
            "again; nothing had struck that worker then",
        )
    return after


def _at_most_once(books: Books, findings: Findings, one: Stored) -> None:
    """No attempt follows one whose end is unknown."""
    life = books.life(one)
    if life is None or life.ever("type") != {"AT_MOST_ONCE"}:
        return
    tries = books.tries[one.id]
    for attempt in tries:
        known = attempt.status is not None or attempt.code in NEVER_SENT
        followed = attempt.number < one.attempt or not ended_in_attempt(one) or attempt is not tries[-1]
        if not known and followed and attempt.code != "cancelled":
            findings.add(
                "duplicates",
                f"execution {one.id} is at most once, but goes on after attempt {attempt.number}, which ended as "
                f"{attempt.code}",
            )


def _seen(arrival: Arrival) -> str:
    return f"execution {arrival.execution}, attempt {arrival.attempt}, arrived at {clock(arrival.at)}"

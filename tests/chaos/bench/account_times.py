"""What ran when: late starts, late repetitions, and runs of one job beside each other that it does not allow."""

from collections.abc import Sequence

from tests.chaos.bench.account_books import (
    ON_TIME,
    UNKNOWN_END,
    WORKER_RECOVERY,
    Books,
    clock,
    cut_off_at,
)
from tests.chaos.bench.account_delivery import Repeated
from tests.chaos.bench.account_lives import Life, is_uncertain
from tests.chaos.bench.account_rows import Findings
from tests.chaos.bench.records import Stored

#: Seconds by which two recorded times of one moment may differ.
_GRAIN = 0.01


def check_times(books: Books, findings: Findings, repeated: Repeated) -> dict[str, float]:
    """Judge delays and overlaps. Returns figures of both kinds of delay."""
    delays = [delay for one in books.rows if (delay := _start_delay(books, findings, one)) is not None]
    for one in books.rows:
        _misfired(books, findings, one)
        _sent_again(books, findings, one)
    forced = _forced(books)
    for life in books.lives.values():
        if "allow" not in life.ever("overlapPolicy"):
            _overlaps(books, findings, life, forced)
    return {
        **_spread("start_delay", delays),
        **_spread("sent_again_after_strike", repeated.after),
    }


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        f"{name}_{label}": round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 3)
        for label, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _due(books: Books, life: Life, one: Stored) -> float | None:
    """When its first attempt was due; None where that is not known any more."""
    jitter = float(max(life.ever("jitterSeconds")))
    if one.trigger == "redrive":
        due = one.due_at if one.attempt == 1 else None
    elif one.attempt == 1 and one.due_at is not None:
        due = one.due_at
    else:
        due = one.scheduled_for + jitter
    if due is None:
        return None
    # A slot from before its job was there is due as soon as the job is.
    return max(due, life.changes[0].ended)


def _start_delay(books: Books, findings: Findings, one: Stored) -> float | None:
    life = books.life(one)
    arrivals = books.arrived[one.id]
    if life is None or not arrivals or "queue" in life.ever("overlapPolicy"):
        return None
    due = _due(books, life, one)
    if due is None:
        return None
    delay = max(0.0, arrivals[0].at - due)
    explained = books.explained_delay(due, arrivals[0].at)
    if delay > ON_TIME + explained:
        findings.add(
            "out_of_time",
            f"execution {one.id} of job {one.job_id} was due at {clock(due)} and arrived {delay:.1f} s later; "
            f"strikes explain {explained:.1f} s",
        )
    return delay


def _misfired(books: Books, findings: Findings, one: Stored) -> None:
    """A slot is given up for being late only if something made it late."""
    if one.error_code != "misfire" or one.finished_at is None:
        return
    life = books.life(one)
    since = max(one.scheduled_for, life.changes[0].ended if life is not None else 0.0)
    late = one.finished_at - since
    explained = books.explained_delay(since, one.finished_at)
    if late > ON_TIME + explained:
        findings.add(
            "out_of_time",
            f"job {one.job_id}: the slot {clock(one.scheduled_for)} was given up {late:.1f} s later; strikes "
            f"explain {explained:.1f} s",
        )


def _sent_again(books: Books, findings: Findings, one: Stored) -> None:
    """What a killed worker had in flight is sent again within WORKER_RECOVERY."""
    for attempt in books.tries[one.id]:
        if attempt.code not in UNKNOWN_END or (strike := books.loss(attempt)) is None:
            continue
        later = next((a for a in books.arrived[one.id] if a.attempt > attempt.number), None)
        if later is None:
            continue
        since = cut_off_at(attempt, strike)
        explained = max(WORKER_RECOVERY, books.explained_delay(since, later.at))
        if later.at - since > explained + ON_TIME:
            findings.add(
                "out_of_time",
                f"execution {one.id} was cut off by {strike.kind} at {clock(since)} and sent again only at "
                f"{clock(later.at)}",
            )


def _forced(books: Books) -> set[int]:
    """Runs that need not look at others: asked for with force, or perhaps."""
    forced, jobs = set(), set()
    for call in books.calls:
        if call.action == "run" and call.sent.get("force"):
            if call.acknowledged:
                forced.add(call.answer["id"])
            elif is_uncertain(call):
                jobs.add(call.job)
    return forced | {one.id for one in books.rows if one.job_id in jobs and one.trigger == "manual"}


def _overlaps(books: Books, findings: Findings, life: Life, forced: set[int]) -> None:
    """No two attempts of the job ran at once; one whose worker was lost ended with the strike."""
    windows = []
    for one in books.by_job[life.job]:
        if one.id in forced:
            continue
        for attempt in books.tries[one.id]:
            ended = attempt.ended if attempt.ended is not None else books.ended
            strike = books.loss(attempt) if attempt.code in UNKNOWN_END else None
            if strike is not None:
                ended = min(ended, cut_off_at(attempt, strike))
            windows.append((attempt.began, ended, one.id))
    windows.sort()
    latest = (0.0, 0)
    for began, ended, execution in windows:
        if began < latest[0] - _GRAIN:
            findings.add(
                "wrong_state",
                f"job {life.job} allows no overlap, but execution {execution} began at {clock(began)}, while "
                f"{latest[1]} ran until {clock(latest[0])}",
            )
        latest = max(latest, (ended, execution))

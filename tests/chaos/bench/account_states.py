"""How each execution ended, against what the target was told to answer, its job's policies and the user's calls."""

from tests.chaos.bench.account_books import (
    FINAL,
    UNKNOWN_END,
    Books,
    Try,
    clock,
    ended_in_attempt,
)
from tests.chaos.bench.account_lives import Life, is_uncertain
from tests.chaos.bench.account_rows import Findings
from tests.chaos.bench.records import Arrival, Call, Stored

#: Codes of attempts that spend none of ``maxRetryCount``.
_SPENDS_NOTHING = frozenset({"worker_lost", "interrupted"})

#: Codes with which an execution may be skipped.
_SKIPS = frozenset({"misfire", "overlap", "backlog"})

#: Losses after which an execution is given up.
_POISON = 3


def told(path: str, times: int) -> int | None:
    """What the target answers the ``times``-th call of an execution at ``path``; None for a path of other kinds."""
    _, first, *rest = path.partition("?")[0].split("/")
    if first in ("ok", "slow", "echo"):
        return 200
    if first == "status":
        return int(rest[0])
    if first == "fail":
        return 500 if times <= int(rest[0]) else 200
    return None


def check_states(books: Books, findings: Findings) -> None:
    """Look at each execution by itself."""
    cancels = [call for call in books.calls if call.action == "cancel"]
    cancelling = {c.execution for c in cancels if c.acknowledged or is_uncertain(c)}
    for one in books.rows:
        tries = books.tries[one.id]
        _numbers(findings, one, tries)
        _answers(books, findings, one, tries)
        _losses(books, findings, one, tries)
        _retries(books, findings, one)
        if one.state in FINAL:
            _end(books, findings, one, tries, one.id in cancelling)
    for call in cancels:
        _cancelled(books, findings, call)
    _dead_letters(books, findings)
    for row in books.job_rows:
        if row.fault is not None:
            findings.add("wrong_state", f"the schedule of job {row.id} was set aside: {row.fault}")


def _numbers(findings: Findings, one: Stored, tries: list[Try]) -> None:
    numbers = [attempt.number for attempt in tries]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] > one.attempt):
        findings.add("wrong_state", f"execution {one.id} has attempts {numbers}, and counts {one.attempt}")
    if ended_in_attempt(one) and (not numbers or numbers[-1] != one.attempt):
        findings.add("wrong_state", f"execution {one.id} ended in attempt {one.attempt}, but has {numbers}")
    earlier = tries[:-1] if ended_in_attempt(one) else tries
    spent = sum(attempt.code not in _SPENDS_NOTHING for attempt in earlier)
    if one.retry_count != spent:
        codes = [attempt.code for attempt in tries]
        findings.add(
            "wrong_state", f"execution {one.id} counts {one.retry_count} retries after attempts {codes}"
        )


def _answers(books: Books, findings: Findings, one: Stored, tries: list[Try]) -> None:
    """What was recorded of each attempt is what the target was told to answer it."""
    order: dict[int, tuple[int, Arrival]] = {}
    for times, arrival in enumerate(books.arrived[one.id], 1):
        order.setdefault(arrival.attempt, (times, arrival))
    for attempt in tries:
        if attempt.number not in order:
            continue
        times, arrival = order[attempt.number]
        expected = told(arrival.path, times)
        if attempt.status is not None and expected is not None and attempt.status != expected:
            findings.add(
                "wrong_state",
                f"attempt {attempt.number} of execution {one.id} was answered {expected} ({arrival.path}), but is "
                f"recorded with {attempt.status}",
            )
        unknown = attempt.status is None and attempt.code not in UNKNOWN_END | {"cancelled"}
        if unknown and expected is not None and books.about(attempt) is None:
            findings.add(
                "wrong_state",
                f"attempt {attempt.number} of execution {one.id} arrived, but ended as {attempt.code}, and nothing "
                "had struck it",
            )


def _losses(books: Books, findings: Findings, one: Stored, tries: list[Try]) -> None:
    for attempt in tries:
        if attempt.code in UNKNOWN_END and books.loss(attempt) is None:
            findings.add(
                "wrong_state",
                f"attempt {attempt.number} of execution {one.id} ended as {attempt.code} on {attempt.worker}, which "
                "nothing had struck",
            )
    if one.error_code == "poison":
        lost = [attempt.number for attempt in tries if attempt.code in ("worker_lost", "poison")]
        if len(lost) < _POISON:
            findings.add("wrong_state", f"execution {one.id} is poison after the loss of attempts {lost}")


def _retries(books: Books, findings: Findings, one: Stored) -> None:
    life = books.life(one)
    if life is not None and one.retry_count > max(life.ever("maxRetryCount")):
        findings.add(
            "wrong_state", f"execution {one.id} was retried {one.retry_count} times, more than allowed"
        )


def _end(books: Books, findings: Findings, one: Stored, tries: list[Try], cancelling: bool) -> None:
    status = tries[-1].status if tries else None
    wrong = {
        "succeeded": _succeeded,
        "failed": _failed,
        "cancelled": _was_cancelled,
        "skipped": _skipped,
    }[one.state](books, one, status, cancelling)
    if wrong:
        findings.add("wrong_state", f"execution {one.id} of job {one.job_id} {wrong}")


def _succeeded(books: Books, one: Stored, status: int | None, cancelling: bool) -> str | None:
    if status is None or not 200 <= status < 300 or one.error_code is not None:
        return f"has succeeded with the answer {status} and the code {one.error_code}"
    return None


def _failed(books: Books, one: Stored, status: int | None, cancelling: bool) -> str | None:
    life = books.life(one)
    if status is not None and 200 <= status < 300:
        return f"has failed with the answer {status}"
    if life is None or _without_job(books, life, one):
        return None  # what fails while its job is deleted has no retries left
    if one.error_code in ("worker_lost", "worker_stopped") and "AT_MOST_ONCE" not in life.ever("type"):
        return f"has failed as {one.error_code}, though it may be repeated"
    if one.error_code == "interrupted":
        return "has failed as interrupted, though it may be repeated"
    if one.error_code == "http_status":
        began, ended = one.started_at or 0.0, one.finished_at or books.ended
        most = life.possible("maxRetryCount", began - 1.0, ended + 1.0)
        if not any(one.retry_count >= each for each in most):
            return f"has failed after {one.retry_count} of {sorted(most)} retries"
    return None


def _without_job(books: Books, life: Life, one: Stored) -> bool:
    """Whether its job may have been deleted when its end was recorded."""
    ended = one.finished_at or books.ended
    return life.deleted is not None and books.may_be_recorded_at(ended, life.deleted.began)


def _was_cancelled(books: Books, one: Stored, status: int | None, cancelling: bool) -> str | None:
    life = books.life(one)
    deleted = life is None or _without_job(books, life, one)
    return None if cancelling or deleted else "was cancelled, although nobody asked for that"


def _skipped(books: Books, one: Stored, status: int | None, cancelling: bool) -> str | None:
    life = books.life(one)
    if one.error_code not in _SKIPS:
        return f"was skipped as {one.error_code}"
    if one.error_code == "overlap" and life is not None and life.ever("overlapPolicy") == {"allow"}:
        return "was skipped as overlap, though its job allows overlaps"
    return None


def _cancelled(books: Books, findings: Findings, call: Call) -> None:
    """What was answered to a cancel is what became of its execution."""
    one = books.stored.get(call.execution or 0)
    if one is None:
        if call.acknowledged:
            findings.add("lost", f"execution {call.execution} was cancelled, and is nowhere")
        return
    what = f"execution {one.id} was cancelled at {clock(call.ended)} with {call.status}"
    if call.status == 200 and one.state != "cancelled":
        findings.add("wrong_state", f"{what}, but is {one.state}")
    if call.status == 202 and one.state in ("skipped", "pending", "retrying", "blocked"):
        findings.add("wrong_state", f"{what}, but is {one.state}")
    if call.status == 409 and (one.finished_at is None or one.finished_at > call.ended + 0.1):
        findings.add("wrong_state", f"{what}, but was not over then")
    if call.acknowledged:
        for late in books.arrived[one.id]:
            if late.at > call.ended + 2.0 and not books.explained_delay(call.began, late.at):
                findings.add("wrong_state", f"{what}, but attempt {late.attempt} arrived at {clock(late.at)}")


def _dead_letters(books: Books, findings: Findings) -> None:
    """What has failed is a dead letter until a user has taken it away; nothing else is one."""
    taken: set[int] = set()
    gone: set[int] = set()
    for call in books.calls:
        if not (call.acknowledged or is_uncertain(call)):
            continue
        ids = _taken(call)
        taken.update(ids)
        if call.acknowledged and len(ids) == _count(call):
            gone.update(ids)
    for one in books.rows:
        dies = one.state == "failed" or (one.state == "skipped" and one.trigger == "redrive")
        if dies and one.id not in books.dead and one.id not in taken:
            findings.add("wrong_state", f"execution {one.id} has failed, but is no dead letter")
        if not dies and one.id in books.dead:
            findings.add("wrong_state", f"execution {one.id} is a dead letter, but {one.state}")
    for letter in sorted(gone & books.dead.keys()):
        findings.add("wrong_state", f"dead letter {letter} was taken away, but is still there")
    for letter in sorted(books.dead.keys() - books.stored.keys()):
        findings.add("wrong_state", f"dead letter {letter} belongs to no execution")


def _taken(call: Call) -> list[int]:
    if call.action in ("redrive", "discard"):
        ids: list[int] = call.sent["ids"]
        return ids
    return [call.execution] if call.action == "retry" and call.execution is not None else []


def _count(call: Call) -> int | None:
    """How many dead letters an acknowledged call took away; None where it does not say."""
    name = {"redrive": "matched", "discard": "discarded"}.get(call.action)
    return call.answer[name] if name is not None else None

"""Every call that the API acknowledged has had its effect, once; and nothing happened that nobody asked for."""

from collections import Counter

from tests.chaos.bench.account_books import Books
from tests.chaos.bench.account_lives import is_uncertain
from tests.chaos.bench.account_rows import Findings
from tests.chaos.bench.records import Call

#: The answers that each call may get while all is well; 503 and no answer at all are retried and count as open.
_ANSWERS = {
    "create": {201},
    "bulk": {201},
    "put": {200, 201},
    "patch": {200},
    "pause": {200},
    "resume": {200},
    "delete": {204},
    "run": {202},
    "cancel": {200, 202, 409},
    "retry": {202, 409},
    "redrive": {202, 409},
    "discard": {200},
    "read": {200},
}
_OPEN = {None, 502, 503, 504}


def check_calls(books: Books, findings: Findings) -> None:
    """Look at each call, then at what came of all of them."""
    for call in books.calls:
        _answered(findings, call)
        if not call.acknowledged:
            continue
        if call.action in ("create", "put", "bulk"):
            _created(books, findings, call)
        elif call.action == "delete":
            _deleted(books, findings, call)
        elif call.action in ("run", "retry"):
            _running(books, findings, call)
        elif call.action == "redrive":
            _redriven(books, findings, call)
    for call in books.unread:
        findings.add("wrong_state", f"{_words(call)} was called for a job that no call had made")
    _jobs_twice(books, findings)
    _jobs_gone(books, findings)
    _runs_unasked(books, findings)
    _redrives_unasked(books, findings)
    _as_edited(books, findings)


def _answered(findings: Findings, call: Call) -> None:
    if call.status not in _ANSWERS[call.action] | _OPEN:
        findings.add("wrong_state", f"{_words(call)} was answered {call.status}: {call.answer}")


def _created(books: Books, findings: Findings, call: Call) -> None:
    jobs = call.answer["ids"] if call.action == "bulk" else [call.job]
    for job in jobs:
        if job not in books.jobs:
            findings.add("lost", f"{_words(call)} was acknowledged, but there is no job {job}")


def _deleted(books: Books, findings: Findings, call: Call) -> None:
    row = books.jobs.get(call.job or 0)
    if row is None or row.deleted_at is None:
        findings.add("wrong_state", f"{_words(call)} was acknowledged, but the job is still there")


def _running(books: Books, findings: Findings, call: Call) -> None:
    made = call.answer["id"]
    if made not in books.stored:
        findings.add("lost", f"{_words(call)} was acknowledged with execution {made}, which is nowhere")
    elif (
        call.action == "retry" and made != call.execution and books.stored[made].redrive_of != call.execution
    ):
        findings.add("wrong_state", f"{_words(call)} made execution {made}, which is no redrive of it")


def _redriven(books: Books, findings: Findings, call: Call) -> None:
    made = {one.redrive_of for one in books.rows}
    ids = call.sent["ids"]
    gone = [each for each in ids if each not in made]
    if len(ids) - len(gone) < call.answer["matched"]:
        findings.add(
            "lost",
            f"{_words(call)} matched {call.answer['matched']} of {ids}, but nothing was made of {gone}",
        )


def _jobs_twice(books: Books, findings: Findings) -> None:
    asked = Counter(
        item.get("name")
        for call in books.calls
        if call.action in ("create", "put", "bulk")
        for item in call.sent.get("items", [call.sent])
    )
    names = Counter(row.name for row in books.job_rows)
    for row in books.job_rows:
        if row.name not in asked:
            findings.add("duplicates", f"job {row.id} ({row.name}) is there, although nobody asked for it")
        elif names[row.name] > 1:
            findings.add("duplicates", f"job {row.id} is there {names[row.name]} times, as {row.name}")


def _jobs_gone(books: Books, findings: Findings) -> None:
    for row in books.job_rows:
        life = books.lives.get(row.id)
        if row.deleted_at is not None and life is not None and life.deleted is None:
            findings.add("lost", f"job {row.id} was deleted, although nobody asked for that")


def _runs_unasked(books: Books, findings: Findings) -> None:
    known = {call.answer["id"] for call in books.calls if call.action == "run" and call.acknowledged}
    perhaps = Counter(call.job for call in books.calls if call.action == "run" and is_uncertain(call))
    for one in books.rows:
        if one.trigger != "manual" or one.id in known:
            continue
        if perhaps[one.job_id] > 0:
            perhaps[one.job_id] -= 1
        else:
            findings.add(
                "duplicates", f"execution {one.id} of job {one.job_id} is a run by hand that nobody asked for"
            )


def _redrives_unasked(books: Books, findings: Findings) -> None:
    asked: Counter[int] = Counter()
    for call in books.calls:
        if call.acknowledged or is_uncertain(call):
            if call.action == "redrive":
                asked.update(call.sent["ids"])
            elif call.action == "retry" and call.execution is not None:
                same = call.acknowledged and call.answer["id"] == call.execution
                asked[call.execution] += not same
    for one in books.rows:
        if one.trigger != "redrive":
            continue
        source = one.redrive_of or 0
        if asked[source] > 0:
            asked[source] -= 1
        else:
            findings.add(
                "duplicates", f"execution {one.id} is one redrive more of {one.redrive_of} than was asked for"
            )


def _as_edited(books: Books, findings: Findings) -> None:
    """The last acknowledged edit stands, where none after it may have been made."""
    for life in books.lives.values():
        row = books.jobs.get(life.job)
        last = life.changes[-1]
        if row is None or not life.certain:
            continue
        if last.version is not None and row.version != last.version:
            findings.add(
                "wrong_state", f"job {life.job} has version {row.version}, not {last.version} as answered"
            )
        for name, value in row.fields.items():
            if name in last.fields and last.fields[name] != value:
                findings.add(
                    "wrong_state",
                    f"job {life.job}: {name} is {value!r}, but {last.fields[name]!r} was acknowledged",
                )


def _words(call: Call) -> str:
    about = "".join(
        f" of {what} {number}"
        for what, number in (("job", call.job), ("execution", call.execution))
        if number is not None
    )
    return f"{call.action}{about}"

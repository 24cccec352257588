"""What each job was told to be, from when to when: read from the log of calls alone."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.bench.account_rows import JobRow
from tests.chaos.bench.records import Call
from tests.chaos.bench.slots import instant

#: What a field is where a request does not name it; of those that the accountant looks at.
DEFAULTS: dict[str, Any] = {
    "isActive": True,
    "maxRetryCount": 3,
    "overlapPolicy": "allow",
    "type": "AT_LEAST_ONCE",
    "jitterSeconds": 0,
    "payload": None,
    "headers": {},
    "startAt": None,
    "endAt": None,
    "maxRuns": None,
}

#: An edit of one of these moves slots.
TIMING = ("schedule", "startAt", "endAt", "isActive")

_CREATES = frozenset({"create", "bulk"})
_EDITS = frozenset({"put", "patch", "pause", "resume"})

#: Answers after which a call may have been carried out or not.
UNCERTAIN = frozenset({None, 500, 502, 503, 504})


def is_uncertain(call: Call) -> bool:
    """Whether a call may have been carried out although nobody said so."""
    return call.status in UNCERTAIN


@dataclass(frozen=True, slots=True)
class Change:
    """What a job was from some moment between ``began`` and ``ended`` on; not ``certain``: perhaps.

    ``anchor``: milliseconds, from where its intervals and delays count.
    """

    began: float
    ended: float
    certain: bool
    fields: Mapping[str, Any]
    anchor: int
    version: int | None

    @property
    def timing(self) -> tuple[Any, ...]:
        """What its slots depend on."""
        return (*(self.fields[name] for name in TIMING), self.anchor)


@dataclass(slots=True)
class Life:
    """One job from its creation to its end. ``deleted``: the call that deleted it, or may have."""

    job: int
    changes: list[Change]
    deleted: Call | None = None

    @property
    def certain(self) -> bool:
        """Whether every change is known to have been made."""
        return all(change.certain for change in self.changes)

    def ever(self, name: str) -> set[Any]:
        """Every value that a field may ever have had."""
        return {change.fields[name] for change in self.changes}

    def possible(self, name: str, began: float, ended: float) -> set[Any]:
        """Every value that a field may have had in this time."""
        found = set()
        for index, change in enumerate(self.changes):
            replaced = next((c.ended for c in self.changes[index + 1 :] if c.certain), float("inf"))
            if (index == 0 or change.began <= ended) and replaced >= began:
                found.add(change.fields[name])
        return found


@dataclass(slots=True)
class _Wanted:
    """What a call asked for: one job by its name."""

    call: Call
    fields: Mapping[str, Any]
    job: int | None = field(default=None)


def read_lives(calls: Iterable[Call], jobs: Mapping[int, JobRow]) -> tuple[dict[int, Life], list[Call]]:
    """The lives of all jobs that calls have made, and the calls whose answers cannot be read.

    A job of an uncertain call is found by its name, which no two jobs of the load share.
    """
    by_name = {row.name: row for row in jobs.values()}
    lives: dict[int, Life] = {}
    edits: dict[int, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.began):
        if call.action in _CREATES or (call.action == "put" and "key" in call.sent and call.job not in lives):
            for wanted in _wanted(call):
                job = wanted.job
                if job is None and (row := by_name.get(wanted.fields.get("name"))) is not None:
                    job = row.id
                if job is not None and job not in lives:
                    lives[job] = Life(job, [_created(wanted, jobs.get(job))])
        elif call.job is not None and (call.action in _EDITS or call.action == "delete"):
            edits[call.job].append(call)
    unread = [call for job, theirs in edits.items() if job not in lives for call in theirs]
    for job, life in lives.items():
        for call in edits[job]:
            _lived(life, call)
    return lives, unread


def _wanted(call: Call) -> Iterator[_Wanted]:
    if call.action != "bulk":
        if call.acknowledged or is_uncertain(call):
            yield _Wanted(call, call.sent, call.job)
    elif call.acknowledged:
        for item, job in zip(call.sent["items"], call.answer["ids"], strict=True):
            yield _Wanted(call, item, job)
    elif is_uncertain(call):
        for item in call.sent["items"]:
            yield _Wanted(call, item)


def _created(wanted: _Wanted, row: JobRow | None) -> Change:
    call = wanted.call
    fields = DEFAULTS | dict(wanted.fields)
    answer = call.answer if isinstance(call.answer, dict) else {}
    began, ended = call.began, call.ended
    if not call.acknowledged and row is not None:
        began = ended = row.created_at  # it exists, so the call was carried out, whenever that was
    anchor = int(round((row.created_at if row is not None else ended) * 1e6) // 1000)
    if "createdAt" in answer:
        anchor = instant(answer["createdAt"])
    if fields["startAt"] is not None:
        anchor = instant(fields["startAt"])
    return Change(began, ended, True, fields, anchor, answer.get("version", 1))


def _lived(life: Life, call: Call) -> None:
    if not (call.acknowledged or is_uncertain(call)):
        return
    if call.action == "delete":
        if life.deleted is None or call.acknowledged:
            life.deleted = call
        return
    before = life.changes[-1]
    fields = _edited(dict(before.fields), call)
    answer = call.answer if isinstance(call.answer, dict) else {}
    anchor = before.anchor
    if any(before.fields[name] != fields[name] for name in ("schedule", "startAt")):
        start = fields["startAt"] or answer.get("updatedAt")
        anchor = instant(start) if start else int(call.ended * 1000)
    life.changes.append(
        Change(call.began, call.ended, call.acknowledged, fields, anchor, answer.get("version"))
    )


def _edited(fields: dict[str, Any], call: Call) -> dict[str, Any]:
    if call.action == "put":
        return DEFAULTS | dict(call.sent)
    if call.action == "patch":
        return fields | dict(call.sent)
    return fields | {"isActive": call.action == "resume"}

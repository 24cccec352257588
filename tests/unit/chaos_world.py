"""A small world for the accountant of the chaos bench: every record of a run in which all is in order."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tests.chaos.bench.account_rows import DeadLetter, JobRow
from tests.chaos.bench.accountant import account
from tests.chaos.bench.load_jobs import stamp
from tests.chaos.bench.records import Arrival, Call, Leaks, Stored, Strike, Verdict

START = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()
ENDED = START + 200

#: The jobs of the world, by their numbers.
STEADY, FAILS, DIES, ONCE, SKIPS, PAUSED, DELETED, CRON, ONE_OFF, QUEUES = range(1, 11)


@dataclass
class World:
    """Records in order. What a test changes in them has to be found."""

    calls: list[Call] = field(default_factory=list)
    stored: dict[int, Stored] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    dead: dict[int, DeadLetter] = field(default_factory=dict)
    jobs: dict[int, JobRow] = field(default_factory=dict)
    leaks: Leaks = field(default_factory=lambda: Leaks({"advisory locks": 0}, {"advisory locks": 0}))
    poisoned: frozenset[int] = frozenset()

    def judge(self) -> Verdict:
        return account(
            self.calls,
            self.stored.values(),
            self.arrivals,
            self.strikes,
            self.leaks,
            self.dead.values(),
            self.jobs.values(),
            poisoned=self.poisoned,
            ended=ENDED,
        )

    # -- building -----------------------------------------------------------------------------------------------

    def create(self, job: int, path: str, at: float = -5.0, **fields: Any) -> None:
        sent = {
            "name": f"job{job}",
            "schedule": "@every 1s",
            "startAt": time_of(0),
            "endAt": time_of(5),
            "api": f"http://target{path}",
            "payload": {"n": job},
            **fields,
        }
        answer = {"id": job, "version": 1, "createdAt": time_of(at)}
        self.calls.append(call("create", at, 201, job, sent=sent, answer=answer))
        row = {name: sent[name] for name in ("schedule", "api", "payload")} | {
            "isActive": True,
            "headers": {},
        }
        self.jobs[job] = JobRow(job, f"job{job}", 1, START + at, None, None, None, row)

    def run(
        self,
        id: int,
        job: int,
        slot: float,
        path: str,
        *ends: "int | str",
        state: str = "succeeded",
        trigger: str = "schedule",
        due: float | None = None,
        took: float = 0.1,
        of: int | None = None,
        at: float | None = None,
    ) -> None:
        """An execution whose attempts ended so, each a second after the other, by turns on two workers."""
        tries, due = [], slot if due is None else due
        began = due if at is None else at
        for number, end in enumerate(ends, 1):
            status, code = (
                (end, None if end < 300 else "http_status") if isinstance(end, int) else (None, end)
            )
            worker = f"worker{number % 2 + 1}.1"
            tries.append(attempt(number, began, began + took, status, code, worker))
            self.arrivals.append(arrival(id, number, job, began + 0.05, slot, trigger, path))
            began += 1.0
        last = tries[-1]
        spent = sum(one["errorCode"] not in ("worker_lost", "interrupted") for one in tries[:-1])
        self.stored[id] = Stored(
            id, job, trigger, state, START + slot, START + due, unix(last["startedAt"]), unix(last["finishedAt"]),
            len(tries), spent, last["worker"], last["errorCode"], tuple(tries), None, of,
        )  # fmt: skip
        if state == "failed":
            self.dead[id] = DeadLetter(id, job, last["errorCode"])

    def skipped(self, id: int, job: int, slot: float, code: str, count: int, ended: float) -> None:
        self.stored[id] = Stored(
            id, job, "schedule", "skipped", START + slot, None, None, START + ended, 0, 0, None, code, (), count, None
        )  # fmt: skip

    # -- changing -----------------------------------------------------------------------------------------------

    def set(self, id: int, **fields: Any) -> None:
        self.stored[id] = replace(self.stored[id], **fields)

    def retime(self, id: int, seconds: float) -> None:
        """Let an execution begin later."""
        one = self.stored[id]
        tries = tuple(
            {
                **each,
                "startedAt": time_of(unix(each["startedAt"]) - START + seconds),
                "finishedAt": time_of(unix(each["finishedAt"]) - START + seconds),
            }
            for each in one.attempts
        )
        assert one.finished_at is not None
        self.set(id, attempts=tries, finished_at=one.finished_at + seconds)
        self.arrivals = [replace(a, at=a.at + seconds) if a.execution == id else a for a in self.arrivals]

    def of(self, execution: int, attempt: int = 1) -> Arrival:
        return next(a for a in self.arrivals if (a.execution, a.attempt) == (execution, attempt))

    def change(self, execution: int, attempt: int = 1, **fields: Any) -> None:
        old = self.of(execution, attempt)
        self.arrivals[self.arrivals.index(old)] = replace(old, **fields)

    def answer(self, action: str, **fields: Any) -> None:
        index = next(i for i, each in enumerate(self.calls) if each.action == action)
        self.calls[index] = replace(self.calls[index], **fields)


def time_of(seconds: float) -> str:
    return stamp(datetime.fromtimestamp(START + seconds, UTC))


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def call(action: str, at: float, status: int | None, job: int | None = None, **fields: Any) -> Call:
    return Call(action, START + at, START + at + 0.02, status, job, **fields)


def attempt(
    number: int, began: float, ended: float, status: int | None, code: str | None, worker: str
) -> dict[str, Any]:
    return {
        "attempt": number,
        "startedAt": time_of(began),
        "finishedAt": time_of(ended),
        "responseStatus": status,
        "errorCode": code,
        "worker": worker,
    }


def arrival(id: int, number: int, job: int, at: float, slot: float, trigger: str, path: str) -> Arrival:
    return Arrival(START + at, id, number, job, f"exec_abc123_{id}", time_of(slot), trigger, path)


def strike(began: float, ended: float, worker: str | None = None, kind: str = "struck") -> Strike:
    return Strike(kind, START + began, START + ended, True, "something broke", worker)


def build() -> World:
    """Ten jobs, a killed worker, and a user who does a bit of everything."""
    world = World()
    world.create(STEADY, "/ok")
    for n in range(1, 6):
        world.run(10 + n, STEADY, n, "/ok", 200)
    world.run(16, STEADY, 2.5, "/ok", 200, trigger="manual")
    world.calls.append(call("run", 2.5, 202, STEADY, answer={"id": 16, "state": "pending"}))
    world.create(FAILS, "/fail/2", schedule="@every 5s", maxRetryCount=5)
    world.run(21, FAILS, 5, "/fail/2", 500, 500, 200)
    _of_dying(world)
    _of_at_most_once(world)
    world.create(SKIPS, "/slow/1500", overlapPolicy="skip")
    for n in (1, 3, 5):
        world.run(50 + n, SKIPS, n, "/slow/1500", 200, took=1.5)
    world.skipped(52, SKIPS, 2, "overlap", 1, 2.01)
    world.skipped(54, SKIPS, 4, "overlap", 1, 4.01)
    world.create(QUEUES, "/slow/1500", overlapPolicy="queue", schedule="@every 2s")
    world.run(91, QUEUES, 2, "/slow/1500", "worker_lost", 200, took=1.5)
    world.run(92, QUEUES, 4, "/slow/1500", 200, took=1.5, at=24.6)
    _lose(world, 91, until=23.0)
    _of_user(world)
    world.create(CRON, "/ok", schedule="*/2 * * * * *")
    for n in (0, 2, 4):
        world.run(80 + n, CRON, n, "/ok", 200)
    world.create(ONE_OFF, "/ok", schedule="@in 2s", startAt=None, endAt=None)
    world.run(86, ONE_OFF, -3, "/ok", 200)
    return world


def _of_dying(world: World) -> None:
    """Three dead letters: one stays, one was redriven, one discarded."""
    world.create(DIES, "/status/500", schedule="@every 1s", endAt=time_of(3), maxRetryCount=0)
    for n in (1, 2, 3):
        world.run(30 + n, DIES, n, "/status/500", 500, state="failed")
    world.run(35, DIES, 2, "/status/500", 500, state="failed", trigger="redrive", due=6, of=32)
    del world.dead[32], world.dead[33]
    world.calls.append(
        call("redrive", 6, 202, DIES, sent={"ids": [32]}, answer={"id": 1, "matched": 1}),
    )
    world.calls.append(call("discard", 7, 200, DIES, sent={"ids": [33]}, answer={"discarded": 1}))


def _of_at_most_once(world: World) -> None:
    world.create(ONCE, "/slow/500", type="AT_MOST_ONCE", endAt=time_of(3))
    world.run(41, ONCE, 1, "/slow/500", 200)
    world.run(42, ONCE, 2, "/slow/500", "worker_lost", state="failed", took=20)
    world.run(43, ONCE, 3, "/slow/500", 200)
    world.strikes.append(strike(2.06, 2.07, "worker2.1", "worker_killed"))


def _lose(world: World, id: int, until: float) -> None:
    """The first attempt was given up ``until`` then, the second came after it."""
    first, second = world.stored[id].attempts
    second = {**second, "startedAt": time_of(until), "finishedAt": time_of(until + 1.5)}
    first = {**first, "finishedAt": time_of(until - 0.5), "startedAt": time_of(2.0)}
    world.set(id, attempts=(first, second), started_at=START + until, finished_at=START + until + 1.5)
    world.change(id, 2, at=START + until + 0.05)


def _of_user(world: World) -> None:
    """Paused and resumed, edited, deleted, cancelled, retried."""
    world.create(PAUSED, "/ok", endAt=time_of(20))
    for n in (1, 2, 3, 9, 10, 12, 14, 16, 18, 20):
        world.run(120 + n, PAUSED, n, "/ok", 200)
    world.calls += [
        call("pause", 3.5, 200, PAUSED, answer={"id": PAUSED, "version": 2, "updatedAt": time_of(3.51)}),
        call("resume", 8.5, 200, PAUSED, answer={"id": PAUSED, "version": 3, "updatedAt": time_of(8.51)}),
        call(
            "patch",
            10.5,
            200,
            PAUSED,
            sent={"schedule": "@every 2s", "payload": {"n": 0}},
            answer={"id": PAUSED, "version": 4, "updatedAt": time_of(10.51)},
        ),
    ]
    row = world.jobs[PAUSED]
    fields = {**row.fields, "schedule": "@every 2s", "payload": {"n": 0}}
    world.jobs[PAUSED] = replace(row, version=4, fields=fields)
    world.create(DELETED, "/slow/3000", endAt=time_of(20))
    world.run(111, DELETED, 1, "/slow/3000", 200, took=3)
    world.run(112, DELETED, 2, "/slow/3000", "cancelled", state="cancelled", took=0.5)
    world.run(113, DELETED, 3, "/slow/3000", 200, took=3)
    world.calls.append(call("cancel", 2.3, 202, DELETED, execution=112, answer={"id": 112}))
    world.calls.append(call("delete", 3.5, 204, DELETED))
    world.jobs[DELETED] = replace(world.jobs[DELETED], deleted_at=START + 3.51)
    world.run(17, STEADY, 1, "/ok", 200, trigger="redrive", due=8, of=11)
    world.calls.append(call("retry", 8, 202, STEADY, execution=11, answer={"id": 17, "redriveOf": 11}))

"""What every scenario plays on: a stand with its target, processes by name, loads, and the account.

A scenario gathers what is wrong as sentences in ``Findings`` instead of stopping at the first, so that its result
tells all of it.
"""

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import requests

from jobsched.client import Client
from jobsched.embedded import ports
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import Call, calls_of, every, stamp
from tests.chaos.bench.cluster import steady_port

#: Of a finding that lists things, so many are named.
_NAMED = 5

#: What is live, or is to come by a schedule. One statement: between two, a firing could move work past both.
_LEFT = """
SELECT (SELECT count(*) FROM execution),
    (SELECT count(*) FROM job_schedule WHERE next_execution_time IS NOT NULL AND job_id = ANY(%s))
"""
_ENDED = "SELECT id, job_id, scheduled_for, state, attempt, error_code FROM execution_history WHERE job_id = ANY(%s)"
_ALIVE = "SELECT count(*) FROM worker_process WHERE state = 'alive'"


class Findings(list[str]):
    """What was found wrong, a sentence each."""

    def expect(self, holds: bool, otherwise: str) -> bool:
        """Note ``otherwise`` unless it ``holds``; returns whether it does."""
        if not holds:
            self.append(otherwise)
        return holds

    def none_of(self, found: Collection[Any], what: str) -> bool:
        """Note how many ``found`` there are, if any, and name some of them."""
        some = ", ".join(str(one) for one in list(found)[:_NAMED])
        return self.expect(not found, f"{len(found)} {what}: {some}{' …' * (len(found) > _NAMED)}")


def told(findings: Findings, figures: dict[str, Any]) -> dict[str, Any]:
    """A scenario's result. Figures that are lists or dicts are put into words, for they end in a table."""
    return {
        "passed": not findings,
        "findings": list(findings),
        "figures": {name: _in_words(value) for name, value in figures.items()},
    }


def _in_words(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return (
            ", ".join(f"{name.replace('_', ' ')} {_in_words(each)}" for name, each in value.items()) or "none"
        )
    if isinstance(value, list):
        return ", ".join(str(_in_words(each)) for each in value)
    return value


class Stage:
    """A stand with a target inside this process. ``stand`` is entered and closed by it."""

    def __init__(self, stand: Stand | None = None, *, record: bool = True, **settings: str) -> None:
        self.stand = stand or Stand(
            **{"JOBSCHED_LOG_FORMAT": "json", "JOBSCHED_POLL_INTERVAL": "1"} | settings
        )
        self.target = Target(record=record)
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        run = self.stand.folder / "run"
        run.mkdir(exist_ok=True)
        for server in ("postgres", "valkey"):
            ports.write_private(run / f"{server}.port", f"{steady_port()}\n")
        self.target.__enter__()
        try:
            self.stand.__enter__()
        except BaseException:
            self.target.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stand.close()
        finally:
            self.target.__exit__(None, None, None)

    # -- processes ----------------------------------------------------------------------------------------------

    def api(self, name: str = "api1", *, wait: bool = True) -> str:
        """Start an API under this name, at the address that it had before; waits until it is ready."""
        if name not in self.urls:
            self.urls[name] = f"http://127.0.0.1:{steady_port()}"
        url = self.stand.url = self.urls[name]
        self.stand.start(name, "api", "--host", "127.0.0.1", "--port", url.rpartition(":")[2])
        if wait:
            patiently(
                lambda: requests.get(f"{url}/ready", timeout=5).status_code == 200, 30, f"{name} is ready"
            )
        return url

    def poller(self, name: str = "p1") -> None:
        """Start a poller under this name."""
        self.stand.start(name, "poller")

    def worker(self, name: str = "w1", *, concurrency: int = 100) -> None:
        """Start a worker under this name."""
        self.stand.start(name, "worker", "--name", name, "--concurrency", str(concurrency))

    def cast(self, *, apis: int = 1, pollers: int = 2, workers: int = 2, concurrency: int = 100) -> Client:
        """Start api1 …, p1 …, w1 …; returns a client once all are at work."""
        for n in range(1, pollers + 1):
            self.poller(f"p{n}")
        for n in range(1, workers + 1):
            self.worker(f"w{n}", concurrency=concurrency)
        for n in range(1, apis + 1):
            self.api(f"api{n}", wait=False)
        for name, url in self.urls.items():
            patiently(lambda url=url: requests.get(f"{url}/ready", timeout=5).status_code == 200, 30, name)
        self.wait_for_processes(pollers + workers)
        return self.stand.client()

    def wait_for_processes(self, count: int) -> None:
        """Wait until so many pollers and workers are registered."""
        patiently(lambda: self.stand.query(_ALIVE)[0][0] >= count, 30, f"{count} processes are registered")

    def said(self, event: str) -> dict[str, int]:
        """How often each process has logged this event."""
        logs = {
            path.stem: path.read_text(errors="replace")
            for path in self.stand.log_path("x").parent.glob("*.txt")
        }
        return {name: text.count(f'"{event}"') for name, text in logs.items() if f'"{event}"' in text}

    def warnings(self) -> dict[str, int]:
        """How often each event at warning or above was logged, by all processes together."""
        counts: Counter[str] = Counter()
        for path in self.stand.log_path("x").parent.glob("*.txt"):
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if said["level"] not in ("debug", "info"):
                        counts[said["event"]] += 1
        return dict(counts.most_common())

    def ended(self) -> list[str]:
        """The processes that have ended although nobody told them to."""
        return [name for name, process in self.stand.processes.items() if process.poll() is not None]

    def kill(self, name: str) -> None:
        """End a process with SIGKILL."""
        self.stand.stop(name, signal.SIGKILL)

    def running(self) -> int:
        """How many executions are running, by Postgres."""
        count: int = self.stand.query("SELECT count(*) FROM execution WHERE state = 'running'")[0][0]
        return count

    def calls(self) -> list[Call]:
        """What the target has received so far."""
        return calls_of(self.target.arrivals)


def patiently(holds: Callable[[], bool], within: float, what: str, every: float = 0.05) -> float:
    """Wait until it ``holds``, forgiving servers that are away; returns the seconds it took.

    RuntimeError after ``within`` seconds: the scenario itself cannot go on.
    """
    began = time.monotonic()
    while True:
        fault = ""
        try:
            if holds():
                return time.monotonic() - began
        except Exception as error:
            fault = f" ({error})"
        if time.monotonic() - began > within:
            raise RuntimeError(f"not after {within:g} s: {what}{fault}")
        time.sleep(every)


def pause(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(max(0.0, seconds))


# ---------------------------------------------------------------------------------------------------------------
# A load whose every slot is known


@dataclass(frozen=True)
class Slots:
    """Jobs with the slots that they are to run. ``first``, ``last``: unix seconds."""

    jobs: tuple[int, ...]
    slots: frozenset[tuple[int, str]]
    first: float
    last: float


def schedule_load(client: Client, url: str, *, jobs: int, step: float, runs: int, **fields: Any) -> Slots:
    """Create ``jobs`` that run every ``step`` seconds, ``runs`` times, all at the same moments."""
    # A bulk of a few hundred takes well under a second.
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    common = {"schedule": f"@every {step:g}s", "start_at": stamp(start), "max_runs": runs, "api": url}
    ids = client.jobs.create_many([common | fields] * jobs)["ids"]
    slots = frozenset((job, slot) for job in ids for slot in every(start, step, runs))
    return Slots(tuple(ids), slots, start.timestamp() + step, start.timestamp() + step * runs)


def stop_load(stage: Stage, client: Client, load: Slots) -> Slots:
    """Pause the jobs of a load; what they were to run until then. All pollers are at work."""
    before = stamp(datetime.now(UTC) - timedelta(seconds=1))
    for job in load.jobs:
        client.jobs.pause(job)
    after = stamp(datetime.now(UTC))
    fired = stage.stand.query(
        "SELECT job_id, scheduled_for FROM execution UNION SELECT job_id, scheduled_for FROM execution_history"
    )
    # A slot of the last moment may have run, or been overtaken by the pause.
    perhaps = {(job, stamp(slot)) for job, slot in fired}
    slots = {one for one in load.slots if one[1] <= before or (one[1] <= after and one in perhaps)}
    return replace(load, slots=frozenset(slots))


def run_at_once(stage: Stage, jobs: Sequence[int]) -> list[int]:
    """Make one execution by hand for each of ``jobs``, all in one moment; their ids."""
    rows = stage.stand.query(
        "INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue) "
        "SELECT 1, j, 'manual', clock_timestamp(), clock_timestamp(), 'pending', 5, 'default', 'default' "
        "FROM unnest(%s::bigint[]) AS j RETURNING id",
        (list(jobs),),
    )
    return [row[0] for row in rows]


# ---------------------------------------------------------------------------------------------------------------
# The account


def account(stage: Stage, findings: Findings, load: Slots, *, within: float) -> dict[str, Any]:
    """Wait for the end of a load, then compare slots, history and arrivals. Returns counts.

    Every slot ran once and succeeded; the target saw each execution under one key, each attempt once, and no
    attempt that the history does not tell of.
    """
    jobs = list(load.jobs)
    try:
        patiently(lambda: stage.stand.query(_LEFT, (jobs,)) == [(0, 0)], within, "all is over", 0.2)
    except RuntimeError as error:
        states = stage.stand.query("SELECT state, count(*) FROM execution GROUP BY 1")
        findings.append(f"{error}; left: {states}")
    rows = stage.stand.query(_ENDED, (jobs,))
    ended = Counter((job, stamp(slot)) for _id, job, slot, *_ in rows)
    findings.none_of(load.slots - ended.keys(), "slots lost")
    findings.none_of(ended.keys() - load.slots, "slots that nobody asked for")
    findings.none_of([slot for slot, count in ended.items() if count > 1], "slots that ran twice")
    findings.none_of([row for row in rows if row[3] != "succeeded"], "executions that did not succeed")
    mine = set(jobs)
    calls = [call for call in stage.calls() if call.job in mine]
    attempts = {row[0]: row[4] for row in rows}
    findings.none_of(attempts.keys() - {call.execution for call in calls}, "executions without a call")
    findings.none_of(
        [call for call in calls if call.execution not in attempts], "calls of unknown executions"
    )
    arrived = Counter((call.execution, call.attempt) for call in calls)
    findings.none_of([one for one, count in arrived.items() if count > 1], "attempts that arrived twice")
    findings.none_of(
        [one for one in arrived if one[1] > attempts.get(one[0], one[1])],
        "attempts that the history does not know",
    )
    keys = {(call.execution, call.key) for call in calls}
    findings.expect(
        len(keys) == len({key for _id, key in keys}) == len({i for i, _key in keys}),
        "a key changed over attempts",
    )
    return {"executions": len(rows), "calls": len(calls), "repeated_calls": len(calls) - len(rows)}

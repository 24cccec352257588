"""One run of the bench: start everything, load it, strike by the plan, drain, and account."""

import os
import platform
import random
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.bench import collect
from tests.chaos.bench.accountant import account
from tests.chaos.bench.cluster import Cluster
from tests.chaos.bench.evidence import keep, timeline_with_logs
from tests.chaos.bench.faults import FAULTS
from tests.chaos.bench.load import Load
from tests.chaos.bench.plan import Planned, chance_of, make_plan
from tests.chaos.bench.records import Strike, Verdict

#: Seconds of load before the first fault, so that there is something in flight.
WARM_UP = 5.0

#: Seconds after the last fault within which nothing may be left.
DRAIN = 60.0


@dataclass(slots=True)
class Result:
    """What one seed showed."""

    seed: int
    seconds: float
    every: float
    began: float
    machine: str
    strikes: list[Strike]
    verdict: Verdict
    #: Seconds from the end of the last fault, or of the load, until nothing was live or to come any more; None if
    #: something stayed.
    drained_after: float | None
    #: Faults of the bench itself; a run with any proves nothing.
    broken: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was found, and the bench did what it says."""
        return self.verdict.clean and not self.broken

    def as_json(self) -> dict[str, Any]:
        """As it stands in the result file; of what was in flight at a strike, how many."""
        strikes = [
            asdict(strike)
            | {
                "began": round(strike.began - self.began, 2),
                "ended": round(strike.ended - self.began, 2),
                "in_flight": len(strike.in_flight),
            }
            for strike in self.strikes
        ]
        verdict = {"clean": self.verdict.clean, **asdict(self.verdict)}
        return {"passed": self.passed, **asdict(self), "strikes": strikes, "verdict": verdict}


def run_seed(seed: int, seconds: float, folder: Path, *, every: float = 5.0, rate: float = 200.0) -> Result:
    """Run ``seconds`` of load with a fault every ``every`` seconds; the evidence goes to ``folder``."""
    plan = make_plan(seed, seconds, every)
    with Cluster() as cluster:
        cluster.wait_until_whole(60)
        began = time.time()
        until = began + WARM_UP + seconds
        calls = cluster.stand.folder / "calls.jsonl"
        load = Load(cluster.urls, cluster.key, cluster.target_url, seed, rate=rate, until=until, log=calls)
        load.start()
        nemesis = Nemesis(cluster, plan, seed)
        nemesis.run(began + WARM_UP)
        _sleep_until(until)
        load.stop()
        nemesis.join()
        last = max((strike.ended for strike in nemesis.strikes), default=time.time())
        broken = [*nemesis.broken, *load.broken]
        try:
            cluster.wait_until_whole(60)
        except AssertionError as error:
            broken.append(f"not whole again: {error}")
        drained_after = _drain(cluster, max(last, until))
        cluster.timeline.add("bench", "drained" if drained_after is not None else "not drained")
        strikes = sorted(nemesis.strikes, key=lambda strike: strike.began)
        verdict = account(**collect.everything(cluster, load), strikes=strikes)
        result = Result(seed, seconds, every, began, machine(), strikes, verdict, drained_after, broken)
        keep(folder, timeline_with_logs(cluster.timeline, cluster.logs()), cluster.stand.folder)
        return result


def machine() -> str:
    """What the figures were measured on, in a few words."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


class Nemesis:
    """Strikes as the plan says, each strike on a thread of its own: some last for half a minute."""

    def __init__(self, cluster: Cluster, plan: list[Planned], seed: int) -> None:
        self._cluster = cluster
        self._plan = plan
        self._seed = seed
        self._threads: list[threading.Thread] = []
        self.strikes: list[Strike] = []
        self.broken: list[str] = []

    def run(self, start: float) -> None:
        """Begin every strike at its time; returns when the last has begun."""
        for index, planned in enumerate(self._plan):
            _sleep_until(start + planned.at)
            thread = threading.Thread(target=self._strike, args=(planned, chance_of(self._seed, index)))
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Wait until every fault is healed."""
        for thread in self._threads:
            thread.join()

    def _strike(self, planned: Planned, chance: random.Random) -> None:
        timeline = self._cluster.timeline
        timeline.add(planned.kind, "strikes")
        try:
            strike = FAULTS[planned.kind].strike(self._cluster, chance)
        except Exception as error:
            timeline.add(planned.kind, f"the bench failed: {error!r}")
            self.broken.append(f"{planned.kind} at {planned.at:g} s: {error!r}")
            return
        timeline.add(planned.kind, f"healed; {strike.effect}")
        self.strikes.append(strike)


def _drain(cluster: Cluster, since: float) -> float | None:
    while time.time() < since + DRAIN:
        if collect.is_over(cluster.stand, cluster.poisoned):
            return max(0.0, time.time() - since)
        time.sleep(0.5)
    return None


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))

"""Part ``reads``: how long each read of the API takes, with a month's work behind it and beside an almost empty one.

One client on one kept connection asks for each in turn, with other ids each time, while 500 executions a second fall
due and are delivered. So a read meets the caches that the others leave.

Of the slowest twentieth of each read it is also told where the time went: what the API and its sessions in Postgres
have computed, how long they waited for a core that others had, and the rest, which is the disk, locks and the client.
"""

import http.client
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from bench import installation, plots
from bench.fill import BUSY_JOBS, Filled, fill
from bench.lag import RATE
from bench.markdown import table
from bench.part import Bar, Figures, Options, Part
from bench.process import scheduled, tree
from bench.stamps import StampingTarget
from jobsched.testing.stand import Stand
from jobsched.web.params import cursor_of

FULL = (1_000_000, 5_000_000)
EMPTY = (1_000, 5_000)
QUICK = (20_000, 100_000)

ROUNDS, ROUNDS_QUICK, WARM_UP = 220, 20, 20
#: A search for a text reads every job, which takes as long as it takes: so many are enough.
_SEARCHES = 12
BAR = 10.0

_INTERVAL = 5
_SETTLE = 20.0
_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobsched-api'"


@dataclass(frozen=True)
class Read:
    """One kind of request: its group, and the path of the next one."""

    name: str
    group: str
    path: Callable[["Ids"], str]


class Ids:
    """Ids that exist, drawn anew for each request, and instants of the month."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled
        self._chance = random.Random(11)

    def job(self) -> int:
        """A job like most."""
        return self._chance.randrange(
            self._filled.first_job + BUSY_JOBS, self._filled.first_job + self._filled.jobs
        )

    def busy(self) -> int:
        """One that has run every minute."""
        return self._chance.randrange(self._filled.first_job, self._filled.first_job + BUSY_JOBS)

    def key(self) -> str:
        """The key of a job."""
        number = self.job() // 2 * 2
        return quote(f"tenant-{number % 997}/job-{number}", safe="")

    def execution(self) -> int:
        """One that is over."""
        return self._chance.randrange(
            self._filled.first_execution, self._filled.first_execution + self._filled.history
        )

    def days_ago(self, days: float) -> str:
        """An instant about so long ago."""
        at = datetime.now(UTC) - timedelta(days=days + self._chance.uniform(0, 0.5))
        return at.isoformat(timespec="seconds")

    def tag(self) -> str:
        """One of those that a few jobs in a thousand have."""
        return f"team-{self._chance.randrange(211)}"


def _list(path: str, **filters: Callable[[Ids], object]) -> Callable[[Ids], str]:
    return lambda ids: (
        f"{path}?{urlencode({name.rstrip('_'): value(ids) for name, value in filters.items()})}"
    )


def _is(value: str) -> Callable[[Ids], str]:
    return lambda _ids: value


_JOBS, _EXECUTIONS, _DEAD = "/api/v1/jobs", "/api/v1/executions", "/api/v1/dead-letters"
READS: Sequence[Read] = (
    Read("job", "by id", lambda ids: f"{_JOBS}/{ids.job()}"),
    Read("job by key", "by id", lambda ids: f"{_JOBS}/key/{ids.key()}"),
    Read("next slots of a job", "by id", lambda ids: f"{_JOBS}/{ids.job()}/next"),
    Read("execution", "by id", lambda ids: f"{_EXECUTIONS}/{ids.execution()}"),
    Read("jobs", "lists", _is(_JOBS)),
    Read("jobs, deep page", "lists", _list(_JOBS, cursor=lambda ids: cursor_of("jobs", ids.job()))),
    Read("executions", "lists", _is(_EXECUTIONS)),
    Read(
        "executions, deep page",
        "lists",
        _list(_EXECUTIONS, cursor=lambda ids: cursor_of("executions", ids.execution())),
    ),
    Read("executions of a job", "lists", lambda ids: f"{_JOBS}/{ids.job()}/executions"),
    Read("executions of a busy job", "lists", lambda ids: f"{_JOBS}/{ids.busy()}/executions"),
    Read("dead letters", "lists", _is(_DEAD)),
    Read(
        "dead letters, deep page",
        "lists",
        _list(_DEAD, cursor=lambda ids: cursor_of("dead-letters", ids.execution())),
    ),
    Read("jobs, paused", "filters", _list(_JOBS, isActive=_is("false"))),
    Read("jobs of a pool", "filters", _list(_JOBS, pool=_is("mail"))),
    Read("jobs of a pool without any", "filters", _list(_JOBS, pool=_is("nobody"))),
    Read("jobs with a tag", "filters", _list(_JOBS, tag=Ids.tag)),
    Read("jobs with a tag of none", "filters", _list(_JOBS, tag=_is("nobody"))),
    Read("jobs that failed last", "filters", _list(_JOBS, state=_is("failed"))),
    Read("executions that failed", "filters", _list(_EXECUTIONS, state=_is("failed"))),
    Read("executions that were cancelled", "filters", _list(_EXECUTIONS, state=_is("cancelled"))),
    Read("executions that run", "filters", _list(_EXECUTIONS, state=_is("running"))),
    Read("executions by hand", "filters", _list(_EXECUTIONS, trigger=_is("manual"))),
    Read("executions by redrive (none)", "filters", _list(_EXECUTIONS, trigger=_is("redrive"))),
    Read("executions of the last day", "filters", _list(_EXECUTIONS, from_=lambda ids: ids.days_ago(0.5))),
    Read(
        "executions of a day of the month",
        "filters",
        _list(_EXECUTIONS, from_=lambda ids: ids.days_ago(10), to=lambda ids: ids.days_ago(9)),
    ),
    Read("executions until a day", "filters", _list(_EXECUTIONS, to=lambda ids: ids.days_ago(20))),
    Read("failures of a busy job", "filters", lambda ids: f"{_JOBS}/{ids.busy()}/executions?state=failed"),
    Read("dead letters of a job", "filters", _list(_DEAD, jobId=Ids.job)),
    Read("dead letters by an error of none", "filters", _list(_DEAD, errorCode=_is("timeout"))),
    Read("dead letters of the last day", "filters", _list(_DEAD, from_=lambda ids: ids.days_ago(0.5))),
    Read("stats", "stats", _is("/queue/stats")),
    Read("metrics", "stats", _is("/metrics")),
    Read("ready", "stats", _is("/ready")),
    Read("jobs, search for one", "search", _list(_JOBS, q=lambda ids: f"customer {ids.job()}")),
    Read("jobs, search for many", "search", _list(_JOBS, q=_is("Invoice"))),
)


def measure(options: Options) -> Figures:
    """On an installation with little in it, then on one with a month's work."""
    rounds = ROUNDS_QUICK if options.quick else ROUNDS
    sizes = {"empty": EMPTY, "full": QUICK if options.quick else FULL}
    return {"rate": RATE, "rounds": rounds} | {name: _at_size(*size, rounds) for name, size in sizes.items()}


def _at_size(jobs: int, history: int, rounds: int) -> dict[str, Any]:
    with Stand() as stand:
        filled = fill(stand.database_url, jobs=jobs, history=history)
        target = StampingTarget(stand.folder)
        try:
            installation.start(stand)
            start_load(stand, target.url)
            time.sleep(_SETTLE)
            reads = read_all(stand, filled, rounds)
        finally:
            target.kill()
    return {"jobs": jobs, "history": history, "fill_seconds": round(filled.seconds, 1), "reads": reads}


def start_load(stand: Stand, url: str) -> None:
    """Jobs of which ``RATE`` executions a second fall due, evenly spread."""
    start = datetime.now(UTC) + timedelta(seconds=2)
    count = RATE * _INTERVAL
    stand.client().jobs.create_many(
        {
            "api": f"{url}/",
            "schedule": f"@every {_INTERVAL}s",
            "startAt": (start + timedelta(seconds=_INTERVAL) * n / count).isoformat(),
        }
        for n in range(count)
    )


@dataclass(frozen=True)
class _Taken:
    """Where the milliseconds of one request went."""

    whole: float
    api: float
    postgres: float
    waiting: float


def read_all(
    stand: Stand, filled: Filled, rounds: int, *, searches: bool = True
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each read, over ``rounds`` rounds after some to warm up; ``searches``: those of a text, too."""
    ids = Ids(filled)
    chosen = [read for read in READS if searches or read.group != "search"]
    taken: dict[str, list[_Taken]] = {read.name: [] for read in chosen}
    connection = http.client.HTTPConnection(stand.url.removeprefix("http://"), timeout=60)
    headers = {"Authorization": f"Bearer {stand.key}"}
    link = stand.link()
    for number in range(-WARM_UP, rounds):
        api, postgres = tree(stand.processes["api"].pid), [pid for (pid,) in link.execute(_SESSIONS)]
        for read in chosen:
            if read.group == "search" and not 0 <= number < _SEARCHES:
                continue
            path = read.path(ids)
            before = scheduled(api), scheduled(postgres)
            began = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            seconds = time.perf_counter() - began
            after = scheduled(api), scheduled(postgres)
            assert answer.status == 200, f"{path}: {answer.status} {body[:300]!r}"
            if number >= 0:
                taken[read.name].append(_split(seconds, before, after))
    link.close()
    connection.close()
    return {
        read.name: {
            "group": read.group,
            **_quantiles([one.whole for one in taken[read.name]]),
            "slowest": _of_slowest(taken[read.name]),
        }
        for read in chosen
    }


_Scheduled = tuple[tuple[float, float], tuple[float, float]]


def _split(seconds: float, before: _Scheduled, after: _Scheduled) -> _Taken:
    (api, api_waited), (postgres, postgres_waited) = (
        (1000 * (now[0] - then[0]), 1000 * (now[1] - then[1]))
        for then, now in zip(before, after, strict=True)
    )
    return _Taken(1000 * seconds, api, postgres, api_waited + postgres_waited)


def _of_slowest(taken: Sequence[_Taken]) -> dict[str, float]:
    """The means of the slowest twentieth."""
    slowest = sorted(taken, key=lambda one: one.whole)[-max(1, len(taken) // 20) :]
    means = {
        f"{name}_ms": statistics.fmean(getattr(one, name) for one in slowest)
        for name in ("whole", "api", "postgres", "waiting")
    }
    rest = means["whole_ms"] - means["api_ms"] - means["postgres_ms"] - means["waiting_ms"]
    return {name: round(value, 2) for name, value in (means | {"rest_ms": max(0.0, rest)}).items()}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98], "max_ms": max(values)}
    return {name: round(value, 2) for name, value in named.items()}


def bars(figures: Figures) -> Sequence[Bar]:
    """Of each group the slowest read, at full size."""
    worst: dict[str, tuple[float, str]] = {}
    for name, one in figures["full"]["reads"].items():
        worst[one["group"]] = max(worst.get(one["group"], (0.0, "")), (one["p95_ms"], name))
    return [
        Bar(f"reads at full size, {group}, p95 of the slowest ({name})", p95, BAR, "ms", "at most")
        for group, (p95, name) in worst.items()
    ]


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """The median of each read with its 95th percentile. What takes seconds is left to the table."""
    rows = [
        (name, one["p50_ms"], one["p50_ms"], one["p95_ms"])
        for name, one in figures["full"]["reads"].items()
        if one["group"] != "search"
    ]
    title = f"Reads of the API beside {figures['rate']} deliveries/s: median, and up to the 95th percentile"
    return [plots.horizontal_bars(folder / "reads-latency.svg", title, "milliseconds", rows, mark=BAR)]


def words(figures: Figures) -> str:
    """Each read, full and empty."""
    full, empty = figures["full"], figures["empty"]

    def cells(one: Mapping[str, float]) -> list[str]:
        return [plots.amount(one[name]) for name in ("p50_ms", "p95_ms", "p99_ms")]

    header = ["read (ms)", "p50", "p95", "p99", "p50, empty", "p95, empty", "p99, empty"]
    rows = [[name, *cells(one), *cells(empty["reads"][name])] for name, one in full["reads"].items()]
    sizes = ", ".join(
        f"{name}: {one['jobs']:,} jobs and {one['history']:,} executions"
        for name, one in (("full", full), ("empty", empty))
    )
    parts = ("whole_ms", "api_ms", "postgres_ms", "waiting_ms", "rest_ms")
    slowest = [
        [name, *(plots.amount(one["slowest"][part]) for part in parts)]
        for name, one in full["reads"].items()
        if "slowest" in one
    ]
    where = table(["read (ms)", "whole", "API", "Postgres", "waiting for a core", "rest"], slowest)
    told = f"\nWhere the time of the slowest twentieth went, with a month of history:\n\n{where}"
    return f"{sizes}.\n\n{table(header, rows)}{told if slowest else ''}"


PART = Part("reads", "Reads", measure, bars, draw, words)

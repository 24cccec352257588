"""Part ``fire``: how many due schedules pollers turn into executions that are committed and pushed a second.

100,000 jobs fall due at one instant, each with a cron expression and a zone, 57,600 different pairs of them. Pollers,
fresh processes, wait for it as they do in life. What counts is the time from that instant until the last id stands in
its queue in Redis: the id is pushed after its execution is committed, so both are in it, with every policy on the way.
No worker runs and no queue has a mark, so nothing but firing takes the machine.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from bench import plots
from bench.installation import await_alive
from bench.markdown import spread, table
from bench.part import Bar, Figures, Options, Part
from bench.process import cpu_of, pss_bytes, tree
from jobsched.db.connection import Link
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.testing.stand import Stand

JOBS, JOBS_QUICK = 100_000, 20_000
ROUNDS, ROUNDS_QUICK = 3, 1
BAR = 20_000.0

#: Offsets of whole hours, half hours and quarters; with and without clock changes, on both halves of the earth.
ZONES: Final = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Johannesburg",
    "Africa/Lagos",
    "Africa/Nairobi",
    "America/Bogota",
    "America/Chicago",
    "America/Denver",
    "America/Halifax",
    "America/Lima",
    "America/Los_Angeles",
    "America/Mexico_City",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Toronto",
    "Asia/Dubai",
    "Asia/Jakarta",
    "Asia/Karachi",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Manila",
    "Asia/Seoul",
    "Asia/Shanghai",
    "Asia/Singapore",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Istanbul",
    "Europe/London",
    "Europe/Madrid",
    "Europe/Moscow",
    "Europe/Warsaw",
    "Pacific/Auckland",
    "Pacific/Honolulu",
    "UTC",
]

#: Seconds from the beginning of the fill to the instant at which all is due, and how long firing may take.
_AHEAD, _AHEAD_QUICK, _PATIENCE = 40, 10, 60.0
_LOOK_EVERY = 0.02

_SETTINGS = {"JOBSCHED_QUEUE_HIGH_WATER": "10000000"}
_FILL = """
WITH new AS (
    INSERT INTO job (project_id, schedule, timezone, is_recurring, api)
    SELECT 1, (%(schedules)s::text[])[1 + n %% %(pairs)s], (%(zones)s::text[])[1 + n %% %(pairs)s], true,
        'http://127.0.0.1:1/'
    FROM generate_series(1, %(jobs)s) AS n RETURNING id
)
INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor)
SELECT id, %(due)s, %(due)s, clock_timestamp() FROM new
"""
_PAIRS = "SELECT count(*) FROM (SELECT DISTINCT schedule, timezone FROM job) AS pairs"
_FIRED = """
SELECT count(*), count(DISTINCT job_id), count(*) FILTER (WHERE state = 'queued' AND scheduled_for = %s),
    (SELECT count(*) FROM job_schedule WHERE next_slot > %s AND runs = 1)
FROM execution
"""


def measure(options: Options) -> Figures:
    """One poller and two, in turn; a fresh installation each time."""
    jobs, rounds, ahead = (
        (JOBS_QUICK, ROUNDS_QUICK, _AHEAD_QUICK) if options.quick else (JOBS, ROUNDS, _AHEAD)
    )
    runs: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
    for _ in range(rounds):
        for name, pollers in (("one", 1), ("two", 2)):
            runs[name].append(_run(pollers, jobs, ahead))
    return {
        "jobs": jobs,
        "pairs": runs["one"][0]["pairs"],
        "rounds": rounds,
        "pollers": {name: _summary(several) for name, several in runs.items()},
    }


def _run(pollers: int, jobs: int, ahead: int) -> dict[str, Any]:
    with Stand(**_SETTINGS) as stand:
        names = [f"poller-{number}" for number in range(pollers)]
        for name in names:
            stand.start(name, "poller")
        await_alive(stand, pollers)
        link = stand.link()
        try:
            due = datetime.fromtimestamp(ceil(time.time()) + ahead, UTC)
            pairs = fill(link, jobs, due)
            # What autovacuum and the checkpointer would do within minutes, and then not in the middle of it.
            link.execute("ANALYZE")
            link.execute("CHECKPOINT")
            return {"pairs": pairs} | _fire(stand, names, jobs, due, link)
        finally:
            link.close()


def fill(link: Link, jobs: int, due: datetime) -> int:
    """Make jobs of which ``due`` is a slot; how many pairs of schedule and zone they have."""
    pairs = [(schedule, zone) for zone in ZONES for schedule in schedules(due.astimezone(ZoneInfo(zone)))]
    parameters = {
        "schedules": [schedule for schedule, _zone in pairs],
        "zones": [zone for _schedule, zone in pairs],
        "pairs": len(pairs),
        "jobs": jobs,
        "due": due,
    }
    link.execute(_FILL, parameters)
    distinct: int = link.execute(_PAIRS)[0][0]
    assert distinct == min(jobs, len(pairs)), f"{distinct} pairs"
    return distinct


def schedules(local: datetime) -> list[str]:
    """1,440 cron expressions that match the wall time ``local``, each at one or three other times of the day too."""
    return [
        f"{local.second} {minute} {hour} * * *"
        for minute in _with_others(local.minute, 60)
        for hour in _with_others(local.hour, 24)
    ]


def _with_others(value: int, count: int) -> list[str]:
    return [str(value) if other == value else f"{value},{other}" for other in range(count)]


def _fire(stand: Stand, names: Sequence[str], jobs: int, due: datetime, link: Link) -> dict[str, Any]:
    assert stand.postgres.pid is not None
    assert stand.valkey.pid is not None
    pollers = [stand.processes[name].pid for name in names]
    roots = {"poller": pollers, "Postgres": [stand.postgres.pid], "Valkey": [stand.valkey.pid]}
    broker, at = Broker(connect(stand.redis_url)), due.timestamp()
    assert time.time() < at - 1, "filling took longer than was planned"
    time.sleep(at - 0.5 - time.time())
    before = _cpu(roots)
    pushed, series = 0, []
    while pushed < jobs:
        time.sleep(_LOOK_EVERY)
        pushed = broker.depths(["default"])["default"]
        passed = time.time() - at
        series.append((round(passed, 3), pushed))
        assert passed < _PATIENCE, (
            f"{pushed} of {jobs} after {passed:.0f} s: {stand.log_of(names[0])[-2000:]}"
        )
    after = _cpu(roots)
    memory = max(pss_bytes([pid]) for pid in pollers)
    assert link.execute(_FIRED, (due, due)) == [(jobs,) * 4], "not each job was fired once, and moved on"
    return {
        "per_second": jobs / series[-1][0],
        "cpu_us": {name: 1e6 * (after[name] - before[name]) / jobs for name in roots},
        "poller_pss_mb": memory / 1e6,
        "pushed": [look for look in series if look[1]],
    }


def _cpu(roots: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Of whole trees, as they are now: a poller opens another connection once it has much to fire."""
    return {name: cpu_of(pid for root in pids for pid in tree(root)) for name, pids in roots.items()}


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cpu = {name: _spread([run["cpu_us"][name] for run in runs]) for name in runs[0]["cpu_us"]}
    return {
        "per_second": _spread([run["per_second"] for run in runs]),
        "cpu_us": cpu,
        "cpu_us_all": _spread([sum(run["cpu_us"].values()) for run in runs]),
        "poller_pss_mb": _spread([run["poller_pss_mb"] for run in runs]),
        "pushed": [run["pushed"] for run in runs],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def bars(figures: Figures) -> Sequence[Bar]:
    """The promise for one poller."""
    speed = figures["pollers"]["one"]["per_second"]["median"]
    return [Bar("executions fired by one poller, committed and pushed", speed, BAR, "/s", "at least")]


_LABELS = {"one": "one poller", "two": "two pollers"}


def draw(figures: Figures, folder: Path) -> Sequence[Path]:
    """Speeds, and what an execution costs each process."""
    pollers = figures["pollers"]
    speeds = [
        (_LABELS[name], *(found["per_second"][key] for key in ("median", "low", "high")))
        for name, found in pollers.items()
    ]
    costs = [
        (_LABELS[name], {group: cost["median"] for group, cost in found["cpu_us"].items()})
        for name, found in pollers.items()
    ]
    title = f"Executions fired a second, {figures['jobs']:,} due at one instant"
    return [
        plots.horizontal_bars(folder / "fire-speed.svg", title, "executions/s", speeds, mark=BAR),
        plots.stacked_bars(folder / "fire-cpu.svg", "Processor time of firing one execution", "µs", costs),
    ]


def words(figures: Figures) -> str:
    """Speeds and costs in a table."""
    pollers = figures["pollers"]
    groups = list(pollers["one"]["cpu_us"])
    rows = [
        [
            _LABELS[name],
            spread(found["per_second"]),
            *(spread(found["cpu_us"][group]) for group in groups),
            spread(found["cpu_us_all"]),
            spread(found["poller_pss_mb"]),
        ]
        for name, found in pollers.items()
    ]
    return (
        f"{figures['jobs']:,} jobs due at one instant, {figures['pairs']:,} different pairs of cron expression and "
        f"zone; {figures['rounds']} rounds, median (lowest to highest). Processor time in µs an execution.\n\n"
        + table(["", "executions/s", *groups, "all", "poller's memory (Pss), MB"], rows)
    )


PART = Part("fire", "Firing due schedules", measure, bars, draw, words)

"""Runs the checks in order, mends what may be mended, and reports."""

import threading

from jobsched import clock
from jobsched.config import Settings
from jobsched.db.connection import Link
from jobsched.doctor.finding import TROUBLE, Check, Finding, Limits, fail
from jobsched.doctor.report import Report
from jobsched.doctor.servers import Servers
from jobsched.doctor.watch import Watch
from jobsched.doctor.work import Work
from jobsched.errors import JobschedError
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.queue.health import Health

#: Seconds that one statement may take: whoever counts in a large installation needs them.
_STATEMENT_SECONDS = 60.0

_SETTLE_EVERY = 0.1


def examine(
    settings: Settings, *, fix: bool = False, as_json: bool = False, limits: Limits | None = None
) -> int:
    """Print one line a check. Returns 0 if nothing needs anybody, else 1. Raises ConfigError without addresses."""
    limits = limits or Limits()
    link = Link(settings.need_database_url(), "doctor", statement_timeout=_STATEMENT_SECONDS)
    client = connect(settings.need_redis_url(), tls_verify=settings.redis_tls_verify)
    broker, queue = Broker(client), Health(client)
    watch = Watch(link, broker, queue, limits.watch, limits.lost)
    work = Work(link, broker, queue, watch, limits, settings.history_days)
    report = Report(as_json)
    away: set[str] = set()
    try:
        for check in Servers(settings, link, queue, limits).checks():
            _examine(check, away, report, fix, limits)
        if "schema" not in away:
            watch.begin()
        for check in work.checks():
            _examine(check, away, report, fix, limits)
    finally:
        link.close()
        client.close()
    return report.end()


def _examine(check: Check, away: set[str], report: Report, fix: bool, limits: Limits) -> None:
    missing = [need for need in check.needs if need in away]
    if missing:
        away.add(check.key)
        report.add(check, Finding("skipped", f"not looked at, since {_told(missing[0])}"))
        return
    found = _look(check)
    if found.level == "fail":
        away.add(check.key)
    if fix and check.fix is not None and found.level != "ok":
        found = _mend(check, found, limits)
    report.add(check, found)


def _look(check: Check) -> Finding:
    try:
        return check.look()
    except JobschedError as error:
        return fail(str(error))


def _mend(check: Check, found: Finding, limits: Limits) -> Finding:
    """Mend, and look again until all is well or the pollers had their time to do what they were asked for."""
    assert check.fix is not None
    try:
        did = check.fix()
    except JobschedError as error:
        return Finding(found.level, f"{found.text} Could not be mended: {error}")
    if not did:
        return found
    nap, end = threading.Event(), clock.monotonic() + limits.settle
    while (now := _look(check)).level in TROUBLE and clock.monotonic() < end:
        nap.wait(_SETTLE_EVERY)
    return found.after(did, now)


def _told(need: str) -> str:
    return {
        "postgres": "Postgres is away",
        "schema": "the schema is not there",
        "redis": "Redis is away",
    }[need]

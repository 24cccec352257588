"""How jobs, executions and dead letters look: which columns and details, in which words."""

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from jobsched.cli.output import (
    Cell,
    Column,
    Value,
    exact,
    full_moment,
    moment,
    on_terminal,
    print_block,
    print_details,
    print_heading,
    print_json,
    print_note,
    print_table,
    state,
)
from jobsched.cli.text import duration, instant, one_line

Row = Mapping[str, Any]

_JOB_COLUMNS = (
    Column("ID", number=True),
    Column("NAME", gives_way=True),
    Column("SCHEDULE", gives_way=True),
    Column("TARGET", gives_way=True),
    Column("NEXT RUN"),
    Column("LAST RUN"),
    Column("LAST STATE"),
)
_EXECUTION_COLUMNS = (
    Column("ID", number=True),
    Column("JOB", number=True),
    Column("STATE"),
    Column("TRIGGER"),
    Column("SCHEDULED FOR"),
    Column("TOOK", number=True),
    Column("ATTEMPT", number=True),
    Column("RESULT", gives_way=True),
)
#: Of one job: that one waited for another is seen from when it started.
_HISTORY_COLUMNS = (
    Column("ID", number=True),
    Column("STATE"),
    Column("TRIGGER"),
    Column("SCHEDULED FOR"),
    Column("STARTED"),
    Column("TOOK", number=True),
    Column("RESULT", gives_way=True),
)
_DEAD_COLUMNS = (
    Column("ID", number=True),
    Column("JOB", number=True),
    Column("SCHEDULED FOR"),
    Column("FAILED"),
    Column("ATTEMPTS", number=True),
    Column("ERROR", gives_way=True),
)
_UPCOMING_COLUMNS = (Column("LOCAL TIME"), Column("UTC"), Column("DUE"))
_ATTEMPT_COLUMNS = (
    Column("ATTEMPT", number=True),
    Column("STARTED"),
    Column("TOOK", number=True),
    Column("STATUS", number=True),
    Column("ERROR", gives_way=True),
)
#: Shown by ``jobs show`` in words of their own, or not worth a line.
_JOB_DETAILS_APART = frozenset({"payload", "headers", "api", "method", "schedule", "timezone", "isActive"})
_TIMES = frozenset({"nextExecutionTime", "lastExecutionTime", "createdAt", "updatedAt", "startAt", "endAt"})


def print_jobs(jobs: Iterable[Row]) -> None:
    """A table of jobs."""
    now = datetime.now(UTC)
    rows: list[list[Value]] = [
        [
            job.get("id"),
            job.get("name") or job.get("key"),
            job.get("schedule"),
            _target(job.get("api")),
            moment(job.get("nextExecutionTime"), now) if job.get("isActive") else state("paused"),
            moment(job.get("lastExecutionTime"), now),
            state(job.get("lastState")),
        ]
        for job in jobs
    ]
    print_table(_JOB_COLUMNS, rows, "No jobs.")


def print_job(job: Row) -> None:
    """All of one job."""
    now = datetime.now(UTC)
    pairs: dict[str, Value] = {
        "id": job.get("id"),
        "name": job.get("name"),
        "schedule": f"{one_line(job.get('schedule'))} ({one_line(job.get('timezone'))})",
        "target": f"{one_line(job.get('method'))} {one_line(job.get('api'))}",
        "active": Cell("yes", "green") if job.get("isActive") else Cell("no, paused", "yellow"),
    }
    if job.get("isActive") and job.get("nextExecutionTime") is None:
        pairs["nextExecutionTime"] = "none: no slot is left"
    for name, value in job.items():
        if name in _JOB_DETAILS_APART or name in pairs or value in (None, [], ""):
            continue
        if name in _TIMES:
            pairs[name] = full_moment(value, now)
        elif name == "lastState":
            pairs[name] = state(value)
        else:
            pairs[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    print_details(pairs)
    _print_headers("headers", job.get("headers"))
    if job.get("payload") is not None:
        print_block("payload", json.dumps(job["payload"], indent=2, ensure_ascii=False))


def say_done(job: Row, verb: str, as_json: bool) -> None:
    """Say in a line what became of a job, or print it as JSON."""
    if as_json:
        print_json(job)
        return
    name = job.get("name") or job.get("key")
    label = f" ({one_line(name)})" if name else ""
    next_run = job.get("nextExecutionTime")
    when = f" Next run: {full_moment(next_run)}." if next_run and job.get("isActive") else ""
    click.echo(f"{verb} job {job['id']}{label}.{when}")


def print_history(executions: Iterable[Row]) -> None:
    """A table of the executions of one job."""
    now = datetime.now(UTC)
    rows: list[list[Value]] = [
        [
            run.get("id"),
            state(run.get("state")),
            run.get("trigger"),
            moment(run.get("scheduledFor"), now),
            moment(run.get("startedAt"), now),
            duration(run.get("executionDurationMs")),
            _result(run),
        ]
        for run in executions
    ]
    print_table(_HISTORY_COLUMNS, rows, "No executions.")


def print_executions(executions: Iterable[Row]) -> None:
    """A table of executions."""
    now = datetime.now(UTC)
    rows: list[list[Value]] = [
        [
            run.get("id"),
            run.get("jobId"),
            state(run.get("state")),
            run.get("trigger"),
            moment(run.get("scheduledFor"), now),
            duration(run.get("executionDurationMs")),
            run.get("attempt"),
            _result(run),
        ]
        for run in executions
    ]
    print_table(_EXECUTION_COLUMNS, rows, "No executions.")


def print_execution(run: Row) -> None:
    """All of one execution: how it went, each attempt, and what the target answered."""
    now = datetime.now(UTC)
    pairs: dict[str, Value] = {
        "id": run.get("id"),
        "job": f"{one_line(run.get('jobId'))} (version {one_line(run.get('jobVersion'))})",
        "state": state(run.get("state")),
        "trigger": run.get("trigger"),
        "redrive of": run.get("redriveOf"),
        "slots skipped": run.get("skippedCount") or None,
        "scheduled for": full_moment(run.get("scheduledFor"), now),
    }
    for label, name in (("due", "dueAt"), ("started", "startedAt"), ("finished", "finishedAt")):
        if run.get(name):
            pairs[label] = full_moment(run[name], now)
    if run.get("executionDurationMs") is not None:
        pairs["took"] = duration(run["executionDurationMs"])
    pairs["retries"] = f"{one_line(run.get('retryCount'))} of {one_line(run.get('maxRetryCount'))}"
    pairs["worker"] = run.get("worker")
    pairs["status"] = run.get("responseStatus")
    pairs["error"] = Cell(_error(run), "red") if run.get("errorCode") else None
    pairs["phases"] = _phases(run.get("phases"))
    print_details(pairs)
    _print_attempts(run.get("attempts") or [])
    _print_headers("response headers", run.get("responseHeaders"))
    if run.get("responseBody"):
        cut = " (the rest was not kept)" if run.get("responseTruncated") else ""
        print_block(f"response body{cut}", _body(run))


def print_dead_letters(letters: Iterable[Row]) -> None:
    """A table of dead letters."""
    now = datetime.now(UTC)
    rows: list[list[Value]] = [
        [
            letter.get("id"),
            letter.get("jobId"),
            moment(letter.get("scheduledFor"), now),
            moment(letter.get("failedAt") or letter.get("finishedAt") or letter.get("createdAt"), now),
            letter.get("attempt"),
            _result(letter),
        ]
        for letter in letters
    ]
    print_table(_DEAD_COLUMNS, rows, "No dead letters.")


def print_upcoming(preview: Row) -> None:
    """The next runs. Where a person looks: the schedule in words before, remarks behind, not in a narrow column."""
    runs = preview["items"]
    if not on_terminal():
        rows: list[list[Value]] = [
            [run.get(name) for name in ("local", "scheduledFor", "dueAt", "remark")] for run in runs
        ]
        print_table((*_UPCOMING_COLUMNS, Column("REMARK")), rows, "It does not run again.")
        return
    now = datetime.now(UTC)
    click.echo(f"{one_line(preview.get('description'))}.\n")
    rows = [
        [
            f"{one_line(_weekday(run.get('local')))}",
            one_line(run.get("scheduledFor"))[:19].replace("T", " "),
            moment(run.get("dueAt"), now),
        ]
        for run in runs
    ]
    print_table(_UPCOMING_COLUMNS, rows, "It does not run again.")
    for run in runs:
        if run.get("remark"):
            print_note(f"{_weekday(run.get('local'))}: {one_line(run['remark'])}")


def _weekday(text: Any) -> str:
    """A local time of an answer, with its weekday, which tells most about a schedule."""
    at = instant(text)
    return one_line(text) if at is None else f"{at:%a %Y-%m-%d %H:%M:%S %z}"


def _target(url: Any) -> str:
    """A URL for a table; in a narrow terminal the usual scheme would hide the host."""
    text = one_line(url)
    return text.removeprefix("https://") if on_terminal() else text


def _result(run: Row) -> str:
    """The outcome in a few words: ``200``, ``503 http_status``, ``connect_failed: connection refused``."""
    status, code, message = run.get("responseStatus"), run.get("errorCode"), run.get("errorMessage")
    if code is None:
        return one_line(status)
    if status is not None:
        return f"{status} {code}"
    return f"{code}: {message}" if message else str(code)


def _error(run: Row) -> str:
    message = run.get("errorMessage")
    return f"{run['errorCode']}: {message}" if message else str(run["errorCode"])


def _phases(phases: Any) -> str | None:
    if not isinstance(phases, dict):
        return None
    shown = [
        f"{name.removesuffix('Ms')} {duration(value)}" for name, value in phases.items() if value is not None
    ]
    return ", ".join(shown) or None


def _print_attempts(attempts: list[Row]) -> None:
    if not attempts:
        return
    print_heading("attempts")
    rows: list[list[Value]] = [
        [
            attempt.get("attempt"),
            _attempt_start(attempt.get("startedAt")),
            duration((attempt.get("phases") or {}).get("totalMs")),
            attempt.get("responseStatus"),
            _error(attempt) if attempt.get("errorCode") else None,
        ]
        for attempt in attempts
    ]
    print_table(_ATTEMPT_COLUMNS, rows, "", cut=False)


def _attempt_start(text: Any) -> str:
    """Exact even in a terminal: what matters is the distance between attempts, not from now."""
    at = instant(text)
    return exact(at) if at is not None and on_terminal() else one_line(text)


def _print_headers(heading: str, headers: Any) -> None:
    if isinstance(headers, dict) and headers:
        print_block(heading, "\n".join(f"{name}: {one_line(value)}" for name, value in headers.items()))


def _body(run: Row) -> str:
    text = str(run["responseBody"])
    if run.get("responseBodyEncoding") != "base64":
        return text
    try:
        size = len(base64.b64decode(text))
    except ValueError:
        return text
    return f"{size} bytes that are no text; --json prints them as base64"

"""Many new jobs in one transaction, by COPY: about 5 µs of this process a job.

The rows are written as COPY's own text. psycopg would take all 37 values apart in turn; here all that a job
shares with others (see jobsched/domain/bulk.py) is put into text once, and what needs no escapes is not searched for
them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from peewee import Database
from psycopg import errors as pg

from jobsched.db.connection import converted, repeated
from jobsched.db.text_format import as_text
from jobsched.domain.bulk import OWN, BulkReader, NewJob
from jobsched.domain.json_text import compact
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times, first_times
from jobsched.errors import Conflict

_SHARED: Final = tuple(name for name in JobSpec.__dataclass_fields__ if name not in OWN)
_JOB: Final = ("id", *OWN, *_SHARED, "project_id", "version", "created_at", "updated_at")
_SCHEDULE: Final = ("job_id", "next_slot", "next_execution_time", "anchor")
_COPY_JOB: Final = f"COPY job ({', '.join(_JOB)}) FROM STDIN"
_COPY_SCHEDULE: Final = f"COPY job_schedule ({', '.join(_SCHEDULE)}) FROM STDIN"

_NULL_TEXT: Final = "\\N"
_NULL: Final = _NULL_TEXT.encode()
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_BLOCK: Final = 64 * 1024
_ATTEMPTS: Final = 5
# The lines are made while COPY runs: 10,000 schedules of 10,000 kinds take seconds, of several bulks at once many.
# An exchange with the server is a block of lines, or its last word on all of them.
_STATEMENT_SECONDS: Final = 120.0
_EXCHANGE_SECONDS: Final = 30.0
_PATIENCE: Final = "SET LOCAL idle_in_transaction_session_timeout = '60s'"


@dataclass(frozen=True, slots=True)
class Created:
    """``ids`` in the order of the reader's jobs. ``due_soon`` as in jobsched.db.jobs.Saved."""

    ids: Sequence[int]
    due_soon: bool


class BulkJobs:
    """Writes the jobs of a bulk to ``database``. ``poll_interval``: seconds, as for Jobs."""

    def __init__(self, database: Database, poll_interval: float = 5.0) -> None:
        self._database = database
        self._poll_interval = timedelta(seconds=poll_interval)

    @repeated
    def create(self, project_id: int, reader: BulkReader, *, partial: bool) -> Created | None:
        """Store the good jobs of ``reader``; those whose keys exist become faults of it.

        Without ``partial`` nothing is stored, and the answer is None, where any item has a fault. Raises Conflict
        if others make jobs with the same keys again and again meanwhile.
        """
        for _ in range(_ATTEMPTS):
            try:
                with converted(), self._database.atomic():
                    self._database.connection().extend(_STATEMENT_SECONDS, patience=_EXCHANGE_SECONDS)
                    self._database.execute_sql(_PATIENCE)
                    reader.refuse_keys(self._taken(project_id, reader.jobs))
                    if reader.faulty and not partial:
                        return None
                    return self._write(project_id, reader.jobs)
            except _Overtaken:
                continue
        raise Conflict("Jobs with the same keys are being created at the same time; try again.")

    def _taken(self, project_id: int, jobs: Iterable[NewJob]) -> frozenset[str]:
        keys = tuple(job.key for job in jobs if job.key is not None)
        if not keys:
            return frozenset()
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT key FROM job WHERE project_id = %s AND key = ANY(%s::text[]) AND deleted_at IS NULL",
                (project_id, as_text(keys)),
            )
            return frozenset(key for (key,) in cursor)

    def _write(self, project_id: int, jobs: Sequence[NewJob]) -> Created:
        if not jobs:
            return Created((), False)
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT clock_timestamp(), array_to_string(ARRAY("
                "SELECT nextval(pg_get_serial_sequence('job', 'id')) FROM generate_series(1, %s)), ' ')",
                (len(jobs),),
            )
            [(now, listed)] = cursor.fetchall()
            ids = list(map(int, listed.split()))
            lines = _Lines(project_id, now)
            schedules: list[bytes] = []
            try:
                _copy(
                    cursor,
                    _COPY_JOB,
                    _beside(map(lines.job, jobs, ids), map(lines.schedule, jobs, ids), schedules),
                )
            except (pg.UniqueViolation, pg.DeadlockDetected) as error:
                raise _Overtaken from error
            _copy(cursor, _COPY_SCHEDULE, schedules)
        soonest = lines.soonest
        return Created(ids, soonest is not None and soonest < now + self._poll_interval)

    def _cursor(self) -> psycopg.Cursor[Any]:
        connection: psycopg.Connection[Any] = self._database.connection()
        return connection.cursor()


class _Overtaken(Exception):
    """Somebody else has made a job with one of the keys since they were looked for."""


class _Timing(NamedTuple):
    """What the times of jobs follow from that share their policies and their schedule."""

    schedule: str
    timezone: str
    is_recurring: bool
    is_active: bool
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    jitter_seconds: float


class _Lines:
    """Rows of both tables as lines of COPY's text."""

    def __init__(self, project_id: int, now: datetime) -> None:
        self.soonest: datetime | None = None
        self._now = now
        self._tail = [_encoded(value) for value in (project_id, 1, now, now)]
        self._tags: dict[tuple[str, ...], str] = {(): "{}"}
        # By identity: specs hold dictionaries, and all of them live as long as the jobs.
        self._shared: dict[int, bytes] = {}
        self._times: dict[tuple[int, str, str], bytes] = {}
        self._anchors: dict[datetime, bytes] = {}

    def job(self, job: NewJob, job_id: int) -> bytes:
        _shared, key, name, description, api, schedule, timezone, recurring, headers, tags, payload, plain = (
            job
        )
        shared = self._shared.get(id(_shared))
        if shared is None:
            shared = self._shared[id(_shared)] = self._shared_part(_shared)
        tags_text = self._tags.get(tags)
        if tags_text is None:
            tags_text = self._tags[tags] = _escaped(as_text(tags))
        headers_text = compact(headers) if headers else "{}"
        if plain:
            texts = (
                f"{job_id}\t{_NULL_TEXT if key is None else key}\t{_NULL_TEXT if name is None else name}\t"
                f"{_NULL_TEXT if description is None else description}\t{api}\t{schedule}\t{timezone}\t"
                f"{'t' if recurring else 'f'}\t{headers_text}\t{tags_text}\t"
            )
        else:
            own = (key, name, description, api, schedule, timezone, as_text(recurring), headers_text)
            texts = "\t".join([str(job_id), *map(_escaped, own), tags_text, ""])
            # JSON has no raw tabs and line ends.
            payload = payload and payload.replace(b"\\", b"\\\\")
        return b"%b%b\t%b" % (texts.encode(), _NULL if payload is None else payload, shared)

    def _shared_part(self, spec: JobSpec) -> bytes:
        return b"\t".join([*(_encoded(getattr(spec, name)) for name in _SHARED), *self._tail]) + b"\n"

    def schedule(self, job: NewJob, job_id: int) -> bytes:
        known = id(job.shared), job.schedule, job.timezone
        line = self._times.get(known)
        if line is None:
            spec = job.shared
            timing = _Timing(
                job.schedule, job.timezone, job.is_recurring, spec.is_active, spec.start_at, spec.end_at,
                spec.max_runs, spec.jitter_seconds,
            )  # fmt: skip
            times = first_times(timing, job_id=job_id, now=self._now)
            line = self._schedule_line(times)
            if times.next_execution_time is not None:
                self.soonest = min(self.soonest or times.next_execution_time, times.next_execution_time)
            if not spec.jitter_seconds:  # else they depend on the id
                self._times[known] = line
        return b"%d%b" % (job_id, line)

    def _schedule_line(self, times: Times) -> bytes:
        slot = _encoded(times.next_slot)
        # As a rule the two are one, and all jobs of a bulk have the same anchor.
        due = slot if times.next_execution_time is times.next_slot else _encoded(times.next_execution_time)
        anchor = self._anchors.get(times.anchor)
        if anchor is None:
            anchor = self._anchors[times.anchor] = _encoded(times.anchor)
        return b"\t%b\t%b\t%b\n" % (slot, due, anchor)


def _escaped(value: str | None) -> str:
    return _NULL_TEXT if value is None else value.translate(_ESCAPES)


def _encoded(value: Any) -> bytes:
    """A value in COPY's text format (PostgreSQL's documentation, COPY, "Text Format")."""
    if isinstance(value, datetime):
        return value.isoformat().encode()
    return _escaped(as_text(value)).encode()


def _beside(lines: Iterator[bytes], others: Iterator[bytes], kept: list[bytes]) -> Iterator[bytes]:
    """``lines``; the ``others`` are made and kept meanwhile, since the server is the slower one while it copies."""
    for line in lines:
        kept.append(next(others))
        yield line


def _copy(cursor: psycopg.Cursor[Any], statement: str, lines: Iterable[bytes]) -> None:
    with cursor.copy(statement.encode()) as copy:
        block: list[bytes] = []
        size = 0
        for line in lines:
            block.append(line)
            size += len(line)
            if size > _BLOCK:
                copy.write(b"".join(block))
                block, size = [], 0
        copy.write(b"".join(block))

"""Many new jobs in one transaction, by COPY: about 5 µs of this process a job.

The rows are written as COPY's own text. psycopg would take all 37 values apart in turn; here all that a job
shares with others (see jobsched/domain/bulk.py) is put into text once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

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

_NULL: Final = b"\\N"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_BLOCK: Final = 256 * 1024
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
        keys = [job.key for job in jobs if job.key is not None]
        if not keys:
            return frozenset()
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT key FROM job WHERE project_id = %s AND key = ANY(%s) AND deleted_at IS NULL",
                (project_id, keys),
            )
            return frozenset(key for (key,) in cursor)

    def _write(self, project_id: int, jobs: Sequence[NewJob]) -> Created:
        if not jobs:
            return Created((), False)
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence('job', 'id')), clock_timestamp() "
                "FROM generate_series(1, %s)",
                (len(jobs),),
            )
            rows = cursor.fetchall()
            ids, now = [row[0] for row in rows], rows[0][1]
            lines = _Lines(project_id, now)
            try:
                _copy(cursor, _COPY_JOB, map(lines.job, jobs, ids))
            except (pg.UniqueViolation, pg.DeadlockDetected) as error:
                raise _Overtaken from error
            _copy(cursor, _COPY_SCHEDULE, map(lines.schedule, jobs, ids))
        soonest = lines.soonest
        return Created(ids, soonest is not None and soonest < now + self._poll_interval)

    def _cursor(self) -> psycopg.Cursor[Any]:
        connection: psycopg.Connection[Any] = self._database.connection()
        return connection.cursor()


class _Overtaken(Exception):
    """Somebody else has made a job with one of the keys since they were looked for."""


class _Lines:
    """Rows of both tables as lines of COPY's text."""

    def __init__(self, project_id: int, now: datetime) -> None:
        self.soonest: datetime | None = None
        self._now = now
        self._tail = [_encoded(value) for value in (project_id, 1, now, now)]
        self._values: dict[str, dict[Any, bytes]] = {name: {} for name in _SHARED}
        self._tags: dict[tuple[str, ...], bytes] = {}
        # By identity: specs hold dictionaries, and all of them live as long as the jobs.
        self._shared: dict[int, bytes] = {}
        self._times: dict[int, bytes] = {}

    def job(self, job: NewJob, job_id: int) -> bytes:
        shared = self._shared.get(id(job.shared))
        if shared is None:
            shared = self._shared[id(job.shared)] = self._shared_part(job.shared)
        payload = job.payload
        return b"\t".join(
            (
                b"%d" % job_id,
                _text(job.key),
                _text(job.name),
                _text(job.description),
                job.api.translate(_ESCAPES).encode(),
                _text(compact(job.headers)) if job.headers else b"{}",
                self._array(job.tags),
                # JSON has no raw tabs and line ends.
                _NULL if payload is None else payload.replace(b"\\", b"\\\\"),
                shared,
            )
        )

    def _shared_part(self, spec: JobSpec) -> bytes:
        parts = []
        for name, known in self._values.items():
            value = getattr(spec, name)
            part = known.get(value)
            if part is None:
                part = known[value] = _encoded(value)
            parts.append(part)
        return b"\t".join([*parts, *self._tail]) + b"\n"

    def _array(self, tags: tuple[str, ...]) -> bytes:
        part = self._tags.get(tags)
        if part is None:
            part = self._tags[tags] = _encoded(tags)
        return part

    def schedule(self, job: NewJob, job_id: int) -> bytes:
        spec = job.shared
        line = self._times.get(id(spec))
        if line is None:
            times = first_times(spec, job_id=job_id, now=self._now)
            line = b"\t%b\n" % b"\t".join(map(_encoded, _schedule_columns(times)))
            if times.next_execution_time is not None:
                self.soonest = min(self.soonest or times.next_execution_time, times.next_execution_time)
            if not spec.jitter_seconds:  # else they depend on the id
                self._times[id(spec)] = line
        return b"%d%b" % (job_id, line)


def _schedule_columns(times: Times) -> tuple[datetime | None, ...]:
    return times.next_slot, times.next_execution_time, times.anchor


def _text(value: str | None) -> bytes:
    return _NULL if value is None else value.translate(_ESCAPES).encode()


def _encoded(value: Any) -> bytes:
    """A value in COPY's text format (PostgreSQL's documentation, COPY, "Text Format")."""
    return _text(as_text(value))


def _copy(cursor: psycopg.Cursor[Any], statement: str, lines: Iterator[bytes]) -> None:
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

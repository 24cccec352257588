"""Many new jobs in one transaction, by COPY: about 5 µs of this process a job.

Where nothing is wrong with them, jobs are written as they are read, so that Postgres copies one block of them while
the next is being read. The rows are written as COPY's own text. psycopg would take all 37 values apart in turn; here
all that a job shares with others (see jobsched/domain/quick.py) is put into text once, and what needs no escapes is not
searched for them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final, NamedTuple

import psycopg
from peewee import Database
from psycopg import errors as pg

from jobsched.db.connection import converted, repeated
from jobsched.db.text_format import as_text
from jobsched.domain.bulk import BulkReader, NotAtOnce
from jobsched.domain.json_text import compact
from jobsched.domain.quick import OWN, SHARED, NewJob
from jobsched.domain.schedule import parse_schedule
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import FirstSlots, first_times
from jobsched.errors import Conflict

_JOB: Final = ("id", *OWN, *SHARED, "project_id", "version", "created_at", "updated_at")
_SCHEDULE: Final = ("job_id", "next_slot", "next_execution_time", "anchor")
_COPY_JOB: Final = f"COPY job ({', '.join(_JOB)}) FROM STDIN"
_COPY_SCHEDULE: Final = f"COPY job_schedule ({', '.join(_SCHEDULE)}) FROM STDIN"

_NULL_TEXT: Final = "\\N"
_NULL: Final = _NULL_TEXT.encode()
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
#: Bytes of lines that are sent at a time. The server copies one while the next is made.
_BLOCK: Final = 32 * 1024
#: Ids taken at a time once there are more jobs than expected.
_MORE: Final = 1000
_ATTEMPTS: Final = 5
# The lines are made while COPY runs: 10,000 schedules of 10,000 kinds take seconds, of several bulks at once many.
# An exchange with the server is a block of lines, or its last word on all of them.
_STATEMENT_SECONDS: Final = 120.0
_EXCHANGE_SECONDS: Final = 30.0
_PATIENCE: Final = "SET LOCAL idle_in_transaction_session_timeout = '60s'"


@dataclass(frozen=True, slots=True)
class Created:
    """``ids`` in the order of the jobs. ``due_soon`` as in jobsched.db.jobs.Saved."""

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
                    self._be_patient()
                    reader.refuse_keys(self._taken(project_id, reader.jobs))
                    if reader.faulty and not partial:
                        return None
                    return self._write(project_id, reader.jobs, len(reader.jobs))
            except NotAtOnce:
                continue
        raise Conflict("Jobs with the same keys are being created at the same time; try again.")

    def create_as_read(self, project_id: int, jobs: Iterable[NewJob], expected: int) -> Created:
        """Store ``jobs`` while they are being read. ``expected``: about how many there are; ids beyond are lost.

        No key is looked for: the index on keys finds what exists. Raises NotAtOnce then, and what ``jobs`` raises;
        nothing is stored.
        """
        with converted(), self._database.atomic():
            self._be_patient()
            return self._write(project_id, jobs, expected)

    def _be_patient(self) -> None:
        self._database.connection().extend(_STATEMENT_SECONDS, patience=_EXCHANGE_SECONDS)
        self._database.execute_sql(_PATIENCE)

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

    def _write(self, project_id: int, jobs: Iterable[NewJob], expected: int) -> Created:
        left, made = iter(jobs), list[int]()
        lines: _Lines | None = None
        with self._cursor() as cursor:
            while (first := next(left, None)) is not None:
                now, ids = _new_ids(cursor, expected - len(made) if expected > len(made) else _MORE)
                lines = lines or _Lines(project_id, now)
                schedules: list[bytes] = []
                try:
                    # The ids first: where they end, no job is taken from those that are left.
                    _copy(
                        cursor,
                        _COPY_JOB,
                        lines.jobs(zip(ids, chain((first,), left), strict=False), schedules),
                    )
                except (pg.UniqueViolation, pg.DeadlockDetected) as error:
                    raise NotAtOnce from error
                _copy(cursor, _COPY_SCHEDULE, schedules)
                made += ids[: len(schedules)]
        return Created(made, lines is not None and lines.are_due_before(self._poll_interval))

    def _cursor(self) -> psycopg.Cursor[Any]:
        connection: psycopg.Connection[Any] = self._database.connection()
        return connection.cursor()


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
        self._soonest: datetime | None = None
        self._now = now
        self._first = FirstSlots(now)
        self._tail = [_encoded(value) for value in (project_id, 1, now, now)]
        self._tags: dict[tuple[str, ...], str] = {(): "{}"}
        # By identity; the specs are kept with what was made of them, so that no other gets the same.
        self._shared: dict[int, tuple[bytes, bool, JobSpec]] = {}
        self._times: dict[tuple[str, str], bytes] = {}
        self._anchor = b"\t%b\n" % _encoded(self._first.anchor)

    def are_due_before(self, ahead: timedelta) -> bool:
        """Whether any of the jobs is due so soon."""
        return self._soonest is not None and self._soonest < self._now + ahead

    def jobs(self, numbered: Iterable[tuple[int, NewJob]], schedules: list[bytes]) -> Iterator[bytes]:
        """The lines of jobs. Those of their schedules go to ``schedules``: the server is the slower one meanwhile."""
        for job_id, job in numbered:
            (
                spec, key, name, description, api, schedule, timezone, recurring, headers, tags, payload, plain
            ) = job  # fmt: skip
            shared, usual, _ = self._shared.get(id(spec)) or self._learn(spec)
            if not usual:
                times = self._own_times(job, job_id)
            elif (known := self._times.get((schedule, timezone))) is not None:
                times = known
            else:
                times = self._slot_times(schedule, timezone)
            schedules.append(b"%d%b" % (job_id, times))
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
            yield b"%b%b\t%b" % (texts.encode(), _NULL if payload is None else payload, shared)

    def _learn(self, spec: JobSpec) -> tuple[bytes, bool, JobSpec]:
        """What jobs of one shared part have in common: the end of their lines; are their times those of FirstSlots."""
        learnt = self._shared[id(spec)] = self._shared_part(spec), FirstSlots.serve(spec), spec
        return learnt

    def _slot_times(self, schedule: str, timezone: str) -> bytes:
        """The end of a schedule's line where the job is due at its first slot."""
        read = parse_schedule(schedule, timezone)
        slot = self._first.of(read)
        self._note(slot)
        text = _NULL if slot is None else slot.isoformat().encode()
        times = b"\t%b\t%b%b" % (text, text, self._anchor)
        if read.recurring:  # an instant comes once
            self._times[schedule, timezone] = times
        return times

    def _note(self, due: datetime | None) -> None:
        if due is not None and (self._soonest is None or due < self._soonest):
            self._soonest = due

    def _shared_part(self, spec: JobSpec) -> bytes:
        return b"\t".join([*(_encoded(getattr(spec, name)) for name in SHARED), *self._tail]) + b"\n"

    def _own_times(self, job: NewJob, job_id: int) -> bytes:
        spec = job.shared
        timing = _Timing(
            job.schedule, job.timezone, job.is_recurring, spec.is_active, spec.start_at, spec.end_at,
            spec.max_runs, spec.jitter_seconds,
        )  # fmt: skip
        times = first_times(timing, job_id=job_id, now=self._now)
        self._note(times.next_execution_time)
        values = times.next_slot, times.next_execution_time, times.anchor
        return b"\t%b\t%b\t%b\n" % tuple(map(_encoded, values))


def _escaped(value: str | None) -> str:
    return _NULL_TEXT if value is None else value.translate(_ESCAPES)


def _encoded(value: Any) -> bytes:
    """A value in COPY's text format (PostgreSQL's documentation, COPY, "Text Format")."""
    if isinstance(value, datetime):
        return value.isoformat().encode()
    return _escaped(as_text(value)).encode()


def _new_ids(cursor: psycopg.Cursor[Any], count: int) -> tuple[datetime, list[int]]:
    """The database's time, and so many ids for jobs, in order."""
    # The name of the sequence is looked up once: that costs ten times what the next number does.
    cursor.execute(
        "SELECT clock_timestamp(), array_to_string(ARRAY(SELECT nextval(sequence) "
        "FROM (SELECT pg_get_serial_sequence('job', 'id')::regclass AS sequence OFFSET 0) AS named, "
        "generate_series(1, %s)), ' ')",
        (count,),
    )
    [(now, listed)] = cursor.fetchall()
    return now, list(map(int, listed.split()))


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

"""Jobs: create, read, list, edit, pause, resume, delete.

Whatever edits a job locks its ``job_schedule`` row first, then ``job``, then executions in id order; firing
does the same, so that an edit and a firing of one job never overtake each other and never deadlock.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import peewee
from peewee import JOIN, Database
from psycopg import errors as pg

from jobsched.db.cancelling import cancel_waiting_of_job
from jobsched.db.connection import converted, repeated
from jobsched.db.creating import Creator
from jobsched.db.job_list import ListedJob, Wanted, newest
from jobsched.db.models import Job, JobLast, JobSchedule
from jobsched.db.page import Page
from jobsched.domain.json_text import compact, unstorable
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times, times_after_edit
from jobsched.errors import Conflict, NotFound, PreconditionFailed

_SPEC_FIELDS = tuple(JobSpec.__dataclass_fields__)
_SCHEDULE_FIELDS = ("next_slot", "next_execution_time", "last_slot", "anchor", "runs")
_LAST_FIELDS = ("last_execution_time", "last_state")
_ARRAYS = ("secret_headers", "success_status", "no_retry_status", "tags")
_FIELDS = (
    *Job._meta.sorted_fields,
    *(getattr(JobSchedule, name) for name in _SCHEDULE_FIELDS),
    *(getattr(JobLast, name) for name in _LAST_FIELDS),
)
_COLUMNS = tuple(field.name for field in _FIELDS)
_REST = ("id", "project_id", "version", "created_at", "updated_at", *_SCHEDULE_FIELDS, *_LAST_FIELDS)
_SPEC_OF = itemgetter(*map(_COLUMNS.index, _SPEC_FIELDS))
_REST_OF = itemgetter(*map(_COLUMNS.index, _REST))
_KNOWN = "SELECT FROM job WHERE id = %s AND project_id = %s"
_LARGEST_ID = 2**63 - 1
_UPSERT_ATTEMPTS = 10


class JobRecord(NamedTuple):
    """A job as it stands: its definition, its place in time and how its newest execution ended.

    ``next_slot`` is nominal; of a paused job it only tells that slots are left. ``next_execution_time`` includes
    jitter and is None where nothing is due any more or the job is paused.
    """

    id: int
    project_id: int
    spec: JobSpec
    version: int
    created_at: datetime
    updated_at: datetime
    next_slot: datetime | None
    next_execution_time: datetime | None
    last_slot: datetime | None
    anchor: datetime
    runs: int
    last_execution_time: datetime | None
    last_state: str | None


@dataclass(frozen=True, slots=True)
class Saved:
    """``due_soon``: something is now due before every poller looks again, so NOTIFY after the commit."""

    job: JobRecord
    due_soon: bool


class Jobs:
    """The jobs in ``database``. ``poll_interval``: seconds, how far ahead pollers look by themselves.

    Every method runs in a transaction of its own, or inside the caller's. Besides what they name they raise
    DatabaseUnavailable and the other errors of the database.
    """

    def __init__(self, database: Database, poll_interval: float = 5.0) -> None:
        self._database = database
        self._poll_interval = timedelta(seconds=poll_interval)
        self._creator = Creator(database)
        # Peewee takes longer to compile this wide SELECT than Postgres to run it: compiled once, with job
        # as t1.
        select, _parameters = _rows(0).bind(database).sql()
        self._select_by_id = f"{select} AND t1.id = %s"
        self._select_by_key = f"{select} AND t1.key = %s"

    @repeated
    def create(self, project_id: int, spec: JobSpec) -> Saved:
        """Store a new job with its schedule. Raises Conflict if its key exists."""
        database = self._database
        # The statement is atomic by itself; inside the caller's transaction its failure must not spoil that.
        whole = database.atomic() if database.in_transaction() else nullcontext()
        with converted(), _key_is_free(spec.key), whole:
            job_id, now, times = self._creator.create(project_id, spec)
        job = JobRecord(
            spec=spec,
            id=job_id,
            project_id=project_id,
            version=1,
            created_at=now,
            updated_at=now,
            last_slot=None,
            runs=0,
            last_execution_time=None,
            last_state=None,
            **_schedule_columns(times),
        )
        return Saved(job, self._due_soon(times, now))

    def get(self, project_id: int, job_id: int) -> JobRecord:
        """The job. Raises NotFound; a deleted one counts as not there."""
        with converted():
            return self._get(project_id, job_id)

    def find_key(self, project_id: int, key: str) -> JobRecord | None:
        """The job with the user's own key, or None."""
        if unstorable(key):
            return None
        with converted():
            row = self._database.execute_sql(self._select_by_key, (project_id, key)).fetchone()
        return None if row is None else _record(row)

    def upsert(
        self,
        project_id: int,
        key: str,
        change: Callable[[JobRecord | None], JobSpec],
        *,
        if_version: int | None = None,
        must_exist: bool = False,
        must_be_new: bool = False,
    ) -> tuple[Saved, bool]:
        """Create the job with ``key``, or replace its definition; and whether it was created.

        ``change`` gives the definition, with that key, from the present job or None. Of two at once one creates
        and the other edits. Raises PreconditionFailed (``must_exist``, ``must_be_new``, ``if_version``), and what
        ``change`` raises.
        """

        def edited(job: JobRecord) -> JobSpec:
            if job.spec.key != key:  # an edit gave it another one since it was found
                raise NotFound(f"There is no job with the key {key!r}.")
            return change(job)

        for _ in range(_UPSERT_ATTEMPTS):
            present = self.find_key(project_id, key)
            if present is None:
                if must_exist:
                    raise PreconditionFailed(f"There is no job with the key {key!r}.")
                with suppress(Conflict):
                    return self.create(project_id, change(None)), True
            else:
                if must_be_new:
                    raise PreconditionFailed(f"There is a job with the key {key!r} already.")
                with suppress(NotFound):
                    return self.update(project_id, present.id, edited, if_version), False
        raise Conflict(f"The job with the key {key!r} comes and goes; try again.")

    def known(self, project_id: int, job_id: int) -> bool:
        """Whether the job exists or existed: the history of a deleted one stays readable."""
        if not 0 < job_id <= _LARGEST_ID:
            return False
        with converted():
            return self._database.execute_sql(_KNOWN, (job_id, project_id)).fetchone() is not None

    def page(
        self,
        project_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        q: str | None = None,
        is_active: bool | None = None,
        pool: str | None = None,
        tags: Sequence[str] = (),
        states: Sequence[str] = (),
    ) -> Page[ListedJob]:
        """Newest first by id. ``q`` looks in name, key, description and api; tags and states mean any of."""
        wanted = Wanted(
            project_id=project_id,
            before_id=before_id,
            q=q,
            is_active=is_active,
            pool=pool,
            tags=tuple(tags),
            states=tuple(states),
        )
        if wanted.impossible:
            return Page([])
        with converted():
            found = newest(self._database, wanted, limit + 1)
        return Page.of(found, limit, lambda job: job.id)

    @repeated
    def update(
        self,
        project_id: int,
        job_id: int,
        change: Callable[[JobRecord], JobSpec],
        if_version: int | None = None,
    ) -> Saved:
        """Replace the definition by ``change(present job)``, under the job's lock.

        An edit that changes nothing writes nothing and leaves ``version``. Raises NotFound,
        PreconditionFailed (``if_version`` is not the present one), Conflict (key), and what ``change`` raises.
        """
        with converted(), self._database.atomic():
            job = self._locked(project_id, job_id)
            _check_version(job, if_version)
            spec = change(job)
            if _same(job.spec, spec):
                return Saved(job, False)
            now = self._now()
            held_up = False
            if compact(spec.payload) != compact(job.spec.payload):
                held_up = self._keep_payload_of_started(job)
            if spec.overlap_policy != job.spec.overlap_policy:
                held_up = self._let_go(job_id) or held_up
            with _key_is_free(spec.key):
                Job.update(version=Job.version + 1, updated_at=now, **_columns(spec)).where(
                    Job.id == job_id
                ).execute()
            times = times_after_edit(
                job.spec,
                spec,
                Times(job.next_slot, job.next_execution_time, job.anchor),
                job_id=job_id,
                now=now,
                last_slot=job.last_slot,
                runs=job.runs,
            )
            if times is not None:
                JobSchedule.update(fault=None, **_schedule_columns(times)).where(
                    JobSchedule.job_id == job_id
                ).execute()
            saved = self._saved(project_id, job_id, times, now)
            return replace(saved, due_soon=saved.due_soon or held_up)

    def pause(self, project_id: int, job_id: int) -> Saved:
        """No new slots. Repeating it changes nothing. Raises NotFound."""
        return self.update(project_id, job_id, lambda job: replace(job.spec, is_active=False))

    def resume(self, project_id: int, job_id: int) -> Saved:
        """Slots again, counted from now. Repeating it changes nothing. Raises NotFound."""
        return self.update(project_id, job_id, lambda job: replace(job.spec, is_active=True))

    @repeated
    def delete(self, project_id: int, job_id: int, if_version: int | None = None) -> None:
        """Delete the job and cancel what waits; what runs finishes. Raises NotFound, PreconditionFailed."""
        with converted(), self._database.atomic():
            job = self._locked(project_id, job_id)
            _check_version(job, if_version)
            JobSchedule.update(next_slot=None, next_execution_time=None).where(
                JobSchedule.job_id == job_id
            ).execute()
            Job.update(deleted_at=self._now()).where(Job.id == job_id).execute()
            cancel_waiting_of_job(self._database, job_id)

    def _now(self) -> datetime:
        now: datetime = self._database.execute_sql("SELECT clock_timestamp()").fetchone()[0]
        return now

    def _get(self, project_id: int, job_id: int) -> JobRecord:
        row = None
        if 0 < job_id <= _LARGEST_ID:
            cursor = self._database.execute_sql(self._select_by_id, (project_id, job_id))
            row = cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no job {job_id}.")
        return _record(row)

    def _locked(self, project_id: int, job_id: int) -> JobRecord:
        """The job, its schedule row and then its own row locked."""
        self._get(project_id, job_id)  # of another project: not found, and not locked either
        JobSchedule.select(JobSchedule.job_id).where(
            JobSchedule.job_id == job_id
        ).for_update().tuples().first()
        Job.select(Job.id).where(Job.id == job_id).for_update().tuples().first()
        return self._get(project_id, job_id)

    def _keep_payload_of_started(self, job: JobRecord) -> bool:
        """From attempt 2 on an execution sends what its attempt 1 sent, whatever the job says by then.

        Whether there was any: a poller that looks while it is locked passes it over.
        """
        cursor = self._database.execute_sql(
            "UPDATE execution SET payload = %s::json WHERE id IN (SELECT id FROM execution "
            "WHERE job_id = %s AND attempt > 0 AND payload IS NULL ORDER BY id FOR UPDATE)",
            (compact(job.spec.payload), job.id),
        )
        return bool(cursor.rowcount)

    def _let_go(self, job_id: int) -> bool:
        """The overlap policy changes: whom the old one blocked is judged anew. Whether anything waited.

        All that waits is locked, so that a poller which has read the old policy is done with these rows first;
        and one that looks meanwhile passes them over.
        """
        cursor = self._database.execute_sql(
            "WITH waiting AS MATERIALIZED (SELECT id FROM execution WHERE job_id = %s "
            "AND state IN ('pending', 'blocked') ORDER BY id FOR UPDATE), let_go AS ("
            "UPDATE execution e SET state = 'pending' FROM waiting w WHERE e.id = w.id AND e.state = 'blocked') "
            "SELECT EXISTS (SELECT FROM waiting)",
            (job_id,),
        )
        return bool(cursor.fetchone()[0])

    def _saved(self, project_id: int, job_id: int, times: Times | None, now: datetime) -> Saved:
        return Saved(self._get(project_id, job_id), times is not None and self._due_soon(times, now))

    def _due_soon(self, times: Times, now: datetime) -> bool:
        due = times.next_execution_time
        return due is not None and due < now + self._poll_interval


@contextmanager
def _key_is_free(key: str | None) -> Iterator[None]:
    """Turn the violation of the unique key into Conflict."""
    try:
        yield
    except peewee.IntegrityError as error:
        # Peewee raises its own errors while it handles those of psycopg, without naming them as the cause.
        if isinstance(error.__context__, pg.UniqueViolation):
            raise Conflict(f"A job with the key {key!r} exists already.") from error
        raise


def _rows(project_id: int) -> Any:
    return (
        Job.select(*_FIELDS)
        .join(JobSchedule, on=(JobSchedule.job_id == Job.id))
        .join(JobLast, JOIN.LEFT_OUTER, on=(JobLast.job_id == Job.id))
        .where(Job.project_id == project_id, Job.deleted_at.is_null())
    )


def _record(row: Sequence[Any]) -> JobRecord:
    """The job of a row with the columns of ``_FIELDS``."""
    spec = dict(zip(_SPEC_FIELDS, _SPEC_OF(row), strict=True))
    for name in _ARRAYS:
        spec[name] = tuple(spec[name])
    return JobRecord(spec=JobSpec(**spec), **dict(zip(_REST, _REST_OF(row), strict=True)))


def _columns(spec: JobSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _SPEC_FIELDS}


def _schedule_columns(times: Times) -> dict[str, Any]:
    return {
        "next_slot": times.next_slot,
        "next_execution_time": times.next_execution_time,
        "anchor": times.anchor,
    }


def _same(old: JobSpec, new: JobSpec) -> bool:
    # As JSON, since Python takes 1, 1.0 and true for equal.
    return old == new and compact(old.payload) == compact(new.payload)


def _check_version(job: JobRecord, if_version: int | None) -> None:
    if if_version is not None and if_version != job.version:
        raise PreconditionFailed(f"The job has version {job.version} by now, not {if_version}.")

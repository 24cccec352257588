"""Jobs: create, read, list, edit, pause, resume, delete."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from peewee import Database

from jobsched.db.page import Page
from jobsched.domain.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it stands: its definition, its place in time and how its newest execution ended."""

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
    """The jobs in ``database``. ``poll_interval``: seconds, how far ahead pollers look by themselves."""

    def __init__(self, database: Database, poll_interval: float = 5.0) -> None:
        self._database = database
        self._poll_interval = poll_interval

    def create(self, project_id: int, spec: JobSpec) -> Saved:
        """Store a new job with its schedule. Raises Conflict if its key exists."""
        raise NotImplementedError

    def get(self, project_id: int, job_id: int) -> JobRecord:
        """The job. Raises NotFound; a deleted one counts as not there."""
        raise NotImplementedError

    def find_key(self, project_id: int, key: str) -> JobRecord | None:
        """The job with the user's own key, or None."""
        raise NotImplementedError

    def known(self, project_id: int, job_id: int) -> bool:
        """Whether the job exists or existed: the history of a deleted one stays readable."""
        raise NotImplementedError

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
    ) -> Page[JobRecord]:
        """Newest first by id. ``q`` looks in name, key, description and api; tags and states mean any of."""
        raise NotImplementedError

    def update(
        self,
        project_id: int,
        job_id: int,
        change: Callable[[JobRecord], JobSpec],
        if_version: int | None = None,
    ) -> Saved:
        """Replace the definition by ``change(present job)``, under the job's lock.

        Raises NotFound, PreconditionFailed (``if_version`` is not the present one), Conflict (key).
        """
        raise NotImplementedError

    def pause(self, project_id: int, job_id: int) -> Saved:
        """No new slots. Repeating it changes nothing. Raises NotFound."""
        raise NotImplementedError

    def resume(self, project_id: int, job_id: int) -> Saved:
        """Slots again, counted from now. Repeating it changes nothing. Raises NotFound."""
        raise NotImplementedError

    def delete(self, project_id: int, job_id: int, if_version: int | None = None) -> None:
        """Delete the job and cancel what waits; what runs finishes. Raises NotFound, PreconditionFailed."""
        raise NotImplementedError

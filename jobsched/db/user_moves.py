"""What a user does to executions: run now, cancel, retry, redrive, discard."""

from dataclasses import dataclass
from typing import Any

from peewee import Database

from jobsched.db.executions import ExecutionRecord
from jobsched.domain.requests import JOBS_PAYLOAD, RedriveRequest, Selector


@dataclass(frozen=True, slots=True)
class Cancelled:
    """``pending``: the execution was running; its worker aborts the call soon (answer 202, else 200)."""

    execution: ExecutionRecord
    pending: bool


@dataclass(frozen=True, slots=True)
class Redriven:
    """A redrive that was written; ``matched`` dead letters became executions."""

    id: int
    matched: int


@dataclass(frozen=True, slots=True)
class RedriveProgress:
    """``done`` executions are over, ``failed`` of them not successfully; ``state``: running or finished."""

    id: int
    matched: int
    done: int
    failed: int
    state: str


class UserMoves:
    """Every call that returns an execution or a Redriven wrote something due: NOTIFY after the commit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run_now(
        self, project_id: int, job_id: int, *, payload: Any = JOBS_PAYLOAD, force: bool = False
    ) -> ExecutionRecord:
        """A manual execution, due now; paused jobs too. Raises NotFound."""
        raise NotImplementedError

    def cancel(self, project_id: int, execution_id: int) -> Cancelled:
        """Cancel what waits, ask for the end of what runs. Raises NotFound, Conflict (it is over)."""
        raise NotImplementedError

    def retry(self, project_id: int, execution_id: int) -> ExecutionRecord:
        """Run it now: the same if it waits, a redrive of it if it is over. Raises NotFound, Conflict."""
        raise NotImplementedError

    def redrive(self, project_id: int, request: RedriveRequest) -> Redriven:
        """Turn dead letters into executions of the jobs as they are now."""
        raise NotImplementedError

    def redrive_progress(self, project_id: int, redrive_id: int) -> RedriveProgress:
        """How far a redrive is. Raises NotFound."""
        raise NotImplementedError

    def discard(self, project_id: int, selector: Selector) -> int:
        """Delete dead letters for good. Returns how many."""
        raise NotImplementedError

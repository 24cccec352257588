"""One new job and its schedule, in one statement and as a rule one exchange with the server.

The schedule row is worked out here and needs the database's time first. Asking for it each time would double the
exchanges, so the time is carried forward from the last answer, for up to a second; and the statement itself, by the
server's clock, refuses a time that is not of the last moments. Then its answer says what time it is.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

import orjson
from orjson import Fragment
from peewee import Database

from jobsched.clock import monotonic
from jobsched.domain.json_text import compact
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times, first_times

#: Seconds for which an answer's time is carried forward.
_CARRIED: Final = 1.0

#: How old a carried time may be when the statement runs, by the server's clock.
_AGE: Final = "interval '0.1 s'"

_SPEC: Final = tuple(JobSpec.__dataclass_fields__)
_VALUES: Final = attrgetter(*_SPEC)
_OTHER_TYPES: Final = {
    "is_recurring": "boolean", "is_active": "boolean", "headers": "json", "payload": "json",
    "secret_headers": "text[]", "success_status": "text[]", "no_retry_status": "text[]", "tags": "text[]",
    "max_retry_count": "integer", "min_backoff_seconds": "float8", "max_backoff_seconds": "float8",
    "backoff_factor": "float8", "backoff_jitter": "float8", "timeout_seconds": "float8",
    "follow_redirects": "boolean", "misfire_grace_seconds": "float8", "priority": "smallint",
    "start_at": "timestamptz", "end_at": "timestamptz", "max_runs": "integer", "jitter_seconds": "float8",
}  # fmt: skip
_TIMES: Final = ("next_slot", "next_execution_time", "anchor")
_ROW: Final = ", ".join(
    [
        *("given_id bigint", "project_id bigint"),
        *(f"{name} {_OTHER_TYPES.get(name, 'text')}" for name in _SPEC),
        *(f"{name} timestamptz" for name in _TIMES),
    ]
)

# The row as one JSON value: as 38 parameters it takes more of this process.
_INSERT: Final = f"""
WITH asked AS (SELECT %s::timestamptz AS now, clock_timestamp() AS clock), wanted AS MATERIALIZED (
    SELECT coalesce(given_id, nextval(pg_get_serial_sequence('job', 'id'))) AS id, r.*, now
    FROM asked, json_to_record(%s::json) AS r ({_ROW}) WHERE {{condition}}
), made AS (
    INSERT INTO job (id, project_id, {", ".join(_SPEC)}, version, created_at, updated_at)
    SELECT id, project_id, {", ".join(_SPEC)}, 1, now, now FROM wanted
), scheduled AS (
    INSERT INTO job_schedule (job_id, {", ".join(_TIMES)}) SELECT id, {", ".join(_TIMES)} FROM wanted
)
SELECT (SELECT id FROM wanted), clock FROM asked
"""
_AT_A_KNOWN_TIME: Final = _INSERT.format(condition="true")
_AT_A_CARRIED_TIME: Final = _INSERT.format(condition=f"now BETWEEN clock - {_AGE} AND clock")
_NEXT: Final = "SELECT nextval(pg_get_serial_sequence('job', 'id')), clock_timestamp()"


class Creator:
    """Inserts jobs into ``database``. Safe to share between threads."""

    def __init__(self, database: Database, now: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = _CarriedClock(now)

    def create(self, project_id: int, spec: JobSpec) -> tuple[int, datetime, Times]:
        """The new job's id, the time of its creation by the database's clock, and its times.

        One statement, which is atomic by itself. Raises Peewee's errors.
        """
        job_id, now = None, self._clock.now()
        if spec.jitter_seconds:  # its times depend on its id
            job_id, now = self._row(_NEXT)
        elif now is not None:
            times = first_times(spec, job_id=0, now=now)
            made, clock = self._row(_AT_A_CARRIED_TIME, now, _record(None, project_id, spec, times))
            self._clock.learn(clock, stepped=made is None)
            if made is not None:
                return made, now, times
            now = clock
        else:
            (now,) = self._row("SELECT clock_timestamp()")
        assert now is not None
        times = first_times(spec, job_id=job_id or 0, now=now)
        made, clock = self._row(_AT_A_KNOWN_TIME, now, _record(job_id, project_id, spec, times))
        self._clock.learn(clock)
        return made, now, times

    def _row(self, statement: str, *parameters: object) -> Any:
        return self._database.execute_sql(statement, parameters).fetchone()


class _CarriedClock:
    """The database's clock as far as answers have told it, never ahead: an answer is old when it arrives."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: tuple[datetime, float] | None = None

    def now(self) -> datetime | None:
        """The database's time, a little late; None when nothing has told it for a while."""
        known, here = self._known, self._now()
        if known is None or not 0 <= here - known[1] < 2 * _CARRIED:
            return None
        return known[0] + timedelta(seconds=here - known[1])

    def learn(self, told: datetime, *, stepped: bool = False) -> None:
        """An answer that was just received says ``told``. ``stepped``: what was carried forward was refused.

        Of several answers within a second the quickest is kept, so that no later job is created before an earlier.
        """
        known, here = self._known, self._now()
        fresh = known is not None and not stepped and 0 <= here - known[1] < _CARRIED
        if known is None or not fresh or told - known[0] > timedelta(seconds=here - known[1]):
            self._known = told, here


def _record(given_id: int | None, project_id: int, spec: JobSpec, times: Times) -> str:
    """The row as JSON, in the types of _ROW."""
    row = dict(zip(_SPEC, _VALUES(spec), strict=True))
    # What is sent to targets keeps its spelling.
    row["headers"] = Fragment(compact(spec.headers)) if spec.headers else {}
    if spec.payload is not None:
        row["payload"] = Fragment(compact(spec.payload))
    row["given_id"], row["project_id"] = given_id, project_id
    row["next_slot"], row["next_execution_time"] = times.next_slot, times.next_execution_time
    row["anchor"] = times.anchor
    return orjson.dumps(row).decode()

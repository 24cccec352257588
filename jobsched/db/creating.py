"""New jobs and their schedules: one by one, but what is wanted at the same moment in one statement.

The schedule row is worked out here and needs the database's time first. Asking for it each time would double the
exchanges, so the time is carried forward from the last answer, for up to a second; and the statement itself, by the
server's clock, refuses a time that is not of the last moments. Then its answer says what time it is.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, NamedTuple

import orjson
from orjson import Fragment
from peewee import Database

from jobsched.clock import monotonic
from jobsched.db.connection import convert
from jobsched.db.gathering import Gathering, TogetherFailed
from jobsched.domain.json_text import compact
from jobsched.domain.spec import JobSpec
from jobsched.domain.times import Times, first_times
from jobsched.errors import DatabaseContended, DatabaseRefused

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
        *("number integer", "given_id bigint", "project_id bigint"),
        *(f"{name} {_OTHER_TYPES.get(name, 'text')}" for name in _SPEC),
        *(f"{name} timestamptz" for name in _TIMES),
    ]
)

# Rows as one JSON value: a hundred parameters would cost this process more than all the rest of the exchange.
_INSERT: Final = f"""
WITH asked AS (SELECT %s::timestamptz AS now, clock_timestamp() AS clock), wanted AS MATERIALIZED (
    SELECT coalesce(given_id, nextval(pg_get_serial_sequence('job', 'id'))) AS id, r.*, now
    FROM asked, json_to_recordset(%s::json) AS r ({_ROW}) WHERE {{condition}}
), made AS (
    INSERT INTO job (id, project_id, {", ".join(_SPEC)}, version, created_at, updated_at)
    SELECT id, project_id, {", ".join(_SPEC)}, 1, now, now FROM wanted
), scheduled AS (
    INSERT INTO job_schedule (job_id, {", ".join(_TIMES)}) SELECT id, {", ".join(_TIMES)} FROM wanted
)
SELECT clock, array(SELECT id FROM wanted ORDER BY number) FROM asked
"""
_AT_A_KNOWN_TIME: Final = _INSERT.format(condition="true")
_AT_A_CARRIED_TIME: Final = _INSERT.format(condition=f"now BETWEEN clock - {_AGE} AND clock")
_NEXT: Final = "SELECT nextval(pg_get_serial_sequence('job', 'id')), clock_timestamp()"

#: So many jobs are created by one statement at most, and so many such statements are under way at once.
_TOGETHER: Final = 16
_AT_ONCE: Final = 2
#: Seconds for which one that comes meanwhile waits for them: they may wait for a lock.
_PATIENCE: Final = 0.2
#: After these each may try alone. After others nobody knows what has happened.
_NOTHING_DONE: Final = (DatabaseRefused, DatabaseContended)


class _Asked(NamedTuple):
    project_id: int
    spec: JobSpec
    given_id: int | None = None


#: An id, the time of creation by the database's clock, and the job's times.
Made = tuple[int, datetime, Times]


class Creator:
    """Inserts jobs into ``database``. Safe to share between threads, which then do it together."""

    def __init__(self, database: Database, now: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = _CarriedClock(now)
        self._gathering = Gathering(self._insert, most=_TOGETHER, at_once=_AT_ONCE, patience=_PATIENCE)

    def create(self, project_id: int, spec: JobSpec) -> Made:
        """The new job's id, the time of its creation by the database's clock, and its times.

        One statement, which is atomic by itself, or one with others' jobs. Raises Peewee's errors and ours.
        """
        asked = _Asked(project_id, spec)
        if spec.jitter_seconds:  # its times depend on its id
            job_id, now = self._row(_NEXT)
            return self._insert_at(now, [asked._replace(given_id=job_id)])[0]
        if spec.key is not None or self._database.in_transaction():
            # A key may have to wait for another's transaction, and may be taken: that is nobody else's matter.
            return self._insert([asked])[0]
        try:
            return self._gathering.do(asked)
        except TogetherFailed as failure:
            error = convert(failure.__cause__ or failure)
            if not isinstance(error, _NOTHING_DONE):
                raise error from failure
        return self._insert([asked])[0]

    def _insert(self, asked: Sequence[_Asked]) -> list[Made]:
        now = self._clock.now()
        if now is not None:
            if made := self._insert_at(now, asked, carried=True):
                return made
            now = self._clock.now()
        if now is None:
            (now,) = self._row("SELECT clock_timestamp()")
        return self._insert_at(now, asked)

    def _insert_at(self, now: datetime, asked: Sequence[_Asked], *, carried: bool = False) -> list[Made]:
        """Of a ``carried`` time that the server's clock refuses, nothing."""
        times = [first_times(one.spec, job_id=one.given_id or 0, now=now) for one in asked]
        statement = _AT_A_CARRIED_TIME if carried else _AT_A_KNOWN_TIME
        clock, ids = self._row(statement, now, _rows(asked, times))
        self._clock.learn(clock, stepped=not ids)
        return [(id, now, its) for id, its in zip(ids, times, strict=bool(ids))]

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


def _rows(asked: Sequence[_Asked], times: Sequence[Times]) -> str:
    """The rows of ``asked`` as JSON, in the types of _ROW."""
    rows = []
    for number, ((project_id, spec, given_id), its) in enumerate(zip(asked, times, strict=True)):
        row = dict(zip(_SPEC, _VALUES(spec), strict=True))
        # What is sent to targets keeps its spelling.
        row["headers"] = Fragment(compact(spec.headers)) if spec.headers else {}
        if spec.payload is not None:
            row["payload"] = Fragment(compact(spec.payload))
        row |= {
            "number": number, "given_id": given_id, "project_id": project_id,
            "next_slot": its.next_slot, "next_execution_time": its.next_execution_time, "anchor": its.anchor,
        }  # fmt: skip
        rows.append(row)
    return orjson.dumps(rows).decode()

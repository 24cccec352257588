"""Which jobs a list shows: their ids are found by one table, then all columns of these few are read.

Of a filter that few jobs share the planner must know the values, of a page of all jobs it need not. So what has such
a filter is planned for each call, and a plan that is kept never rests on the values that came first.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from peewee import Database

from jobsched.db.session import show_instants
from jobsched.domain.json_text import unstorable
from jobsched.domain.spec import DEFINITION

#: Where a tag is looked for first: among so many of the newest ids, then among so many. A bitmap leaves out what is
#: older by the ranges of ids alone. Behind the last is what is rare or old: all that has the tag is read.
SPANS = (50_000, 500_000)

_STANDING = (
    "t1.id", "t1.version", "t1.created_at", "t1.updated_at", "t2.next_execution_time", "t3.last_execution_time",
    "t3.last_state",
)  # fmt: skip
# In the order of ListedJob.
_SELECT = f"""
SELECT {", ".join([*_STANDING, *(f"t1.{name}" for name in DEFINITION)])}
FROM job t1 JOIN job_schedule t2 ON t2.job_id = t1.id LEFT JOIN job_last t3 ON t3.job_id = t1.id
"""

_SEARCHED = tuple(f"t1.{name} ILIKE %s" for name in ("name", "key", "description", "api"))


class ListedJob(NamedTuple):
    """A job as lists show it. Instants are RFC 3339; ``definition`` has the values of DEFINITION."""

    id: int
    version: int
    created_at: str
    updated_at: str
    next_execution_time: str | None
    last_execution_time: str | None
    last_state: str | None
    definition: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters of a list; None and () leave one out. ``q``: part of a text; tags and states: any of them."""

    project_id: int
    before_id: int | None = None
    q: str | None = None
    is_active: bool | None = None
    pool: str | None = None
    tags: tuple[str, ...] = ()
    states: tuple[str, ...] = ()

    @property
    def impossible(self) -> bool:
        """Whether it asks for a text that Postgres cannot hold."""
        return any(unstorable(text) for text in (self.q or "", self.pool or "", *self.tags, *self.states))


def newest(database: Database, wanted: Wanted, limit: int) -> list[ListedJob]:
    """The first ``limit`` jobs as wanted, newest first by id. Raises the database's errors."""
    if wanted.tags:
        end = wanted.before_id
        if end is None:
            end = (database.execute_sql("SELECT max(id) FROM job").fetchone()[0] or 0) + 1
        for span in SPANS:
            if span >= end:  # all there are
                return _rows(database, wanted, limit, *_ids(wanted, limit))
            found = _rows(database, wanted, limit, *_ids(wanted, limit, span=(end - span, end)))
            if len(found) == limit:
                return found
        # How far back the rest are, nobody knows, and a walk from the newest down might read all jobs.
        return _rows(database, wanted, limit, *_ids(wanted, limit, order="t1.id + 0"))
    return _rows(database, wanted, limit, *_ids(wanted, limit))


def _rows(database: Database, wanted: Wanted, limit: int, ids: str, parameters: list[Any]) -> list[ListedJob]:
    statement = (
        f"WITH page AS MATERIALIZED ({ids}) {_SELECT} WHERE t1.project_id = %s AND t1.deleted_at IS NULL "
        "AND t1.id IN (SELECT id FROM page) ORDER BY t1.id DESC"
    )
    plan_for_each = wanted.q or wanted.tags or wanted.pool is not None
    cursor = database.cursor()
    show_instants(cursor)
    cursor.execute(statement, (*parameters, wanted.project_id), prepare=False if plan_for_each else None)
    end = len(_STANDING)
    return [ListedJob._make((*row[:end], row[end:])) for row in cursor.fetchall()]


def _ids(
    wanted: Wanted, limit: int, *, span: tuple[int, int] | None = None, order: str = "t1.id"
) -> tuple[str, list[Any]]:
    """The ids of the newest jobs as wanted, of those in ``span`` (the end is not), as SQL with parameters.

    ``limit`` is a number there: by a parameter the planner would reckon with a tenth of all jobs. Indexes leave out
    what is usual, so a filter that an index may serve says that it asks for something else.
    """
    where, parameters = ["t1.project_id = %s", "t1.deleted_at IS NULL"], list[Any]([wanted.project_id])

    def demand(condition: str, *values: Any) -> None:
        where.append(condition)
        parameters.extend(values)

    since, before = span or (None, wanted.before_id)
    for column in ("t1.id", "t3.job_id") if wanted.states else ("t1.id",):
        if since is not None:
            demand(f"{column} >= %s", since)
        if before is not None:
            demand(f"{column} < %s", before)
    if wanted.q:
        demand(f"({' OR '.join(_SEARCHED)})", *[_containing(wanted.q)] * len(_SEARCHED))
    if wanted.is_active is not None:
        demand("t1.is_active" if wanted.is_active else "NOT t1.is_active")
    if wanted.pool is not None:
        demand("t1.pool = %s", wanted.pool)
        if wanted.pool != "default":
            demand("t1.pool <> 'default'")
    if wanted.tags:
        demand("t1.tags && %s::text[] AND t1.tags <> '{}'", list(wanted.tags))
    conditions = " AND ".join(where)
    if not wanted.states:
        return (
            f"SELECT t1.id FROM job t1 WHERE {conditions} ORDER BY {order} DESC LIMIT {limit:d}",
            parameters,
        )
    states = list(dict.fromkeys(wanted.states))
    joined = f"SELECT t1.id FROM job t1 JOIN job_last t3 ON t3.job_id = t1.id WHERE {conditions}"
    if "succeeded" in states or order != "t1.id":
        statement = f"{joined} AND t3.last_state = ANY(%s) ORDER BY {order} DESC LIMIT {limit:d}"
        return statement, [*parameters, states]
    # One walk a state: the index on what did not succeed is in order of ids within each. Written as a range and with
    # its order, so that Postgres sees no other way to have that order.
    one = (
        f"({joined} AND t3.last_state BETWEEN %s AND %s AND t3.last_state <> 'succeeded' "
        f"ORDER BY t3.last_state DESC, t3.job_id DESC LIMIT {limit:d})"
    )
    every = " UNION ALL ".join([one] * len(states))
    return (
        f"SELECT t1.id FROM ({every}) AS t1 ORDER BY t1.id DESC LIMIT {limit:d}",
        [value for state in states for value in (*parameters, state, state)],
    )


def _containing(text: str) -> str:
    """A pattern of LIKE that finds ``text`` anywhere, its own wildcards taken for what they are."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"

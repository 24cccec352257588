"""Which dead letters a selector means, as SQL."""

from typing import Any

from jobsched.domain.requests import Selector


def order(selector: Selector) -> str:
    """The newest first by id, as ORDER BY wants it.

    What stands before the id is the same in all rows that ``conditions`` lets through. But Postgres is not told so, by
    ranges in place of equalities, and walks the index in that order; or else, where it expects many, all letters.
    """
    if selector.job_id is not None:
        return "d.job_id DESC, d.id DESC"
    return "d.error_code DESC, d.id DESC" if selector.error_code is not None else "d.id DESC"


def conditions(project_id: int, selector: Selector) -> tuple[str, dict[str, Any]]:
    """A WHERE clause on ``dead_letter d`` and its parameters. Raises ValueError for one that selects nothing."""
    parameters: dict[str, Any] = {
        "project": project_id,
        "ids": None if selector.ids is None else list(selector.ids),
        "job": selector.job_id,
        "error_code": selector.error_code,
        "from": selector.from_,
        "to": selector.to,
    }
    where = [
        condition
        for name, condition in (
            ("ids", "d.id = ANY(%(ids)s::bigint[])"),
            ("job", "d.job_id BETWEEN %(job)s AND %(job)s"),
            ("error_code", "d.error_code BETWEEN %(error_code)s AND %(error_code)s"),
            ("from", "d.scheduled_for >= %(from)s"),
            ("to", "d.scheduled_for < %(to)s"),
        )
        if parameters[name] is not None
    ]
    if not where and not selector.all:
        raise ValueError("an empty selector never means everything")
    return " AND ".join(["d.project_id = %(project)s", *where]), parameters

"""Which dead letters a selector means, as SQL."""

from typing import Any

from jobsched.domain.requests import Selector


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
            ("job", "d.job_id = %(job)s"),
            ("error_code", "d.error_code = %(error_code)s"),
            ("from", "d.scheduled_for >= %(from)s"),
            ("to", "d.scheduled_for < %(to)s"),
        )
        if parameters[name] is not None
    ]
    if not where and not selector.all:
        raise ValueError("an empty selector never means everything")
    return " AND ".join(["d.project_id = %(project)s", *where]), parameters

"""What the server says as well as the application: problem documents, and which path is the bulk's.

The process that watches over the serving one loads this and no more of the API: what it loads without need, both hold.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from jobsched.errors import Fault

PROBLEM_JSON: Final = "application/problem+json"

#: The one call that takes more than any other body, and longer to arrive.
BULK_PATH: Final = "/api/v1/jobs/bulk"

# RFC 9110's names, which Python has from 3.13 on.
_TITLES: Final[Mapping[int, str]] = {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}


def title(status: int) -> str:
    """A status in words, the same with every Python."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def document(
    status: int, code: str, detail: str, *, request_id: str, faults: Iterable[Fault] = ()
) -> dict[str, Any]:
    """A problem document. ``errors`` is there when there are faults, in the order in which they were found."""
    problem: dict[str, Any] = {
        "type": f"urn:jobsched:error:{code}",
        "title": title(status),
        "status": status,
        "detail": detail,
    }
    listed = [
        {"parameter" if fault.parameter else "pointer": fault.pointer, "message": fault.message}
        for fault in faults
    ]
    if listed:
        from jobsched.domain.validation import MAX_FAULTS  # takes pydantic along

        problem["errors"] = listed[:MAX_FAULTS]
    problem["requestId"] = request_id
    return problem

"""What can go wrong with a call, in one tree.

ApiError             any answer that is not a success; .status and .problem say which
├── Invalid          400, 413, 415, 422: the request is refused; .faults lists everything wrong
├── Unauthorized     401 (no key, or an unknown one) and 403 (the key's role is too small)
├── NotFound         404
├── Conflict         409 (the present state forbids it) and 412 (somebody edited meanwhile)
└── Unreachable      no answer of jobsched: connection, name, TLS, timeout, or a proxy's 502/503/504
"""

from collections.abc import Mapping
from typing import Any

from jobsched.client.types import BulkResult


class ApiError(Exception):
    """A call that did not succeed.

    ``status`` is the HTTP status, 0 where there was no answer. ``problem`` is the RFC 9457 document of the
    answer, empty where the server sent none. ``done`` is what ``jobs.create_many`` had created before it failed,
    where it sends several requests.
    """

    done: BulkResult | None = None

    def __init__(self, status: int, problem: Mapping[str, Any] | None = None) -> None:
        self.status = status
        self.problem: dict[str, Any] = dict(problem or {})
        super().__init__(status, self.problem)

    @property
    def message(self) -> str:
        """One sentence for people: the problem's detail, else its title, else the status."""
        for part in ("detail", "title"):
            if isinstance(text := self.problem.get(part), str) and text:
                return text
        return f"The server answered {self.status}."

    @property
    def faults(self) -> tuple[tuple[str, str], ...]:
        """(place, message) of each fault; the place is a JSON pointer or a parameter's name, or empty."""
        errors = self.problem.get("errors")
        if not isinstance(errors, list):
            return ()
        return tuple(
            (str(fault.get("pointer") or fault.get("parameter") or ""), str(fault.get("message", "")))
            for fault in errors
            if isinstance(fault, dict)
        )

    @property
    def request_id(self) -> str | None:
        """What to quote when asking the server's operator about this call."""
        value = self.problem.get("requestId")
        return value if isinstance(value, str) else None

    def __str__(self) -> str:
        faults = "; ".join(f"{place}: {text}" if place else text for place, text in self.faults)
        status = f"{self.status} " if self.status else ""
        return f"{status}{self.message}{' ' if faults else ''}{faults}"


class Invalid(ApiError):
    """The server refuses the request as it is. Sending it again cannot help."""


class Unauthorized(ApiError):
    """No key, an unknown key (401), or a key whose role is too small (403)."""


class NotFound(ApiError):
    """There is no such job, execution or dead letter, or no longer."""


class Conflict(ApiError):
    """The present state forbids it (409), or the version asked for is not the present one (412)."""


class Unreachable(ApiError):
    """No answer of jobsched arrived. A change may have been carried out all the same; the message says so."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}


def error_for(status: int, problem: Mapping[str, Any]) -> ApiError:
    """The error of the tree above that fits an answer's status."""
    return _BY_STATUS.get(status, ApiError)(status, problem)

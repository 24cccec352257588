"""Problem documents (RFC 9457): what a caller gets for every error, and nothing of what went wrong inside.

    InvalidInput 422   NotFound 404   Conflict 409   PreconditionFailed 412   Unauthorized 401   Forbidden 403
    DatabaseUnavailable 503 with Retry-After   SchemaMismatch 503   SecretsUnreadable 503
    any other exception 500, logged

``type`` is ``urn:jobsched:error:<code>``: an identifier that stays the same whatever the wording becomes.
docs/errors.md explains each.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from random import getrandbits
from typing import Final

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoSuchRoute

from jobsched.errors import (
    Conflict,
    DatabaseRefused,
    DatabaseUnavailable,
    Fault,
    Forbidden,
    InvalidInput,
    JobschedError,
    NotFound,
    PreconditionFailed,
    QueueUnavailable,
    SchemaMismatch,
    SecretsUnreadable,
    Unauthorized,
)
from jobsched.log import get_logger
from jobsched.runtime.outage import Outage
from jobsched.web.problem import PROBLEM_JSON, document, title

RETRY_AFTER_SECONDS: Final = 5

#: Seconds without a 503 after which the trouble behind the last one counts as over.
_QUIET_SECONDS: Final = 5.0

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_STATUS: Final[Mapping[type[JobschedError], int]] = {
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    PreconditionFailed: 412,
    Unauthorized: 401,
    Forbidden: 403,
    DatabaseUnavailable: 503,
    SchemaMismatch: 503,
    QueueUnavailable: 503,
    SecretsUnreadable: 503,
}

# What the database said stays in the log: it names hosts, tables and values.
_DISCREET: Final[Mapping[type[JobschedError], str]] = {
    DatabaseUnavailable: "The database cannot be reached at the moment. Nothing was written. Try again.",
    SchemaMismatch: "The database's schema is not the one of this version. The operator runs `jobsched migrate`.",
    QueueUnavailable: "Redis cannot be reached at the moment. Try again.",
}


class RequestRefused(Exception):
    """A fault of the HTTP request itself, not of its content: 400, 413, 415, its Idempotency-Key."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status = status
        self.code = code
        super().__init__(detail)


def request_id() -> str:
    """The id of this request: the caller's own where it is sane, else a fresh one."""
    known: str | None = g.get("request_id")
    if known is None:
        given = request.environ.get("HTTP_X_REQUEST_ID", "")
        known = given if given and _SANE_REQUEST_ID.fullmatch(given) else _fresh_request_id()
        g.request_id = known
    return known


def _fresh_request_id() -> str:
    # Nobody has anything of guessing it, and the system's own generator lets go of the interpreter's lock each time.
    return f"req_{urlsafe_b64encode(getrandbits(128).to_bytes(16)).decode()[:22]}"


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    faults: Iterable[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that carries a problem document."""
    problem = document(status, code, detail, request_id=request_id(), faults=faults)
    # ASCII only: a detail may quote what the caller sent, lone surrogates and all.
    return Response(json.dumps(problem) + "\n", status=status, headers=headers, content_type=PROBLEM_JSON)


def register(app: Flask) -> None:
    """Let ``app`` answer every exception with a problem document."""
    # A line for each of a thousand refused requests would bury all others.
    outage = Outage("unavailable", settle=_QUIET_SECONDS)

    def ours(error: JobschedError) -> Response:
        response = _ours(error)
        if response.status_code == 503:
            outage.failed(code=error.code, error=str(error), request_id=request_id())
        return response

    def note(response: Response) -> Response:
        if outage.lasting and response.status_code < 500 and "connection" in g:
            outage.over()
        return response

    app.after_request(note)
    app.register_error_handler(JobschedError, ours)
    app.register_error_handler(RequestRefused, _refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: JobschedError) -> Response:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status is None:
        return _unexpected(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    faults = error.faults if isinstance(error, InvalidInput) else ()
    discreet = next((_DISCREET[kind] for kind in type(error).__mro__ if kind in _DISCREET), None)
    detail = discreet or str(error.args[0] if error.args else title(status))
    return problem_response(status, error.code, detail, faults=faults, headers=headers)


def _refused(error: RequestRefused) -> Response:
    return problem_response(error.status, error.code, str(error))


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    if isinstance(error, NoSuchRoute):
        return problem_response(404, "not_found", f"There is nothing at {request.path}.")
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        detail = f"{request.method} is not possible at {request.path}. Allowed: {allowed}."
        return problem_response(405, "method_not_allowed", detail, headers={"Allow": allowed})
    if status >= 500 or status < 400:
        return _unexpected(error)
    code = re.sub(r"\W+", "_", title(status).lower())
    return problem_response(status, code, error.description or title(status))


def _unexpected(error: Exception) -> Response:
    get_logger(component="web").error(
        "request_failed",
        request_id=request_id(),
        method=request.method,
        path=request.path,
        refused=isinstance(error, DatabaseRefused),
        exc_info=error,
    )
    detail = "Something went wrong here. It is in the server's log under this requestId."
    return problem_response(500, "internal", detail)

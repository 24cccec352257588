"""The WSGI application."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from threading import Lock
from typing import Any

from flask import Flask, Request, Response, g, request
from flask.sessions import NullSession, SessionInterface
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.routing import MapAdapter

from jobsched import __version__
from jobsched.clock import monotonic
from jobsched.db.connection import converted
from jobsched.errors import DatabaseError, DatabaseUnavailable
from jobsched.log import enabled, get_logger
from jobsched.web import auth, errors, figures
from jobsched.web.api import bulk, dead_letters, executions, jobs, schedules, signing_secrets, system
from jobsched.web.docs_page import CSP, render_docs, stylesheet
from jobsched.web.idempotency import Once, after_commit
from jobsched.web.params import IdConverter, KeyConverter
from jobsched.web.routing import BEARER, Api
from jobsched.web.schemas import Problem
from jobsched.web.services import Services
from jobsched.web.subject import subject

_DESCRIPTION = (
    "Register jobs over HTTP; jobsched calls their URLs on time, retries with backoff and keeps what failed. "
    "Times are RFC 3339, in answers UTC with milliseconds. Lists go from the newest id to the oldest; "
    "`nextCursor` leads to the next page. A path that is not listed is 404, another method 405; what is no "
    "HTTP request that is understood gets 400, 414, 417, 431 or 501 before any call sees it. Each of these is "
    "a Problem, too. Callbacks are signed after Standard Webhooks (headers `webhook-id`, `webhook-timestamp` "
    "and `webhook-signature`) with the project's signing secrets."
)


#: Of so many values of Host it is known that they can be one.
_HOSTS = 100

CHECKOUT_SECONDS = 3.0
"""How long a request waits for its turn to get a connection before it is answered 503."""


def create_app(services: Services) -> Flask:
    """The API on top of ``services``. Opens nothing by itself."""
    app = _Application(
        "jobsched",
        info=Info(title="jobsched", version=__version__, description=_DESCRIPTION),
        security_schemes={BEARER: {"type": "http", "scheme": "bearer"}},
        validation_error_status="default",
        validation_error_model=Problem,
        doc_ui=False,
        static_folder=None,
    )
    app.url_map.converters |= {"int64": IdConverter, "key": KeyConverter}
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True

    services = replace(services, wake=after_commit(services.wake))
    api = Api(app, Once(services.idempotency))
    for module in (jobs, bulk, schedules, executions, dead_letters, signing_secrets, system):
        module.register(api, services)
    _serve_document(app, api)

    _frame_requests(app)
    _hold_connection(app, services)
    errors.register(app)
    auth.register(app, services.keys, api.roles)
    return app


class _Application(OpenAPI):
    """flask-openapi3's, without what Flask asks anew at each request and we know.

    There are no coroutines, no blueprints and no sessions.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hosts: dict[tuple[str, str], str] = {}
        self.session_interface = _NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """``func`` as it is."""
        return func

    def preprocess_request(self) -> None:
        """Do what comes before each request, in the order in which it was registered."""
        for act in self.before_request_funcs[None]:
            act()

    def process_response(self, response: Response) -> Response:
        """Let pass each answer through what comes after, the last that was registered first."""
        for act in reversed(self.after_request_funcs[None]):
            response = act(response)
        return response

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """What finds the route; a Host that was looked at before is not looked at again."""
        if request is None or "HTTP_HOST" not in request.environ or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        environ = request.environ
        asked = environ["wsgi.url_scheme"], environ["HTTP_HOST"]
        host = self._hosts.get(asked)
        if host is None:
            adapter = super().create_url_adapter(request)
            if adapter is not None and len(self._hosts) < _HOSTS:
                self._hosts[asked] = adapter.server_name
            return adapter
        path = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="replace")
        return MapAdapter(
            self.url_map, host, environ.get("SCRIPT_NAME", ""), "", asked[0], path, request.method,
            environ.get("QUERY_STRING", ""),
        )  # fmt: skip


class _NoSessions(SessionInterface):
    """One session for all, in which nothing can be kept."""

    def __init__(self) -> None:
        self._none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


def _frame_requests(app: Flask) -> None:
    log = get_logger(component="web")

    def begin() -> None:
        g.began = monotonic()

    def end(response: Response) -> Response:
        headers = response.headers
        # To set them would be to look for each among the others first.
        headers.add("X-Request-Id", errors.request_id())
        headers.add("X-Content-Type-Options", "nosniff")
        if "Cache-Control" not in headers:
            headers.add("Cache-Control", "no-store")
        seconds = monotonic() - g.began
        figures.count(response, seconds)
        if not enabled("debug"):
            return response
        log.debug(
            "request",
            **subject(response),
            request_id=errors.request_id(),
            method=request.method,
            path=request.path,
            status=response.status_code,
            milliseconds=round(seconds * 1000, 2),
        )
        return response

    app.before_request(begin)
    app.after_request(end)


def _hold_connection(app: Flask, services: Services) -> None:
    """One checkout for all statements of a request. What is open to everyone does without."""
    # The pool checks and opens connections one at a time, without a bound on who waits for that: when packets to
    # the server vanish, the last of eight threads would be answered after minutes.
    turn = Lock()

    def check_out() -> None:
        if request.path in auth.OPEN_PATHS:
            return
        auth.given_key()  # who has none takes no connection from those who have
        if not turn.acquire(timeout=CHECKOUT_SECONDS):
            raise DatabaseUnavailable("No connection to the database could be had in time.")
        try:
            with converted():
                held = services.kept_connection()
                held.__enter__()
                g.connection = held
        finally:
            turn.release()

    def check_in(_error: BaseException | None) -> None:
        held: AbstractContextManager[Any] | None = g.pop("connection", None)
        if held is not None:
            with suppress(DatabaseError), converted():
                held.__exit__(None, None, None)

    app.before_request(check_out)
    app.teardown_request(check_in)


def _serve_document(app: OpenAPI, api: Api) -> None:
    cached: dict[str, bytes] = {}

    def openapi_json() -> Response:
        if "json" not in cached:
            cached["json"] = f"{json.dumps(api.document(), ensure_ascii=False)}\n".encode()
        return Response(cached["json"], content_type="application/json")

    def docs() -> Response:
        if "html" not in cached:
            cached["html"] = render_docs(api.document()).encode()
        headers = {"Content-Security-Policy": CSP, "Referrer-Policy": "no-referrer"}
        return Response(cached["html"], content_type="text/html; charset=utf-8", headers=headers)

    def docs_style() -> Response:
        return Response(stylesheet(), content_type="text/css; charset=utf-8")

    app.add_url_rule("/openapi.json", view_func=openapi_json)
    app.add_url_rule("/docs", view_func=docs)
    app.add_url_rule("/docs/style.css", view_func=docs_style)

"""gunicorn, run from inside: one process that serves with threads, under an arbiter that restarts it.

One serving process: it does what one core can (Python's lock), in the memory of one; replicas scale it.
Nothing is opened before the fork, and the application is loaded after it. Departures from gunicorn's gthread
worker, each for a reason:

- A connection takes a thread only once its first bytes are here. gunicorn lets it wait for 5 s in one, so a
  handful of browsers' spare connections would stop everyone.
- The head of a request must arrive within 5 s of its first byte, the rest within 30 s (of a bulk, which may be 64
  times as large, 120 s). gunicorn reads without a deadline, and a client that drips would keep a thread for
  ever. (Facing the internet, put a proxy in front: nothing stops a client from dripping again.)
- A stop that comes right after the fork is not lost. gunicorn's new process takes it with handlers that it has
  inherited and that do nothing there, and is waited for until it is killed.
- What gunicorn refuses by itself (a broken request line, headers too large) is a problem document too.
"""

import contextlib
import gc
import json
import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

import gunicorn.http.wsgi  # type: ignore[import-untyped]
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger as GunicornLogger  # type: ignore[import-untyped]
from gunicorn.http import errors as http
from gunicorn.util import write_nonblock  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from jobsched.web.handover import STOP_SIGNALS
from jobsched.web.problem import BULK_PATH, PROBLEM_JSON, document


class Serving(Protocol):
    """What the server wants to know: the settings, or jobsched.web.handover.Handed, which takes less memory."""

    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int: ...
    @property
    def api_threads(self) -> int: ...
    @property
    def shutdown_grace(self) -> float: ...
    @property
    def log_level(self) -> str: ...


# The WSGI application; typed loosely, since gunicorn has no types.
AppFactory = Callable[[], Any]

HEAD_SECONDS: Final = 5.0
BODY_SECONDS: Final = 30.0
BULK_BODY_SECONDS: Final = 120.0
_KEEPALIVE_SECONDS: Final = 15
_BACKLOG: Final = 1024
_CONNECTIONS: Final = 1000

_STATUS: Final = (
    (http.LimitRequestLine, 414, "uri_too_long"),
    (http.LimitRequestHeaders, 431, "headers_too_large"),
    (http.ExpectationFailed, 417, "expectation_failed"),
    (http.UnsupportedTransferCoding, 501, "not_implemented"),
    (http.ParseException, 400, "bad_request"),
    (OSError, 400, "bad_request"),
)


def serve(app_factory: AppFactory, settings: Serving) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    ``app_factory`` is called once in each serving process, after the fork. Requests in flight are finished
    within JOBSCHED_SHUTDOWN_GRACE less 5 s, so that all is over before a platform loses its patience.
    """
    # Names neither the software nor its version to whoever asks.
    gunicorn.http.wsgi.SERVER = "jobsched"
    arbiter = os.getpid()
    # What is loaded by now is shared by both processes as long as nobody writes to it; the collector would.
    gc.collect()
    gc.freeze()
    try:
        _Arbiter(_Application(app_factory, _options(settings))).run()
    except SystemExit as end:
        if os.getpid() != arbiter:
            raise  # in the serving process; gunicorn counts on it
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _options(settings: Serving) -> dict[str, Any]:
    host = settings.host or "0.0.0.0"
    return {
        "bind": f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}",
        "workers": 1,
        "worker_class": Worker,
        "threads": settings.api_threads,
        "worker_connections": _CONNECTIONS,
        "backlog": _BACKLOG,
        "keepalive": _KEEPALIVE_SECONDS,
        "timeout": 60,
        "graceful_timeout": max(1, round(settings.shutdown_grace - 5)),
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        # A proxy's word about scheme, path and script name is not needed: all our links are relative.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "proxy_allow_ips": "",
        "control_socket_disable": True,
        "loglevel": settings.log_level,
        "logger_class": Logger,
        "proc_name": "jobsched-api",
    }


def body_seconds(path: str) -> float:
    """How long the body of a request to ``path`` may take to arrive."""
    return BULK_BODY_SECONDS if path == BULK_PATH else BODY_SECONDS


class Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's log through ours. No access log: the application logs requests at debug."""

    def setup(self, cfg: Any) -> None:
        """Let the records go up to the root logger, whose handler writes our format."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self.error_log.handlers[:] = []
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True

    def access(self, *_arguments: Any) -> None:
        """Nothing."""

    def reopen_files(self) -> None:
        """Nothing: we write to standard error."""

    def close_on_exec(self) -> None:
        """Nothing: we open no files."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's thread worker, bounded in what a slow client can hold."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._receiving: dict[TConn, float] = {}
        self._lock = threading.Lock()

    def init_signals(self) -> None:
        """Take over the signals; what came since the fork is let through now."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread; a new one first waits in the poller for its first bytes."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def handle(self, conn: TConn) -> Any:
        """Receive and answer one request; runs in a thread."""
        self._expect_within(conn, HEAD_SECONDS)
        try:
            return super().handle(conn)
        finally:
            with self._lock:
                self._receiving.pop(conn, None)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request whose head is here."""
        self._expect_within(conn, body_seconds(req.path))
        return super().handle_request(req, conn)

    def _expect_within(self, conn: TConn, seconds: float) -> None:
        with self._lock:
            self._receiving[conn] = time.monotonic() + seconds

    def murder_pending(self) -> None:
        """Called at least once a second: ends what takes too long to arrive."""
        super().murder_pending()
        now = time.monotonic()
        with self._lock:
            late = [conn for conn, deadline in self._receiving.items() if deadline < now]
        for conn in late:
            # The reading thread sees an end of the stream; an answer that is on its way is not hurt.
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what gunicorn could not read as a request, or what broke outside of the application."""
        status, code = next(
            ((status, code) for kind, status, code in _STATUS if isinstance(exc, kind)), (500, "internal")
        )
        from jobsched.config import generate_secret  # takes pydantic along

        request_id = f"req_{generate_secret()[:22]}"
        if status == 500:
            self.log.error("Error handling request %s", request_id, exc_info=exc)
            detail = "Something went wrong here. It is in the server's log under this requestId."
        else:
            self.log.debug("Invalid request: %s", exc)
            detail = f"This is not an HTTP request that is understood: {type(exc).__name__}."
        body = json.dumps(document(status, code, detail, request_id=request_id)) + "\n"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
            f"Content-Type: {PROBLEM_JSON}\r\nContent-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\n\r\n"
        )
        try:
            write_nonblock(client, (head + body).encode())
        except OSError:
            self.log.debug("The client had gone before it could be told.")


class _Arbiter(Arbiter):  # type: ignore[misc]
    def spawn_worker(self) -> Any:
        # Until the child has handlers of its own it has the arbiter's, which would take a stop and do nothing.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return super().spawn_worker()
        finally:
            # The first time this also lets through what came while the process turned into this one.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, app_factory: AppFactory, options: dict[str, Any]) -> None:
        self._app_factory = app_factory
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        application = self._app_factory()
        # What serves until the end need not be looked through again at each collection.
        gc.collect()
        gc.freeze()
        return application

"""``/metrics`` of a process that serves nothing else: a poller or a worker with JOBSCHED_METRICS_PORT.

Of the standard library, not the client library's own server: that one answers any path, waits for a slow reader for
ever, and asks the name server who we are before it listens.
"""

import contextlib
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from jobsched import clock
from jobsched.errors import ConfigError
from jobsched.log import get_logger
from jobsched.metrics import CONTENT_TYPE, Registry, exposition

PATH = "/metrics"

#: Readers that are served at once at most; who comes beyond is turned away.
MOST_READERS = 8

#: Seconds from a reader's connection to the last byte of its answer, however it dawdles.
LONGEST_VISIT = 10.0

log = get_logger()


class Endpoint:
    """Serves ``registry`` from its making until ``close`` or the end of the process."""

    def __init__(self, registry: Registry, host: str | None, port: int) -> None:
        """Listen on ``host`` (None: all addresses of IPv4) and ``port`` (0: any that is free).

        Raises ConfigError where that cannot be: figures that nobody can read are found out now, not at the first alarm.
        """
        try:
            self._server = _Server(registry, host or "0.0.0.0", port)
        except OSError as error:
            raise ConfigError(
                f"JOBSCHED_METRICS_PORT: cannot listen on port {port}: {error.strerror or error}. "
                "Processes of one machine need a port each; 0 takes any that is free."
            ) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        log.info("metrics_served", host=self._server.server_address[0], port=self.port, path=PATH)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, registry: Registry, host: str, port: int) -> None:
        self.registry = registry
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        super().__init__(found[0][4][:2], _Handler)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._since) >= MOST_READERS
            if not full:
                self._since[request] = clock.monotonic()
        if full:
            log.debug("metrics_reader_refused", readers=MOST_READERS)
            super().shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: let those go who have been here for too long."""
        now = clock.monotonic()
        with self._lock:  # within it no socket is closed, so that its number is nobody else's
            for request, since in self._since.items():
                if now - since >= LONGEST_VISIT:
                    with contextlib.suppress(OSError):  # the reader has gone by itself
                        request.shutdown(socket.SHUT_RDWR)  # wakes the thread, which then closes it

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A reader that went away; its next try is its own business.
        log.debug("metrics_not_sent", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self._answer(HTTPStatus.NOT_FOUND, f"Figures are at {PATH}.\n".encode(), "text/plain")
            return
        self._answer(HTTPStatus.OK, exposition(self.server.registry), CONTENT_TYPE)

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "jobsched"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a line every 15 s tells nobody anything."""

"""``/metrics`` of a process that serves nothing else: a poller or a worker with JOBSCHED_METRICS_PORT.

Of the standard library, not the client library's own server: that one answers any path, waits for a slow reader for
ever, and asks the name server who we are before it listens.
"""

import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from jobsched.errors import ConfigError
from jobsched.log import get_logger
from jobsched.metrics import CONTENT_TYPE, Registry, exposition

PATH = "/metrics"

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
        super().__init__(found[0][4][:2], _Handler)  # type: ignore[arg-type]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A reader that went away; its next try is its own business.
        log.debug("metrics_not_sent", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    #: Seconds without a byte after which a reader is let go.
    timeout = 10
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

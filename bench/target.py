"""An HTTP target that costs next to nothing: nginx, which answers every request with 200 "ok".

What a bench measures should be the sender. A target in Python would take more of a core than the sender does.
"""

import http.client
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import tree
from bench.watch import until
from jobsched.embedded import ports

MISSING = (
    "nginx was not found; the bench needs it as a target. Debian, Ubuntu: apt install nginx-light "
    "(then: systemctl disable --now nginx; the bench starts its own). macOS: brew install nginx."
)
_START_SECONDS = 10.0
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"

# Paths are relative to the prefix, a folder of the bench's own. One process: with the four of a default
# installation the target would share its core with whom it is to measure.
_CONFIGURATION = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid nginx.pid;
error_log error.log warn;
events {{
    worker_connections 4096;
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_body_buffer_size 512k;
    tcp_nodelay on;
    default_type text/plain;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /_status {{ stub_status; }}
        location / {{ return 200 "ok"; }}
    }}
}}
"""


class NginxTarget:
    """The target while it runs: ``url``, ``pids``, and how many ``requests`` it has answered.

    Raises FileNotFoundError where there is no nginx, RuntimeError where it does not start.
    """

    def __init__(self) -> None:
        self._program = program()
        self._asked = 0
        self.url = ""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="jobsched-bench-target-"))
        self._port = ports.free_port()
        (self._folder / "nginx.conf").write_text(_CONFIGURATION.format(port=self._port))
        self._process = subprocess.Popen(
            [self._program, "-p", str(self._folder), "-c", "nginx.conf", "-e", "error.log"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.url = f"http://{ports.LOOPBACK}:{self._port}"
        try:
            self._await()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove its folder."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return tree(self._process.pid)

    def requests(self) -> int:
        """How many requests it has had, those of this method left out."""
        connection = http.client.HTTPConnection(ports.LOOPBACK, self._port, timeout=10)
        try:
            connection.request("GET", "/_status")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        self._asked += 1
        found = re.search(r"^\s*\d+\s+\d+\s+(\d+)\s*$", text, re.M)
        assert found, text
        return int(found.group(1)) - self._asked

    def _await(self) -> None:
        def is_up() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError("it has ended")
            return ports.answers(self._port)

        try:
            until(is_up, _START_SECONDS, "it does not answer")
        except RuntimeError as error:
            self._process.kill()
            _, said = self._process.communicate()
            log = self._folder / "error.log"
            more = log.read_text() if log.exists() else ""
            raise RuntimeError(
                f"nginx does not start, {error}: {said.decode(errors='replace')}{more}"
            ) from None


def program() -> str:
    """Where nginx is; FileNotFoundError says how to install it."""
    found = shutil.which("nginx") or shutil.which("nginx", path=_PLACES)
    if found is None:
        raise FileNotFoundError(MISSING)
    return found

"""An embedded Valkey (Redis' free continuation): started, adopted and stopped. It keeps nothing on disk."""

import signal
import socket
import subprocess
import threading
from pathlib import Path

from jobsched.clock import monotonic
from jobsched.embedded import binaries, ports
from jobsched.embedded.account import Account, Home
from jobsched.embedded.postgres import tail_of
from jobsched.embedded.process import Process, works_in
from jobsched.errors import EmbeddedServerError

_START_SECONDS = 10.0
_ATTEMPTS = 3


class Valkey:
    """The Valkey of a data folder. One object a folder; the caller holds the folder's lock."""

    name = "Valkey"

    def __init__(self, data_dir: Path, account: Account) -> None:
        self._account = account
        self._folder = data_dir / "valkey"
        self._port_file = data_dir / "run" / "valkey.port"
        self._password_file = data_dir / "valkey-password"
        self._log = data_dir / "log" / "valkey.log"
        self._process: Process | None = None
        self.adopted = False

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def start(self) -> str:
        """Start the server, or adopt the one that runs. Returns its address. Raises EmbeddedServerError."""
        password = ports.kept_secret(self._password_file)
        port = self._adopt(password) or self._start(password)
        return f"redis://:{password}@{ports.LOOPBACK}:{port}/0"

    def stop(self, seconds: float = 5.0) -> None:
        """Stop the server; it has nothing to save."""
        if self._process is None:
            return
        self._process.signal(signal.SIGTERM)
        if not self._process.wait(seconds):
            self.kill()

    def kill(self) -> None:
        """Stop at once."""
        if self._process is None:
            return
        self._process.signal(signal.SIGKILL)
        self._process.wait(5)

    def _adopt(self, password: str) -> int | None:
        pid = ports.read_number(self._folder / "valkey.pid")
        if pid is None or not works_in(pid, self._folder, "valkey-server", self._account.uid):
            return None
        self._process = Process(pid)
        port = ports.read_number(self._port_file)
        if port is not None and self._await_pong(port, password, 2):
            self.adopted = True
            return port
        self.stop()
        return None

    def _start(self, password: str) -> int:
        program = binaries.valkey_server(self._account)
        port = ports.free_port(ports.read_number(self._port_file))
        for _attempt in range(_ATTEMPTS):
            # Before the start: a supervisor killed right after it must leave what the next one needs.
            ports.write_private(self._port_file, f"{port}\n")
            home = Home(self._folder, self._account)
            try:
                with self._log.open("ab") as log:
                    popen = self._account.spawn([program, "-"], log=log, home=home, with_stdin=True)
            finally:
                home.close()
            _configure(popen, port, password)
            self._process, self.adopted = Process(popen.pid, popen), False
            if self._await_pong(port, password, _START_SECONDS):
                return port
            self.kill()
            port = ports.free_port()
        raise EmbeddedServerError(f"Valkey did not start. {self._log} ends: {tail_of(self._log)}")

    def _await_pong(self, port: int, password: str, seconds: float) -> bool:
        end = monotonic() + seconds
        nap = threading.Event()
        while self.alive and monotonic() < end:
            if _pong(port, password):
                return True
            nap.wait(0.01)
        return False


def _configure(popen: "subprocess.Popen[bytes]", port: int, password: str) -> None:
    """Hand over the configuration by standard input: so the password is in no file and no list of processes."""
    lines = [
        f"bind {ports.LOOPBACK}",
        f"port {port}",
        f"requirepass {password}",
        "daemonize no",
        "pidfile valkey.pid",
        'save ""',
        "appendonly no",
        # Redis must refuse work rather than forget some of it.
        "maxmemory-policy noeviction",
        'logfile ""',
        "loglevel warning",
    ]
    assert popen.stdin is not None
    try:
        with popen.stdin as stdin:
            stdin.write(("\n".join(lines) + "\n").encode())
    except BrokenPipeError:
        # It ended before it read; whoever waits for its answer reports that with the log.
        return


def _pong(port: int, password: str) -> bool:
    """Whether a server there takes our password and answers PING."""
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = connection.recv(200)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return answer.startswith(b"+OK\r\n+PONG")

"""A whole installation in a temporary folder, for acceptance tests and benches: real servers, real processes."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobsched.client import Client
from jobsched.config import child_environment, generate_secret
from jobsched.db.connection import Link
from jobsched.embedded import ports
from jobsched.embedded.account import choose
from jobsched.embedded.postgres import Postgres
from jobsched.embedded.valkey import Valkey

#: Settings of every process of a stand; targets are on this machine.
SETTINGS = {
    "JOBSCHED_ALLOW_TARGETS": "127.0.0.0/8,::1/128",
    "JOBSCHED_LOG_FORMAT": "console",
}


class Stand:
    """Postgres and Valkey of its own, migrated, and processes started at will. Ends what it started."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobsched-stand-"))
        self.key = generate_secret()
        self.settings = SETTINGS | {"JOBSCHED_ADMIN_KEY": self.key} | settings
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        account = choose(self.folder)
        self.postgres = Postgres(self.folder, account)
        self.valkey = Valkey(self.folder, account)
        self.database_url = self.redis_url = self.url = ""
        self._clients: list[Client] = []

    def __enter__(self) -> Self:
        for name in ("log", "run"):
            (self.folder / name).mkdir(exist_ok=True)
        try:
            self.database_url = self.postgres.start()
            self.redis_url = self.valkey.start()
            self.run("migrate")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove the folder."""
        for client in self._clients:
            client.close()
        for name in list(self.processes):
            self.stop(name, signal.SIGKILL)
        self.valkey.kill()
        self.postgres.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of this stand is given."""
        return child_environment(
            DATABASE_URL=self.database_url, REDIS_URL=self.redis_url, **self.settings, **more
        )

    def run(self, *arguments: str, **more: str) -> str:
        """Run one command to its end and return what it printed; CalledProcessError if it fails."""
        return subprocess.run(
            [sys.executable, "-m", "jobsched", *arguments],
            env=self.environment(**more),
            check=True,
            capture_output=True,
            text=True,
            timeout=90,
        ).stdout

    def start(self, name: str, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a process under a name; its output goes to ``log_of(name)``."""
        with open(self.log_path(name), "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobsched", *arguments],
                env=self.environment(**more),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_api(self, *, within: float = 30.0) -> str:
        """Start the API as ``api`` on a free port and wait until it is ready. Sets and returns ``url``."""
        port = ports.free_port()
        self.url = f"http://127.0.0.1:{port}"
        process = self.start("api", "api", "--host", "127.0.0.1", "--port", str(port))
        end = time.monotonic() + within
        while not _answers(f"{self.url}/ready"):
            assert process.poll() is None, self.log_of("api")
            assert time.monotonic() < end, f"the API is not ready after {within:g} s: {self.log_of('api')}"
            time.sleep(0.05)
        return self.url

    def client(self) -> Client:
        """A client of the API with the rights of an administrator; closed with the stand."""
        client = Client(self.url, self.key)
        self._clients.append(client)
        return client

    def send(self, name: str, number: int) -> None:
        """Send a signal to a process and go on."""
        os.kill(self.processes[name].pid, number)

    def wait_for_end(self, name: str, timeout: float = 40.0) -> int:
        """Wait until a process has ended; returns its exit code."""
        code = self.processes[name].wait(timeout)
        del self.processes[name]
        return code

    def stop(self, name: str, number: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """Signal a process and wait for its end; returns its exit code.

        A SIGKILL goes to the whole group, for the API's serving process does not end with its arbiter.
        """
        if number != signal.SIGKILL:
            self.send(name, number)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.processes[name].pid, number)
        return self.wait_for_end(name, timeout)

    def log_path(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.folder / "log" / f"{name}.txt"

    def log_of(self, name: str) -> str:
        """What a process has said so far."""
        return self.log_path(name).read_text(errors="replace")

    def link(self) -> Link:
        """A connection to the stand's database; the caller closes it."""
        return Link(self.database_url, "stand", statement_timeout=120)

    def query(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own."""
        link = self.link()
        try:
            return link.execute(statement, parameters)
        finally:
            link.close()

    def wait(self, statement: str, value: Any, timeout: float = 30.0) -> None:
        """Wait until a statement's first value is ``value``; AssertionError after ``timeout`` seconds."""
        link = self.link()
        end = time.monotonic() + timeout
        try:
            while (found := link.execute(statement)[0][0]) != value:
                assert time.monotonic() < end, f"{statement}: {found!r}, not {value!r}, after {timeout:g} s"
                time.sleep(0.05)
        finally:
            link.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False

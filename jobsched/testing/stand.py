"""A whole installation in a temporary folder, for acceptance tests and benches: real servers, real processes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobsched.config import child_environment
from jobsched.db.connection import Link
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
        self.settings = SETTINGS | settings
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        account = choose(self.folder)
        self.postgres = Postgres(self.folder, account)
        self.valkey = Valkey(self.folder, account)
        self.database_url = self.redis_url = ""

    def __enter__(self) -> Self:
        for name in ("log", "run"):
            (self.folder / name).mkdir(exist_ok=True)
        self.database_url = self.postgres.start()
        self.redis_url = self.valkey.start()
        self.run("migrate")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
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

    def stop(self, name: str, number: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """Signal a process and wait for its end; returns its exit code."""
        process = self.processes.pop(name)
        os.kill(process.pid, number)
        return process.wait(timeout)

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

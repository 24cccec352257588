"""Real processes and workers on the servers of the integration ring."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from jobsched.config import child_environment, load_settings
from jobsched.queue.broker import Waker
from jobsched.queue.connection import connect
from jobsched.worker.process import Worker
from tests.conftest import eventually


class Started:
    """A process of ours and what it says."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, text: str, timeout: float = 30.0) -> None:
        """Wait until it has said ``text``."""

        def look() -> None:
            assert text in self.said, self.said[-3000:]

        eventually(look, timeout)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def ends(self, timeout: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(timeout)

    def stands_still(self) -> None:
        """Wait until it has stopped itself."""

        def look() -> None:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            assert state == "T"

        eventually(look, 30.0)


@contextmanager
def process(log: Path, *arguments: str, code: str | None = None, **environment: str) -> Iterator[Started]:
    """``jobsched ARGUMENTS``, or Python ``code`` with them; killed at the end if it still runs."""
    command = ["-m", "jobsched"] if code is None else ["-c", code]
    variables = {"JOBSCHED_ALLOW_TARGETS": "127.0.0.0/8", "JOBSCHED_LOG_FORMAT": "json", **environment}
    with log.open("ab") as output:
        running = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env=child_environment(**variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Started(running, log)
    try:
        yield started
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(10)


@contextmanager
def worker(database_url: str, redis_url: str, name: str = "w1", **settings: str) -> Iterator[Worker]:
    """A worker that runs in this process; stopped at the end."""
    chosen = load_settings(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JOBSCHED_ALLOW_TARGETS": "127.0.0.0/8",
            "JOBSCHED_CONCURRENCY": "20",
            "JOBSCHED_SHUTDOWN_GRACE": "6",
            **settings,
        }
    )
    clients: list[redis.Redis] = []

    def client() -> redis.Redis:
        clients.append(connect(redis_url))
        return clients[-1]

    waker = Waker(redis_url, chosen.pools)
    one = Worker(chosen, client, waker, name=name, on_retry=_ignore, on_shutdown=lambda: None)
    one.begin()
    for service in one.services:
        service.start()
    try:
        yield one
    finally:
        clean = one.finish()
        for service in one.services:
            service.stop(5)
        one.close(clean=clean)
        waker.close()
        for each in clients:
            each.close()


def _ignore(_due_in: Any) -> None:
    """Nobody is to be woken."""

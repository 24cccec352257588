"""The data folder of ``jobsched up``: made private, never shared by two, never somebody else's folder."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jobsched.errors import EmbeddedServerError

_LOCK = "lock"
_PLACE = "place"
_TRIFLES = {"lost+found", ".DS_Store"}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` with mode 0700 and hold its lock. Raises EmbeddedServerError with what to do.

    The lock dies with the process, whatever kills it; children do not inherit it.
    """
    _make(folder)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 40, 0).decode("ascii", errors="replace").strip()
            raise EmbeddedServerError(
                f"Another `jobsched up` (process {holder or 'unknown'}) already runs on {folder}. "
                "Stop it first, or choose another folder with --data-dir."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        for name in ("run", "log"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    try:
        # Only the folder itself is ours to close; those above it get the umask's mode, or stay as they are.
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        names = set(os.listdir(folder)) - _TRIFLES
    except OSError as error:
        raise EmbeddedServerError(
            f"The data folder {folder} cannot be used: {error.strerror}. Choose another with --data-dir."
        ) from error
    if found.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"The data folder {folder} belongs to another user (uid {found.st_uid}). Start jobsched as that "
            "user, or choose another folder with --data-dir."
        )
    if names and _LOCK not in names:
        raise EmbeddedServerError(
            f"{folder} is not empty and no data folder of jobsched. Choose another with --data-dir."
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def was_copied(folder: Path) -> bool:
    """Whether the folder was copied here, or put back from a copy, since ``remember_place``.

    A file in it holds its own number on the disk (inode), which no copy keeps. A snapshot of a whole disk does.
    """
    try:
        with (folder / _PLACE).open(encoding="ascii", errors="replace") as file:
            return file.read().strip() != str(os.fstat(file.fileno()).st_ino)
    except OSError:
        return False


def remember_place(folder: Path) -> None:
    """Let ``was_copied`` be false from now on, as long as the folder is where it is."""
    descriptor = os.open(folder / _PLACE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, f"{os.fstat(descriptor).st_ino}\n".encode("ascii"))
    finally:
        os.close(descriptor)

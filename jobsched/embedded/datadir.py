"""The data folder of ``jobsched up``: made private, never shared by two, never somebody else's folder."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobsched.errors import EmbeddedServerError
from jobsched.log import get_logger

_LOCK = "lock"
_PLACE = "place"
_TRIFLES = {"lost+found", ".DS_Store"}

#: After so many starts in a row that looked like a copy, inodes are not believed here.
_MOST_MOVES = 2

log = get_logger()


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


@dataclass(frozen=True, slots=True)
class _Place:
    """What the file says: its inode at the last start, and at how many starts in a row it had been another."""

    inode: int
    moves: int


def was_copied(folder: Path) -> bool:
    """Whether the folder was copied here, or put back from a copy, since ``remember_place``.

    A file in it holds its own number on the disk (inode), which no copy keeps. A snapshot of a whole disk does. Some
    file systems keep no such numbers (FUSE, sshfs, folders that Docker Desktop lends to a container): there each start
    would look like a copy, and retries over a restart would get new idempotency keys each time. So a number that was
    another at ``_MOST_MOVES`` starts in a row proves nothing any more, until one start finds it again.
    """
    with contextlib.suppress(OSError), (folder / _PLACE).open(encoding="ascii", errors="replace") as file:
        if (place := _read(file.read())) is None or place.inode == os.fstat(file.fileno()).st_ino:
            return False
        if place.moves < _MOST_MOVES:
            return True
        log.warning("copies_not_noticed", folder=str(folder))
    return False


def remember_place(folder: Path) -> None:
    """Let ``was_copied`` be false from now on, as long as the folder is where it is."""
    descriptor = os.open(folder / _PLACE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        inode = os.fstat(descriptor).st_ino
        place = _read(os.pread(descriptor, 100, 0).decode("ascii", errors="replace"))
        moves = 0 if place is None or place.inode == inode else min(place.moves + 1, _MOST_MOVES)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{inode} {moves}\n".encode("ascii"), 0)
    finally:
        os.close(descriptor)


def _read(text: str) -> _Place | None:
    """None for a file that says nothing, as after a crash while it was written."""
    words = text.split()
    if not words or not all(word.isdecimal() for word in words):
        return None
    return _Place(int(words[0]), int(words[1]) if len(words) > 1 else 0)

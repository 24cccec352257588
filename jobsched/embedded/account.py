"""Who the servers run as, and how that user reaches their folders."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobsched.errors import EmbeddedServerError

SYSTEM_USER = "jobsched"

# Nothing of ours: the servers have no business with our secrets, and PG* or LC_* of the user must not act.
SERVER_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"}

# The first that exists is used: shadow-utils, then busybox.
_MAKE_USER = (
    (
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        SYSTEM_USER,
    ),
    ("adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", SYSTEM_USER),
)


@dataclass(frozen=True)
class Account:
    """The user that the embedded servers run as. ``other`` is true where that is not the present user."""

    name: str
    uid: int
    gid: int
    other: bool

    @property
    def by_descriptor(self) -> bool:
        """Whether folders are handed over as open descriptors; only Linux can name one as a path."""
        return self.other and sys.platform == "linux"

    def run(self, argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as this user to its end; the output is captured as text."""
        try:
            return subprocess.run(
                [str(part) for part in argv],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                **self._switch(),
                **options,
            )
        except PermissionError as error:
            raise self._cannot_switch(error) from error

    def spawn(
        self, argv: Sequence[str | Path], *, log: IO[bytes], home: "Home", with_stdin: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a server as this user, in a session of its own, with ``home`` as working folder."""
        try:
            return subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home.folder,
                pass_fds=home.descriptors,
                env=SERVER_ENVIRONMENT,
                start_new_session=True,
                **self._switch(),
            )
        except PermissionError as error:
            raise self._cannot_switch(error) from error

    def can_run(self, program: Path) -> bool:
        """Whether this user reaches and may execute ``program``; tried with ``--version``."""
        try:
            tried = subprocess.run(
                [str(program), "--version"], capture_output=True, cwd="/", check=False, **self._switch()
            )
        except OSError:
            return False
        return tried.returncode == 0

    def _switch(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.other else {}

    def _cannot_switch(self, error: PermissionError) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"Cannot start a program as the user {self.name}: {error}. Postgres refuses to run as root; "
            "start jobsched as an ordinary user, or set DATABASE_URL and REDIS_URL."
        )


class Home:
    """A server's own folder (mode 0700), and the name under which its user reaches it."""

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        descriptor = os.open(folder, flags)
        try:
            # By descriptor: the folder may belong to another user, who must not be able to swap it.
            if account.other and os.fstat(descriptor).st_uid != account.uid:
                os.fchown(descriptor, account.uid, account.gid)
            os.fchmod(descriptor, 0o700)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptors: tuple[int, ...] = ()
        self.path = folder
        if account.by_descriptor:
            self.descriptors = (descriptor,)
            self.path = Path(f"/proc/self/fd/{descriptor}")
        else:
            os.close(descriptor)

    def close(self) -> None:
        """Give the descriptor back. Servers that were started keep their own."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


def choose(data_dir: Path) -> Account:
    """The account for the servers of ``data_dir``: ourselves, or as root the owner of what is there already,
    else the system user ``jobsched``, which is made when missing."""
    if os.geteuid() != 0:
        entry = _entry(os.geteuid())
        return Account(entry.pw_name if entry else str(os.geteuid()), os.geteuid(), os.getegid(), False)
    entry = _owner(data_dir / "postgres") or _named(SYSTEM_USER) or _make()
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, True)


def _owner(folder: Path) -> pwd.struct_passwd | None:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return None
    return _entry(found.st_uid) if stat.S_ISDIR(found.st_mode) and found.st_uid != 0 else None


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _named(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _make() -> pwd.struct_passwd:
    reason = "neither useradd nor adduser is there"
    for command in _MAKE_USER:
        if shutil.which(command[0]) is None:
            continue
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        entry = _named(SYSTEM_USER)
        if entry is not None:
            return entry
        reason = (made.stderr or made.stdout).strip() or f"{command[0]} exited with {made.returncode}"
    raise EmbeddedServerError(
        f"Postgres refuses to run as root, and the system user {SYSTEM_USER!r} could not be made: {reason}. "
        f"Make that user, start jobsched as an ordinary user, or set DATABASE_URL and REDIS_URL."
    )

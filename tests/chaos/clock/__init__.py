"""A wall clock that a test sets, for whole processes: Python, Postgres, Valkey. Monotonic clocks stay as they are.

``shim.c`` is preloaded into each process and adds an offset that stands in a file. It is compiled when first
needed; where there is no C compiler ``unavailable()`` says so, and what needs the clock is left out.

    with Clock() as clock:
        subprocess.Popen(..., env={**os.environ, **clock.environment()})
        clock.step(3600)     # it is an hour later for all of them
"""

import atexit
import ctypes
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from jobsched.embedded.account import Account, Home, choose
from jobsched.embedded.postgres import Postgres
from jobsched.embedded.valkey import Valkey
from jobsched.testing.stand import Stand

_SOURCE = Path(__file__).with_name("shim.c")
_NANOSECONDS = 1_000_000_000


@cache
def unavailable() -> str | None:
    """Why no clock can be set here; None where it can."""
    if sys.platform != "linux":
        return "the clock is set by LD_PRELOAD, as Linux has it"
    if shutil.which("cc") is None:
        return "there is no C compiler (cc)"
    return None


def clock_environment(offset_file: Path) -> dict[str, str]:
    """The variables that put a process under the clock of ``offset_file`` (its first 8 bytes, nanoseconds)."""
    before = os.environ.get("LD_PRELOAD")
    library = str(_compiled())
    return {
        "LD_PRELOAD": f"{library}:{before}" if before else library,
        "CLOCK_SHIM": str(offset_file),
    }


@cache
def _compiled() -> Path:
    """The library, made once a process."""
    if reason := unavailable():
        raise RuntimeError(reason)
    folder = Path(tempfile.mkdtemp(prefix="jobsched-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)  # embedded servers run as another user and load it
    library = folder / "shim.so"
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)],
        check=True,
    )
    library.chmod(0o755)
    return library


class Clock:
    """The wall clock of the processes that are started with ``environment()``; close it after they have ended.

    ``offset``: by how many seconds it is ahead of the machine's.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="jobsched-clock-"))
        self._folder.chmod(0o755)  # embedded servers run as another user and read it
        self.file = self._folder / "offset"
        self.file.write_bytes(struct.pack("q", 0).ljust(mmap.PAGESIZE, b"\0"))
        self.file.chmod(0o644)
        with self.file.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        # One aligned store of eight bytes: nobody ever reads half of it.
        self._cell: ctypes.c_int64 | None = ctypes.c_int64.from_buffer(self._page)
        self.offset = offset

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file. Processes that have it mapped keep the last offset."""
        self._cell = None
        self._page.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What a process is given to live by this clock."""
        return clock_environment(self.file)

    @property
    def offset(self) -> float:
        """Seconds that the clock is ahead of the machine's; setting it is seen by all processes at once."""
        assert self._cell is not None
        return self._cell.value / _NANOSECONDS

    @offset.setter
    def offset(self, seconds: float) -> None:
        assert self._cell is not None
        self._cell.value = round(seconds * _NANOSECONDS)

    def step(self, seconds: float) -> None:
        """Put the clock forward, or back."""
        self.offset += seconds

    def show(self, instant: datetime) -> None:
        """Set the clock to ``instant``; it goes on from there."""
        self.offset = instant.timestamp() - time.time()

    def now(self) -> datetime:
        """What the clock shows, in UTC."""
        return datetime.fromtimestamp(time.time() + self.offset, UTC)


@dataclass(frozen=True)
class ClockedAccount(Account):
    """An account whose servers are started with ``environment`` on top."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def spawn(
        self, argv: Sequence[str | Path], *, log: IO[bytes], home: Home, with_stdin: bool = False
    ) -> subprocess.Popen[bytes]:
        """As ``Account.spawn``. ``env`` becomes the server itself, so the process id is the server's."""
        words = [f"{name}={value}" for name, value in self.environment.items()]
        return super().spawn(["env", *words, *argv], log=log, home=home, with_stdin=with_stdin)


class ClockedStand(Stand):
    """A stand that lives by a clock: Postgres and Valkey, and with ``processes`` whatever is started by it."""

    def __init__(self, clock: Clock, *, processes: bool = True, **settings: str) -> None:
        environment = clock.environment()
        super().__init__(**settings | (environment if processes else {}))
        account = choose(self.folder)
        clocked = ClockedAccount(account.name, account.uid, account.gid, account.other, environment)
        self.postgres = Postgres(self.folder, clocked)
        self.valkey = Valkey(self.folder, clocked)

"""A process by its id, told apart from a later one with the same id.

What was left by a supervisor that was killed is not our child: it cannot be waited for, and its number
may meanwhile belong to somebody else. So a process is known by its number and its start time together.
"""

import os
import platform
import signal
import subprocess
import threading
from pathlib import Path

from jobsched.clock import monotonic

_TICK = 0.02
_LINUX = platform.system() == "Linux"


class Process:
    """A process that we started (``popen``) or found."""

    def __init__(self, pid: int, popen: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self._popen = popen
        self.started = started(pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        if self._popen is not None:
            return self._popen.poll() is None
        return self.started is not None and started(self.pid) == self.started

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to its whole group; one that has ended is no error."""
        if not self.alive:
            return
        try:
            if group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # It ended between the look and the signal; macOS answers EPERM for a zombie.
            return

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; False when it still runs after ``seconds``."""
        end = monotonic() + seconds
        nap = threading.Event()
        while self.alive:
            if monotonic() >= end:
                return False
            nap.wait(_TICK)
        return True


def started(pid: int) -> str | None:
    """When the process with this id began, in the system's own words; None if there is none (or a zombie)."""
    if _LINUX:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name, in parentheses, may contain anything; proc(5): state is field 3, start time field 22.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    text = shown.stdout.strip()
    return None if not text or text.startswith("Z") else text.partition(" ")[2].strip()


def works_in(pid: int, folder: Path, program: str, uid: int) -> bool:
    """Whether process ``pid`` is ``program``, belongs to ``uid`` and has ``folder`` as its working folder.

    Elsewhere than on Linux the folder is not looked at.
    """
    if _LINUX:
        try:
            same = os.path.samestat(os.stat(f"/proc/{pid}/cwd"), folder.stat())
            return same and os.stat(f"/proc/{pid}").st_uid == uid
        except OSError:
            return False
    shown = subprocess.run(["ps", "-o", "uid=,command=", "-p", str(pid)], capture_output=True, text=True)
    owner, _, command = shown.stdout.strip().partition(" ")
    return owner == str(uid) and program in command

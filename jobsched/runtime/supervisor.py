"""Child processes: started in sessions of their own, watched, started again, stopped in order.

A session of its own keeps a terminal's Ctrl-C away from the children: it reaches the supervisor only,
which stops them one kind after the other. Who runs stands in a record file, so that after a ``kill -9``
of the supervisor the next one finds what is left. Children write to our own standard error, not to pipes
of ours: a pipe would break under them when the supervisor is killed.
"""

import json
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobsched import log
from jobsched.clock import monotonic
from jobsched.embedded.ports import write_private
from jobsched.embedded.process import Process, started
from jobsched.errors import JobschedError

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 30.0
STEADY_SECONDS = 60.0  # a child that lived so long starts again without a history

# Wrong usage or configuration (sysexits of our command line): starting again cannot help.
HOPELESS_EXIT_CODE = 2


@dataclass(frozen=True)
class Program:
    """What a child is: a name for people, the command, its environment.

    ``stop_share`` is the part of the time for stopping that later stages wait for this one at most.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    stop_share: float = 1.0


class ChildHopeless(JobschedError):
    """A child has ended saying that its usage or configuration is wrong."""

    code = "child_hopeless"


class _Child:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: Process | None = None
        self.exit_code: int | None = None
        self.start_at = 0.0
        self._since = 0.0
        self._backoff = FIRST_BACKOFF
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self, now: float) -> None:
        self._popen = subprocess.Popen(
            self.program.argv,
            env=dict(self.program.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.process = Process(self._popen.pid, self._popen)
        self._since = now

    def ended(self, now: float) -> float:
        """Note that it has ended; how many seconds to wait before it is started again."""
        assert self._popen is not None
        self.exit_code = self._popen.returncode
        if now - self._since >= STEADY_SECONDS:
            self._backoff = FIRST_BACKOFF
        nap, self._backoff = self._backoff, min(self._backoff * 2, LONGEST_BACKOFF)
        self.process, self.start_at = None, now + nap
        return nap


class Supervisor:
    """Keeps the programs of all stages running. Stages are stopped in their order, each as a whole."""

    def __init__(self, stages: Sequence[Sequence[Program]], record: Path) -> None:
        self._stages = [[_Child(program) for program in stage] for stage in stages]
        self._record = record
        self._lock = threading.Lock()
        self._stopping = False

    def look(self) -> None:
        """Start what does not run and whose pause is over. Raises ChildHopeless where that cannot help."""
        now = monotonic()
        with self._lock:
            if self._stopping:
                return
            changed = [self._look_at(child, now) for stage in self._stages for child in stage]
            if any(changed):
                self._write_record()

    def restart(self) -> None:
        """Stop all children in an orderly way; the next looks start them again."""
        with self._lock:
            for process in self._processes():
                process.signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """Stop stage by stage with SIGTERM; what still runs after ``seconds`` in all is killed."""
        with self._lock:
            self._stopping = True
        end = monotonic() + seconds
        for stage in self._stages:
            children = [(child, child.process) for child in stage if child.process is not None]
            for _, process in children:
                process.signal(signal.SIGTERM)
            for child, process in children:
                share = min(end, monotonic() + seconds * child.program.stop_share)
                if not process.wait(max(share - monotonic(), 0.0)):
                    log.get_logger().warning("child_still_stopping", child=child.program.name)
        self._end_groups(max(end - monotonic(), 0.0))

    def kill(self) -> None:
        """Kill all children and their own children at once. Safe from any thread, at any time."""
        self._stopping = True
        for process in self._processes():
            process.signal(signal.SIGKILL, group=True)

    def pids(self) -> dict[str, int]:
        """The children that run, by name."""
        with self._lock:
            return {name: process.pid for name, process in self._named_processes() if process.alive}

    def _look_at(self, child: _Child, now: float) -> bool:
        logger = log.get_logger(child=child.program.name)
        if child.process is not None and not child.process.alive:
            nap = child.ended(now)
            if child.exit_code == HOPELESS_EXIT_CODE:
                raise ChildHopeless(
                    f"`{child.program.name}` does not start: its configuration is wrong (see above)."
                )
            logger.error("child_ended", exit_code=child.exit_code, again_in_seconds=nap)
        if child.process is None and now >= child.start_at:
            child.start(now)
            logger.debug("child_started", pid=child.process.pid if child.process else None)
            return True
        return False

    def _end_groups(self, seconds: float) -> None:
        end = monotonic() + seconds
        for name, process in self._named_processes():
            if not process.wait(max(end - monotonic(), 0.0)):
                log.get_logger().error("child_killed", child=name)
                process.signal(signal.SIGKILL, group=True)
                process.wait(5)
        self._record.unlink(missing_ok=True)

    def _named_processes(self) -> list[tuple[str, Process]]:
        return [
            (child.program.name, child.process)
            for stage in self._stages
            for child in stage
            if child.process is not None
        ]

    def _processes(self) -> list[Process]:
        return [process for _, process in self._named_processes()]

    def _write_record(self) -> None:
        rows = [
            {"name": name, "pid": process.pid, "started": process.started}
            for name, process in self._named_processes()
        ]
        write_private(self._record, json.dumps(rows) + "\n")


def stop_leftovers(record: Path, seconds: float) -> list[str]:
    """Stop the children that a killed supervisor has left; their names. Known by pid and start time together."""
    try:
        rows = json.loads(record.read_text(encoding="utf-8"))
        found = [
            (str(row["name"]), Process(int(row["pid"])))
            for row in rows
            if row["started"] is not None and started(int(row["pid"])) == row["started"]
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        log.get_logger().warning("children_record_unreadable", path=str(record))
        return []
    for _, process in found:
        process.signal(signal.SIGTERM)
    end = monotonic() + seconds
    for _, process in found:
        if not process.wait(max(end - monotonic(), 0.0)):
            process.signal(signal.SIGKILL, group=True)
            process.wait(5)
    record.unlink(missing_ok=True)
    return [name for name, _ in found]

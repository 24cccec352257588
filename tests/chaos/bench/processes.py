"""Processes in slots, under a supervisor that starts again what ends, as a platform does with ``restart: always``.

A slot, such as ``worker2``, is a place for a process; its processes are called ``worker2.1``, ``worker2.2`` …, and
so do attempts name their worker.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from jobsched.testing.stand import Stand
from tests.chaos.bench.timeline import Timeline

Kind = Literal["api", "poller", "worker"]

#: The pause before a process is started again; doubled each time that it had lived less than SHORT_LIFE seconds.
FIRST_PAUSE, LONGEST_PAUSE, SHORT_LIFE = 0.5, 5.0, 5.0

_TICK = 0.03


@dataclass(slots=True)
class Slot:
    name: str
    kind: Kind
    arguments: tuple[str, ...]
    number: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    start_at: float = 0.0
    pause: float = FIRST_PAUSE
    held: bool = False
    #: Of the next process only; the one after it starts as usual.
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def process_name(self) -> str:
        return f"{self.name}.{self.number}"


class Processes:
    """The slots of a stand. ``begin`` starts them; the stand ends what runs in them."""

    def __init__(self, stand: Stand, timeline: Timeline, closing: threading.Event) -> None:
        self.stand = stand
        self.timeline = timeline
        #: Set when all is to end: whoever waits is to stop waiting.
        self.closing = closing
        self._slots: dict[str, Slot] = {}
        self._lock = threading.RLock()
        self._frozen: set[int] = set()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def add(self, name: str, kind: Kind, *arguments: str) -> None:
        """A slot for ``jobsched`` with these arguments; before ``begin``."""
        self._slots[name] = Slot(name, kind, arguments)

    def begin(self) -> None:
        """Start all, and keep them running."""
        self._supervisor.start()

    def end(self) -> None:
        """Start nothing more, and let what is frozen go. ``closing`` is set by now."""
        if self._supervisor.is_alive():
            self._supervisor.join(30)
        for pid in list(self._frozen):
            self.thaw_process(pid)

    def slots(self, kind: Kind | None = None) -> list[str]:
        """The names of the slots of this kind, or of all."""
        return [slot.name for slot in self._slots.values() if kind in (None, slot.kind)]

    def process(self, slot: str) -> "subprocess.Popen[bytes] | None":
        """The process of a slot, None between an end and the next start."""
        return self._slots[slot].process

    def process_name(self, slot: str) -> str:
        """What the slot's present or last process is called."""
        return self._slots[slot].process_name

    def kill(self, slot: str) -> str:
        """End the slot's process and its children with SIGKILL, wait for its start if need be. Returns its name."""
        process, name = self._running(slot)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        self._frozen.discard(process.pid)
        return name

    def terminate(self, slot: str, timeout: float = 60.0) -> str:
        """SIGTERM; returns the name of the process that has ended, once the next one is started.

        One that stops itself at a fail point meanwhile, later than anybody waited for it, ends as well.
        """
        process, name = self._running(slot)
        signal_process(process.pid, signal.SIGTERM)
        self._await_other(slot, process, timeout)
        return name

    def freeze(self, slot: str) -> str:
        """SIGSTOP to the slot's process and its children; returns its name."""
        process, name = self._running(slot)
        self._frozen.add(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGSTOP)
        return name

    def thaw(self, slot: str) -> None:
        """SIGCONT to the slot's process and its children; none is no error."""
        process = self._slots[slot].process
        if process is not None:
            self._frozen.discard(process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)

    def restart_with(self, slot: str, **environment: str) -> str:
        """Stop the slot's process in order and start it with these variables too; returns the new name.

        The process after that one starts without them again.
        """
        with self._lock:
            self._slots[slot].environment = dict(environment)
        self.terminate(slot)
        return self.process_name(slot)

    @contextlib.contextmanager
    def holding(self, *slots: str) -> Iterator[None]:
        """What ends in these slots is not started again before the block is over."""
        with self._lock:
            for slot in slots:
                self._slots[slot].held = True
        try:
            yield
        finally:
            with self._lock:
                for slot in slots:
                    self._slots[slot].held = False

    def freeze_process(self, pid: int) -> None:
        """SIGSTOP to a server's process; undone by ``thaw_process``, at the latest when the cluster ends."""
        self._frozen.add(pid)
        signal_process(pid, signal.SIGSTOP)

    def thaw_process(self, pid: int) -> None:
        """SIGCONT; a process that has ended is no error."""
        self._frozen.discard(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGCONT)
        signal_process(pid, signal.SIGCONT)

    def _supervise(self) -> None:
        while not self.closing.wait(_TICK):
            for slot in self._slots.values():
                with self._lock:
                    self._look_at(slot, time.monotonic())

    def _look_at(self, slot: Slot, now: float) -> None:
        process = slot.process
        if process is not None and (code := process.poll()) is not None:
            self.timeline.add("ended", f"{slot.process_name} with {code}")
            self.stand.wait_for_end(slot.process_name)
            # What its children left running would sit on its port.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            self._frozen.discard(process.pid)
            slot.process = None
            slot.pause = min(slot.pause * 2, LONGEST_PAUSE) if now - slot.began < SHORT_LIFE else FIRST_PAUSE
            slot.start_at = now + slot.pause
        if slot.process is None and now >= slot.start_at and not slot.held:
            slot.number += 1
            named = ("--name", slot.process_name) if slot.kind == "worker" else ()
            environment, slot.environment = slot.environment, {}
            slot.process = self.stand.start(slot.process_name, *slot.arguments, *named, **environment)
            slot.began = now
            told = "".join(f" {name}={value}" for name, value in environment.items())
            self.timeline.add("started", f"{slot.process_name} as {slot.process.pid}{told}")

    def _running(self, slot: str, timeout: float = 20.0) -> "tuple[subprocess.Popen[bytes], str]":
        end = time.monotonic() + timeout
        while True:
            with self._lock:
                found = self._slots[slot]
                if found.process is not None and found.process.poll() is None:
                    return found.process, found.process_name
            assert time.monotonic() < end, f"{slot} does not run"
            self.closing.wait(_TICK)

    def _await_other(self, slot: str, process: "subprocess.Popen[bytes]", timeout: float) -> None:
        end = time.monotonic() + timeout
        while self._slots[slot].process in (None, process):
            assert time.monotonic() < end, f"{slot}: not restarted within {timeout:g} s"
            if process.pid not in self._frozen and process.poll() is None:
                signal_process(process.pid, signal.SIGCONT)
            self.closing.wait(_TICK)


def children_of(pid: int) -> list[int]:
    """The processes that this one has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(each) for each in listed.stdout.split()]


def signal_process(pid: int, number: int) -> None:
    """Signal a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def lives(process: "subprocess.Popen[bytes] | None") -> bool:
    """Whether there is one, and it runs."""
    return process is not None and process.poll() is None

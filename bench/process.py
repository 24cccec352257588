"""What processes cost, as Linux counts it: processor time and memory, of one or of a whole tree."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, user and system, and of its children that have ended and were waited for.

    0.0 if it is gone: its time then stands in its parent's. To the hundredth of a second.
    """
    fields = _stat(pid)
    return sum(int(field) for field in fields[11:15]) / _TICKS if fields else 0.0


def cpu_of(pids: Iterable[int]) -> float:
    """Processor time of several processes."""
    return sum(map(cpu_seconds, pids))


def scheduled(pids: Iterable[int]) -> tuple[float, float]:
    """Seconds that all threads of these processes have computed, and those that they were ready to and had no core.

    To the nanosecond (schedstat); what has ended is not in it. Both 0.0 where the kernel does not count.
    """
    computed = waited = 0
    for pid in pids:
        for path in (_PROC / str(pid)).glob("task/*/schedstat"):
            try:
                fields = path.read_text().split()
            except OSError:
                continue
            computed += int(fields[0])
            waited += int(fields[1])
    return computed / 1e9, waited / 1e9


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, itself first; empty if it is gone."""
    children: Mapping[int, list[int]] = _children()
    found = [pid] if _stat(pid) else []
    for one in found:
        found += children.get(one, [])
    return found


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes, each shared page divided by how many share it (Pss of smaps_rollup).

    The one measure that can be added up over a tree. A process that is gone counts nothing. Reading it takes the
    process's memory map for milliseconds: not more often than a few times a second.
    """
    total = 0
    for pid in pids:
        try:
            text = (_PROC / str(pid) / "smaps_rollup").read_text()
        except (OSError, ValueError):
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second, a name, may hold spaces. Empty: gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            found[int(fields[1])].append(int(entry.name))
    return found

"""What figures were measured on: the machine and the versions of everything that has a part in them."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pycurl

from jobsched.embedded import binaries
from jobsched.embedded.account import choose

_ROOT = Path(__file__).parents[1]
_LIBRARIES = ("psycopg", "redis", "rq", "flask", "gunicorn")


def describe() -> dict[str, str | int | float]:
    """The machine and the versions, as they stand in every result."""
    account = choose(_ROOT)
    return {
        "cpu": _first(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo")) or platform.processor() or "unknown",
        "cores": os.cpu_count() or 0,
        "memory_gb": round(int(_first(r"^MemTotal:\s*(\d+) kB$", Path("/proc/meminfo")) or 0) / 1e6, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": _said(binaries.postgres_programs(account) / "postgres", "--version"),
        "valkey": _said(binaries.valkey_server(account), "--version"),
        "libcurl": pycurl.version_info()[1],
        "jobsched": _commit(),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES),
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).date().isoformat(),
    }


def in_words(machine: dict[str, str | int | float]) -> str:
    """The machine in one sentence."""
    return (
        f"{machine['date']}, {machine['cores']} × {machine['cpu']}, {machine['memory_gb']} GB, {machine['kernel']}; "
        f"Python {machine['python']}, Postgres {machine['postgres']}, Valkey {machine['valkey']}, "
        f"libcurl {machine['libcurl']}; jobsched {machine['jobsched']}."
    )


def _first(pattern: str, path: Path) -> str | None:
    try:
        found = re.search(pattern, path.read_text(), re.M)
    except OSError:
        return None
    return found.group(1).strip() if found else None


def _said(*command: str | Path) -> str:
    """The first number with dots that a program calls its version."""
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group() if found else "unknown"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


def _commit() -> str:
    """The commit, marked where the package differs from it."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", "jobsched", "migrations")
    return (commit or "unknown") + (" with changes" if changed else "")


def _git(*arguments: str) -> str:
    command: Sequence[str] = ("git", "-C", str(_ROOT), *arguments)
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""

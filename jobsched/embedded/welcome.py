"""What ``jobsched up`` prints once everything is ready."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from jobsched.config import default_data_dir


def lines(*, address: str, folder: Path, seconds: float, degraded: bool, loopback: bool) -> list[str]:
    """The address, where the key is, and three commands to paste."""
    ours = command(folder)
    width = max(len(name) for name, _ in _FIELDS)
    values = {
        "address": f"{address}  (API reference: {address}/docs)",
        "key": str(folder / "api-key"),
        "register a job": f"{ours} jobs create --schedule '@every 10s' --method GET --api {address}/health",
        "watch it": f"{ours} executions list",
        "stop": f"kill {os.getpid()}  (or Ctrl-C here)",
    }
    text = [
        "",
        f"jobsched is ready after {seconds:.1f} s{', but degraded: see /ready' if degraded else ''}.",
        "",
    ]
    for name, gap in _FIELDS:
        text.append(f"  {name:<{width}}  {values[name]}")
        if gap:
            text.append("")
    if loopback:
        text += [
            "Callbacks may call this machine itself (127.0.0.0/8, ::1/128), and no private networks;",
            "JOBSCHED_ALLOW_TARGETS changes that.",
            "",
        ]
    return text


_FIELDS = (("address", False), ("key", True), ("register a job", False), ("watch it", False), ("stop", True))


def command(folder: Path) -> str:
    """How to call our command line from this very terminal, so that it finds this data folder."""
    beside = Path(sys.executable).with_name("jobsched")
    found = shutil.which("jobsched")
    program = "jobsched" if found and Path(found).resolve() == beside.resolve() else shlex.quote(str(beside))
    if folder == default_data_dir():
        return program
    return f"JOBSCHED_DATA_DIR={shlex.quote(str(folder))} {program}"

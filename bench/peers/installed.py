"""The peers' libraries, installed at first use under .bench/ and again when their lists change."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_HERE = Path(__file__).parent
_KEPT = Path(__file__).parents[2] / ".bench"
_REQUIREMENTS = _HERE / "requirements.txt"
_NODE_FOLDER = _HERE / "bullmq"
_NODE_FILES = ("package.json", "package-lock.json", "worker.js", "fill.js")

MISSING_NODE = (
    "BullMQ needs node (20.18 or newer) and npm, which were not found. Debian, Ubuntu: apt install nodejs npm; "
    "or leave it out: scripts/bench deliver --sides jobsched,arq"
)


def python() -> Path:
    """The interpreter of the virtual environment that has the Python peers."""
    folder = _KEPT / "peers"

    def install() -> None:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "install", "--requirement", str(_REQUIREMENTS)])

    _once(folder, [_REQUIREMENTS], install, sys.version)
    return folder / "bin" / "python"


def node_folder() -> Path:
    """A folder with BullMQ's programs and the libraries they import. FileNotFoundError where there is no node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise FileNotFoundError(MISSING_NODE)
    folder = _KEPT / "bullmq"
    files = [_NODE_FOLDER / name for name in _NODE_FILES]

    def install() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        # Not "npm ci": it refuses a lock without the optional parts for every other system.
        _run(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder)])

    _once(folder, files, install)
    return folder


def python_versions(*names: str) -> dict[str, str]:
    """The pinned versions of these libraries."""
    pinned = {}
    for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        name, found, version = line.partition(" == ")
        if found:
            pinned[name.partition("[")[0]] = version
    return {name: pinned[name] for name in names}


def node_versions() -> dict[str, str]:
    """The pinned versions of BullMQ and its libraries, and of node."""
    pinned: dict[str, str] = json.loads((_NODE_FOLDER / "package.json").read_text())["dependencies"]
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return pinned | {"node": said.lstrip("v")}


def _once(folder: Path, lists: list[Path], install: Callable[[], None], more: str = "") -> None:
    """Install unless what stands in ``folder`` was made from these very lists."""
    digest = hashlib.sha256(more.encode())
    for path in lists:
        digest.update(path.read_bytes())
    stamp = folder / ".installed"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        install()
        stamp.write_text(digest.hexdigest())


def _run(command: list[str]) -> None:
    """Run to the end; RuntimeError with the end of what it said if it fails."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … failed: {ran.stdout[:1000]}…{ran.stdout[-1000:]}")

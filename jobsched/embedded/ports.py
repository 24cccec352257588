"""Free TCP ports on this machine, and the small files in which servers' ports and secrets are kept."""

import os
import socket
import tempfile
from pathlib import Path

from jobsched.config import generate_secret

LOOPBACK = "127.0.0.1"


def free_port(preferred: int | None = None) -> int:
    """``preferred`` if nobody listens there, else any free port. It may be taken again before it is used."""
    if preferred is not None:
        try:
            return _bind(preferred)
        except OSError:
            pass
    return _bind(0)


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this port of the loopback interface."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=2).close()
    except OSError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, all or nothing: a reader sees the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_number(path: Path) -> int | None:
    """The number on the first line of a file; None where there is no file or no number."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        line = file.readline(40).strip()
    return int(line) if line.isdecimal() else None


def kept_secret(path: Path) -> str:
    """The secret in this file, made at the first call."""
    try:
        found = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = generate_secret()
        write_private(path, found + "\n")
    return found


def _bind(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        return int(probe.getsockname()[1])

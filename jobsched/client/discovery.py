"""Where the API is and which key opens it, when the caller does not say.

The one module beside ``jobsched.config`` that reads ``os.environ``: the client imports nothing else of
jobsched, so it looks up its two variables itself. In this order:

1. the arguments of ``Client``;
2. ``JOBSCHED_URL`` and ``JOBSCHED_API_KEY`` (or ``…_FILE``, which names a file holding the value);
3. ``url`` and ``api-key`` in the data folder of a local ``jobsched up`` (``JOBSCHED_DATA_DIR``, else the
   platform's place);
4. ``http://127.0.0.1:8080`` without a key.

The key of the data folder is an admin key. It is sent only to the server that wrote it, never to an address
that merely happens to be configured: a wrong JOBSCHED_URL must not leak it.
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"


def find_server(url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """The base URL, without a slash at its end, and the key, or None if there is none.

    Raises ValueError for an address that is no http(s) URL, a key that no header can carry, and a file
    named by a ``…_FILE`` variable that cannot be read.
    """
    local_url = _line(data_dir() / "url")
    base = _checked_url(url or _variable("JOBSCHED_URL") or local_url or DEFAULT_URL)
    key = api_key or _variable("JOBSCHED_API_KEY")
    if key is None and local_url is not None and _same_server(base, local_url):
        key = _line(data_dir() / "api-key")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("The API key holds characters that no key has. Was it copied whole, on one line?")
    return base, key


def data_dir() -> Path:
    """The folder in which a ``jobsched up`` of this user keeps its address and key."""
    if given := os.environ.get("JOBSCHED_DATA_DIR"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/jobsched")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "jobsched"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "jobsched"


def _checked_url(url: str) -> str:
    hint = f"{url!r} is not the address of a server; write it like https://jobs.example.com."
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(hint) from None
    # A name and password in front of the host would end in logs and error messages; the key is the way in.
    if parts.username is not None:
        raise ValueError("The server's address holds a user name or password; give an API key instead.")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(hint)
    return url.rstrip("/")


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine by its usual names."""
    return host in {"localhost", "127.0.0.1", "::1"}


def _same_server(left: str, right: str) -> bool:
    try:
        return _origin(left) == _origin(right)
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    host = "loopback" if is_loopback(parts.hostname) else (parts.hostname or "")
    return parts.scheme, host, parts.port, parts.path.rstrip("/")


def _line(path: Path) -> str | None:
    """The text of a small file, or None where there is none that we may read."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _variable(name: str) -> str | None:
    direct, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if direct and path:
        raise ValueError(f"{name} and {name}_FILE are both set; keep one.")
    if not path:
        return (direct or "").strip() or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{name}_FILE: cannot read {path}: {reason}.") from error

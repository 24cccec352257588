"""What ``jobsched up`` asks about the address that its API listens on."""

import contextlib
import errno
import http.client
import json
import socket

from jobsched.errors import EmbeddedServerError

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def address(host: str, port: int) -> str:
    """The URL under which a program on this machine reaches the API."""
    name = _EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def free_listening_port(host: str, port: int) -> int:
    """``port`` if we can listen there (0: any free one). Raises EmbeddedServerError with what to do."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EmbeddedServerError(
                f"Port {port} on {host} is taken by another program. Stop that one, "
                f"or choose another port: jobsched up --port {port + 1 if port < 65535 else 8080}"
            ) from error
        if error.errno == errno.EACCES:
            raise EmbeddedServerError(
                f"This user may not listen on port {port}. Choose one above 1023: jobsched up --port 8080"
            ) from error
        raise EmbeddedServerError(f"Cannot listen on {host}, port {port}: {error.strerror}.") from error


def ready(host: str, port: int) -> str | None:
    """The ``status`` of /ready, or None while the API does not answer or is not ready."""
    code, body = _get(host, port, "/ready", {})
    if code != http.client.OK:
        return None
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get("status"))
    return None


def key_refused(host: str, port: int, key: str) -> bool:
    """Whether the API says 401 to this key. No answer is no refusal."""
    code, _ = _get(host, port, "/api/v1/jobs?limit=1", {"Authorization": f"Bearer {key}"})
    return code == http.client.UNAUTHORIZED


def _get(host: str, port: int, path: str, headers: dict[str, str]) -> tuple[int | None, bytes]:
    connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(65536)
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()

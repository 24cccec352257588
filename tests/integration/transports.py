"""What the tests of the transport share: calls, names, certificates, and servers that answer a few bytes."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobsched.callback import Call, Guard, Resolver, Result, Transport
from jobsched.clock import monotonic
from jobsched.worker.deliver import Deliver
from jobsched.worker.strands import Strands

LOOPBACK = Guard([ip_network("127.0.0.0/8"), ip_network("::1/128")])

_OPENSSL = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=jobsched test")

_ids = count(1)


def call(url: str, method: str = "POST", body: bytes | None = b"{}", **given) -> Call:
    """A call with an execution id of its own and a timeout of 5 s."""
    headers = given.pop("headers", (("User-Agent", "test"),))
    values = {"timeout_seconds": 5.0, "job_headers": headers, "own_headers": ""}
    return Call(execution_id=next(_ids), attempt=1, method=method, url=url, body=body, **(values | given))


#: Whether the transports of a test carry plain HTTP by themselves: see the fixture ``both_carriers``.
own_wire = True


def open_transport(guard: Guard = LOOPBACK, resolver: Resolver | None = None, **given) -> Transport:
    given = {"own_wire": own_wire} | given
    return Transport(concurrency=100, guard=guard, resolver=resolver or Resolver(threads=4), **given)


def run(transport: Transport, calls: Sequence[Call], timeout: float = 15.0) -> list[Result]:
    """Send all ``calls`` at once; their results in the same order."""
    for each in calls:
        transport.start(each)
    results = {result.call.execution_id: result for result in drain(transport, len(calls), timeout)}
    return [results[each.execution_id] for each in calls]


def drain(transport: Transport, n: int, timeout: float = 15.0) -> list[Result]:
    """Turn until ``n`` calls have ended."""
    ended: list[Result] = []
    end = monotonic() + timeout
    while len(ended) < n:
        assert monotonic() < end, f"{len(ended)} of {n} calls ended within {timeout} s"
        ended += transport.turn(0.5)
    return ended


def send(transport: Transport, url: str, method: str = "POST", body: bytes | None = b"{}", **given) -> Result:
    return run(transport, [call(url, method, body, **given)])[0]


def resolving(*answers: list[str], ttl: float = 30.0) -> Resolver:
    """A resolver whose successive lookups give ``answers``, the last one for ever."""
    left = list(answers)

    def lookup(host, port, **kinds):
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in addresses]

    return Resolver(threads=1, ttl=ttl, lookup=lookup)


def certificate(folder: Path, name: str, *, days: str = "2") -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for ``name``, and a server's context that shows it."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    names = f"subjectAltName=DNS:{name}"
    subprocess.run(
        [*_OPENSSL, "-days", days, "-addext", names, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    # The server would rather speak HTTP/2; a client that offered it could not go on.
    context.set_alpn_protocols(["h2", "http/1.1"])
    return cert, context


@contextmanager
def running_strands() -> Iterator[Strands]:
    """Strands on a delivering thread of their own, as in a worker."""
    strands = Strands()
    deliver = Deliver(open_transport, lambda *_: None, strands=strands)
    deliver.begin()
    try:
        yield strands
    finally:
        deliver.end(5)


def in_strand(strands: Strands, act: Callable[[], Any], timeout: float = 15.0) -> Any:
    """What ``act`` returns or raises in a strand."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(act())
        except BaseException as error:
            found.set_exception(error)

    strands.add("test", run).begin()
    return found.result(timeout)


def raw(answer: bytes) -> str:
    """A path of the target that answers with exactly these bytes and closes."""
    return f"/raw?bytes={quote(answer)}"


@contextmanager
def serving(answer: bytes):
    """A server for one connection, which answers its first bytes, whatever they are, with ``answer``."""

    def serve():
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join(5)

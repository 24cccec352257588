"""What the tests of the transport share: building calls, sending one, sending many."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from itertools import count
from typing import Any
from urllib.parse import quote

from jobsched.callback import Call, Guard, Resolver, Result, Transport
from jobsched.clock import monotonic
from jobsched.worker.deliver import Deliver
from jobsched.worker.strands import Strands

LOOPBACK = Guard([ip_network("127.0.0.0/8"), ip_network("::1/128")])

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

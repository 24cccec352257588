"""gunicorn as we run it: real sockets, real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.conftest import eventually

SERVE = """
import sys, time
from flask import Flask, request
from jobsched import log
from jobsched.config import Settings
from jobsched.web import errors
from jobsched.web.body import read_bytes, read_chunks
from jobsched.web.server import Worker, serve

def make():
    app = Flask("test")
    @app.route("/", methods=["GET", "POST"])
    def root():
        return {"bytes": len(request.get_data())}
    @app.post("/body")
    def body():
        return {"bytes": len(read_bytes())}
    @app.post("/chunks")
    def chunks():
        return {"bytes": sum(map(len, read_chunks(1000)))}
    errors.register(app)
    @app.get("/slow")
    def slow():
        print("slow", flush=True)
        time.sleep(0.7)
        return "slow"
    return app

if "late" in sys.argv:
    begin = Worker.init_signals
    Worker.init_signals = lambda worker: (time.sleep(0.5), begin(worker))

log.configure(json=True, process="api")
sys.exit(serve(make, Settings(host="127.0.0.1", port=int(sys.argv[1]), api_threads=2, shutdown_grace=8)))
"""


@contextmanager
def served(*how: str) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """A server with two threads in a process of its own; its port and the process."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port), *how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WEB_CONCURRENCY": "3", "GUNICORN_CMD_ARGS": "--workers 4"},
    )
    try:
        eventually(lambda: _connects(port))
        yield port, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=15)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that the tests of this module share."""
    with served() as (port, _process):
        yield port


def _connects(port: int) -> None:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError as error:
        raise AssertionError("no server yet") from error


def send(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to raw bytes, after which the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


HEAD = b"Host: x\r\nConnection: close\r\n"


def test_the_server_does_not_name_its_software(port: int) -> None:
    head, body = send(port, b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert b"200 OK" in head
    assert b"gunicorn" not in head.lower()
    assert json.loads(body) == {"bytes": 0}


BROKEN = {
    b"\x00\x01\r\n\r\n": 400,
    b"get / HTTP/1.1\r\n\r\n": 400,
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n": 414,
    b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n": 431,
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(150)) + b"\r\n": 431,
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab": 400,
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: miracles\r\n\r\na": 417,
}


def test_what_is_no_request_gets_a_problem_document_too(port: int) -> None:
    for request, status in BROKEN.items():
        head, body = send(port, request)
        assert head.startswith(b"HTTP/1.1 %d" % status), request[:60]
        assert b"application/problem+json" in head
        problem = json.loads(body)
        assert problem["status"] == status
        assert f"X-Request-Id: {problem['requestId']}".encode() in head


@pytest.mark.parametrize("path", ["/body", "/chunks"])
def test_a_body_that_ends_before_its_announced_length_is_refused(port: int, path: str) -> None:
    for sent, status in [(b"x" * 10, 200), (b"x" * 9, 400), (b"", 400)]:
        request = b"POST %b HTTP/1.1\r\nContent-Length: 10\r\n%b\r\n%b" % (path.encode(), HEAD, sent)
        head, body = send(port, request)
        assert head.startswith(b"HTTP/1.1 %d" % status), head
        assert (b"invalid_body" in body) == (status == 400)


def test_idle_connections_take_no_threads(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    began = time.monotonic()
    head, _ = send(port, b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert b"200 OK" in head
    assert time.monotonic() - began < 1
    for connection in idle:
        connection.close()


def test_clients_that_drip_are_cut_off(port: int) -> None:
    dripping = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    for connection in dripping:
        connection.sendall(b"GET / HT")
    began = time.monotonic()
    head, _ = send(port, b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert b"200 OK" in head
    assert time.monotonic() - began < 8
    for connection in dripping:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_in_flight_and_ends_with_0(number: signal.Signals) -> None:
    with served() as (port, process):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(b"GET /slow HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert process.stdout is not None
        assert process.stdout.readline() == "slow\n"
        process.send_signal(number)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        connection.close()
        _, log = process.communicate(timeout=15)
    assert answer.endswith(b"slow")
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["process"] for line in lines} == {"api"}
    assert sum("Booting worker" in line["event"] for line in lines) == 1


def test_a_stop_that_comes_before_the_serving_process_has_handlers_is_not_lost() -> None:
    with served("late") as (_port, process):
        assert process.stderr is not None
        while "Booting worker" not in process.stderr.readline():
            pass
        began = time.monotonic()
        process.terminate()
        assert process.wait(15) == 0
    assert time.monotonic() - began < 2.5  # what is left at 3 s is killed

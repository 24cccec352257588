"""Plain HTTP on connections of the transport's own: what is theirs alone. The rest is in test_transport*.py."""

import os
import socket
import threading
import time
from contextlib import suppress

import pytest

from jobsched.callback import Resolver
from jobsched.clock import monotonic
from jobsched.testing.target import Target
from tests.integration.test_transport_guard import resolving
from tests.integration.test_transport_tls import certificate
from tests.integration.transports import call, drain, open_transport, run, send


@pytest.fixture(scope="module")
def target():
    with Target() as running:
        yield running


@pytest.fixture
def transport(target):
    target.reset()
    opened = open_transport()
    yield opened
    opened.close()


def test_libcurl_carries_only_what_the_wire_cannot(transport, target):
    assert send(transport, target.url + "/ok").status == 200
    assert transport._free == [], "libcurl was used"
    several = open_transport(resolver=resolving(["127.0.0.3", "127.0.0.1"]))
    assert send(several, f"http://two.example:{target.port}/ok").status == 200
    assert len(several._free) == 1
    several.close()


def test_a_redirect_leads_from_one_carrier_to_the_other(target, tmp_path):
    target.reset()
    cert, context = certificate(tmp_path, "good.example")
    resolver = Resolver(threads=1, lookup=lambda _host, port, **_kinds: [(2, 1, 6, "", ("127.0.0.1", port))])
    with Target(tls=context) as secured:
        transport = open_transport(resolver=resolver, ca_bundle=str(cert))
        there = f"https://good.example:{secured.port}/ok"
        result = send(transport, f"{target.url}/redirect?status=307&to={there}", follow_redirects=True)
        assert (result.status, result.body, secured.count) == (200, b"ok\n", 1)
        assert result.phases.tls_ms > 0
        transport.close()
    resolver.close()


@pytest.mark.parametrize("linger", [True, False])
def test_an_answer_that_comes_before_the_body_was_read_is_taken(transport, linger):
    """A target that refuses a large body answers, and then closes, or reads no further."""
    done = threading.Event()

    def serve():
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\n")
            if linger:
                done.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        thread = threading.Thread(target=serve)
        thread.start()
        result = send(transport, f"http://127.0.0.1:{server.getsockname()[1]}/", body=b"x" * 20_000_000)
        done.set()
        thread.join(5)
    if linger:
        assert (result.status, result.body) == (413, b"no\n")
    else:
        # A close with unread bytes may destroy the answer on its way (RFC 9112, section 9.6).
        assert result.status == 413 or (result.error_code, result.sent) == ("protocol_error", True)
    assert transport._wire._kept == 0


def test_a_connection_that_ends_between_the_look_and_the_request_is_replaced(transport, target):
    assert send(transport, target.url + "/ok").status == 200
    [[kept]] = transport._wire._idle.values()
    # As if it had ended after the look: nobody hears of it, and the first byte cannot be sent.
    transport._watch.unlisten(kept.fd)
    kept.sock.shutdown(socket.SHUT_WR)
    begun = target.connections_made
    result = send(transport, target.url + "/ok")
    assert (result.status, target.count, target.connections_made) == (200, 2, begun + 1)


def test_an_idle_connection_is_closed_after_a_second(transport, target):
    before = len(os.listdir("/proc/self/fd"))
    assert {
        result.status for result in run(transport, [call(target.url + "/slow/20") for _ in range(20)])
    } == {200}
    assert transport._wire._kept > 0
    end = monotonic() + 2.5
    while monotonic() < end:
        transport.turn(0.5)
    assert (transport._wire._kept, transport._wire._idle) == (0, {})
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert transport._wire._sweep_at == float("inf"), "an idle transport wakes up for nothing"


def test_no_more_connections_are_kept_than_there_are_seats(target):
    transport = open_transport()
    transport._wire._most_kept = 5
    run(transport, [call(target.url + "/slow/50") for _ in range(20)])
    assert transport._wire._kept == 5
    transport.close()


def test_names_that_share_an_address_do_not_share_connections(target):
    target.reset()
    made = target.connections_made
    transport = open_transport(resolver=resolving(["127.0.0.1"]))
    for name in ("one.example", "two.example", "one.example"):
        assert send(transport, f"http://{name}:{target.port}/ok").status == 200
    assert target.connections_made == made + 2
    assert [arrival.headers["host"].split(".")[0] for arrival in target.arrivals] == ["one", "two", "one"]
    transport.close()


def test_each_call_ends_at_its_own_timeout(transport, target):
    calls = [call(target.url + "/hang", timeout_seconds=0.2 + n / 500) for n in range(200)]
    for result in run(transport, calls):
        assert result.error_code == "timeout"
        assert 0 <= result.phases.total_ms / 1000 - result.call.timeout_seconds < 0.15


def test_a_connection_that_is_not_made_in_time_has_sent_nothing(transport):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        # The backlog takes one or two; to those that come after them the kernel says nothing.
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        time.sleep(0.1)
        short = call(url, connect_timeout_seconds=0.3)
        gone = call(url)
        transport.start(short)
        transport.start(gone)
        [first] = drain(transport, 1)
        assert (first.error_code, first.sent) == ("connect_failed", False)
        assert "within 0.3 s" in first.error_message
        assert 300 <= first.phases.total_ms < 600
        assert transport.abort(gone.execution_id, "cancelled", "Enough.")
        [second] = transport.turn(0)
        assert (second.error_code, second.sent) == ("cancelled", False)
        for one in fill:
            one.close()

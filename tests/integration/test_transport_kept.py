"""Kept connections: used again while they are good, and never once the target has closed them."""

import os
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress

import pytest

from jobsched.clock import monotonic
from jobsched.testing.target import Target
from tests.integration.transports import call, certificate, open_transport, raw, resolving, run, send

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
# Complete, and without a word of the close that follows it.
_CLOSES = raw(_OK)
_CUT = "/cut-headers"


pytestmark = pytest.mark.usefixtures("both_carriers")


@contextmanager
def chatting(*later: bytes):
    """A server whose first connection gets ``later`` some time after its answer; the others are answered well."""
    got: list[bytes] = []

    def serve():
        number = 0
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, number), daemon=True).start()
            number += 1

    def answer(connection, number):
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                got.append(data)
                connection.sendall(_OK)
                for piece in later if number == 0 else ():
                    time.sleep(0.05)
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as server:
        acceptor = threading.Thread(target=serve, daemon=True)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/", got
        finally:
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)


@pytest.mark.parametrize("gap", [0.05, 0.3, 0.7, 1.3])
@pytest.mark.parametrize("before", [_CLOSES, _CUT])
def test_a_connection_that_the_target_has_closed_is_not_used_again(transport, target, before, gap):
    for n in range(3):
        send(transport, target.url + before)
        time.sleep(gap)
        result = send(transport, target.url + "/echo", "PUT", b"%d" % n)
        assert (result.status, result.error_code, result.sent) == (200, None, True)
        assert result.phases.connect_ms > 0
    assert [arrival.body for arrival in target.arrivals if arrival.path == "/echo"] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("before", [_CLOSES, _CUT])
def test_many_calls_on_closed_connections_each_arrive_once(transport, target, before):
    for round_ in range(5):
        run(transport, [call(target.url + before) for _ in range(50)])
        time.sleep(0.1)
        calls = [call(target.url + "/echo", body=b"%d.%d" % (round_, n)) for n in range(50)]
        assert Counter(result.status for result in run(transport, calls)) == {200: 50}
    seen = Counter(arrival.body for arrival in target.arrivals if arrival.path == "/echo")
    assert len(seen) == 250
    assert set(seen.values()) == {1}


def test_the_second_connection_has_what_is_left_of_the_same_timeout(transport, target):
    send(transport, target.url + _CLOSES)
    time.sleep(0.1)
    result = send(transport, target.url + "/hang", timeout_seconds=0.6)
    assert (result.error_code, result.sent) == ("timeout", True)
    assert 600 <= result.phases.total_ms <= 1100
    assert target.count == 2


def test_a_target_that_went_away_has_been_sent_nothing():
    transport = open_transport()
    with Target() as target:
        assert send(transport, target.url + "/ok").status == 200
    result = send(transport, target.url + "/ok")
    assert (result.error_code, result.sent) == ("connect_failed", False)
    transport.close()


def test_what_a_target_says_unasked_is_not_taken_for_the_next_calls_answer(transport):
    forged = b"HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nforged"
    with chatting(forged) as (url, got):
        assert send(transport, url).body == b"ok\n"
        time.sleep(0.2)
        result = send(transport, url)
        assert (result.status, result.body) == (200, b"ok\n")
        assert len(got) == 2


def test_a_hop_of_a_redirect_also_finds_its_connection_closed(transport, target):
    with Target(host="127.0.0.2") as other:
        send(transport, target.url + _CLOSES)
        time.sleep(0.1)
        url = f"{other.url}/redirect?status=307&to={target.url}/ok"
        for _ in range(2):
            assert send(transport, url, follow_redirects=True).status == 200
        assert (other.count, target.count) == (2, 3)
        assert other.connections_made == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_good_connections_are_used_again(host):
    with Target(host=host) as target:
        transport = open_transport()
        for _ in range(30):
            assert send(transport, target.url + "/ok").status == 200
        assert target.connections_made == 1
        for _ in range(20):
            calls = [call(target.url + "/slow/1") for _ in range(20)]
            assert {result.status for result in run(transport, calls)} == {200}
        assert target.connections_made <= 25
        transport.close()


def test_good_connections_to_a_proxy_are_used_again(target):
    transport = open_transport(proxy=target.url)
    made = target.connections_made
    for _ in range(5):
        assert send(transport, "http://internal.invalid/ok").status == 404
    assert target.connections_made == made + 1
    transport.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_with_tls_good_connections_are_used_again_and_closed_ones_are_not(tmp_path, version):
    cert, context = certificate(tmp_path, "good.example")
    context.minimum_version = context.maximum_version = version
    resolver = resolving(["127.0.0.1"])
    with Target(tls=context) as target:
        transport = open_transport(resolver=resolver, ca_bundle=str(cert))
        url = f"https://good.example:{target.port}"
        for n in range(20):
            assert send(transport, url + "/ok").status == 200
            # Late session tickets would show here.
            time.sleep(0.1 if n < 3 else 0)
        assert target.connections_made == 1
        for _ in range(5):
            assert send(transport, url + _CUT).error_code == "protocol_error"
            time.sleep(0.1)
            result = send(transport, url + "/echo")
            assert (result.status, result.error_code) == (200, None)
            assert result.phases.tls_ms > 0
        transport.close()
        assert sum(arrival.path == "/echo" for arrival in target.arrivals) == 5
    resolver.close()


@pytest.mark.parametrize("notify", [True, False])
def test_with_tls_a_connection_closed_after_its_answer_is_not_used_again(tmp_path, notify):
    cert, context = certificate(tmp_path, "good.example")
    resolver = resolving(["127.0.0.1"])
    got = []

    def serve():
        with suppress(OSError):
            while True:
                plain, _ = server.accept()
                with context.wrap_socket(plain, server_side=True) as connection:
                    got.append(connection.recv(65536))
                    connection.sendall(_OK)
                    if notify:
                        connection.setblocking(False)
                        with suppress(ssl.SSLWantReadError):
                            connection.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as server:
        acceptor = threading.Thread(target=serve, daemon=True)
        acceptor.start()
        transport = open_transport(resolver=resolver, ca_bundle=str(cert))
        try:
            for n in range(8):
                result = send(transport, f"https://good.example:{server.getsockname()[1]}/{n}")
                assert (result.status, result.error_code) == (200, None)
                time.sleep(0.05)
        finally:
            transport.close()
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)
    assert len(got) == 8
    resolver.close()


def test_two_thousand_calls_leave_no_descriptors_and_no_memory_behind(target):
    before = _settled()
    transport = open_transport()
    for n in range(40):
        path = (_CLOSES, "/ok", _CUT, "/echo")[n % 4]
        run(transport, [call(target.url + path, fresh_connection=n % 8 == 1) for _ in range(50)])
        # No more is remembered than there are numbers of descriptors in use.
        assert len(transport._libcurl._kept) <= 400
    transport.close()
    assert _settled() <= before + 2


def _settled() -> int:
    """The descriptors of this process, once the target in it has closed its ends."""
    count, end = len(os.listdir("/proc/self/fd")), monotonic() + 2
    while monotonic() < end:
        time.sleep(0.1)
        now = len(os.listdir("/proc/self/fd"))
        if now == count:
            break
        count = now
    return count

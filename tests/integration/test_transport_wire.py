"""Plain HTTP on connections of the transport's own: what is theirs alone. The rest is in test_transport*.py."""

import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from ipaddress import ip_network

import pytest

from jobsched.callback import Guard, Resolver
from jobsched.clock import monotonic
from jobsched.testing.target import Target
from tests.integration.transports import call, certificate, drain, open_transport, resolving, run, send


def test_libcurl_carries_only_what_the_wire_cannot(transport, target):
    assert send(transport, target.url + "/ok").status == 200
    assert transport._libcurl._free == [], "libcurl was used"
    several = open_transport(resolver=resolving(["127.0.0.3", "127.0.0.1"]))
    assert send(several, f"http://two.example:{target.port}/ok").status == 200
    assert len(several._libcurl._free) == 1
    several.close()


def test_a_redirect_leads_from_one_carrier_to_the_other(target, tmp_path):
    cert, context = certificate(tmp_path, "good.example")
    resolver = resolving(["127.0.0.1"])
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
    assert len(transport._wire._idle) == 0


def test_a_body_is_sent_to_its_end_where_the_target_says_yes_before_it_has_read_it(transport):
    got = bytearray()

    def serve():
        connection, _ = server.accept()
        with connection:
            got.extend(connection.recv(1000))
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            time.sleep(0.2)
            while data := connection.recv(65536):
                got.extend(data)

    body = b"x" * 20_000_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        result = send(transport, f"http://127.0.0.1:{server.getsockname()[1]}/", body=body)
        thread.join(5)
    assert (result.status, len(transport._wire._idle)) == (202, 0)
    assert got.endswith(body)


@pytest.mark.parametrize("forged", [b"", b"HTTP/1.1 201 Forged\r\nContent-Length: 0\r\n\r\n"])
def test_a_connection_kept_within_the_look_is_looked_at_before_it_is_used(transport, forged):
    """What lay behind the last bytes that were read (an end, an answer unasked) was met by the next request."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    body = b"x" * (16_384 - len(head % 16_000))

    def answer(connection):
        with connection, suppress(OSError):
            while connection.recv(65536):
                # As much as is read at once, and more behind it.
                connection.sendall(head % len(body) + body + forged)
                if not forged:
                    return

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        acceptor = threading.Thread(target=serve, daemon=True)
        acceptor.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        statuses = Counter()
        for _ in range(10):
            calls = [call(url) for _ in range(20)]
            for each in calls:
                transport.start(each)
            left = len(calls)
            while left:
                for result in transport.turn(1.0):
                    statuses[result.status] += 1
                    left -= 1
                    if statuses.total() % 3 == 0 and left < 15:
                        transport.start(call(url))
                        left += 1
                    if statuses.total() > 400:
                        left = 0
                        break
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join(5)
    if forged:
        assert set(statuses) == {200}
    else:
        # An end may cross a request. But from the first that came at once, connections to there are not kept.
        assert statuses[None] <= 25


def test_a_retry_is_not_ended_by_the_timeout_of_the_attempt_before_it(target):
    release = threading.Event()
    answers = iter([None, release])

    def lookup(host, port, **kinds):
        if (wait := next(answers)) is None:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        wait.wait(5)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    resolver = Resolver(threads=1, lookup=lookup)
    transport = open_transport(resolver=resolver)
    first = call(f"http://flaky.example:{target.port}/ok", timeout_seconds=0.6)
    assert run(transport, [first])[0].error_code == "dns_failed"
    time.sleep(0.3)
    transport.start(first)
    threading.Timer(0.5, release.set).start()
    [result] = drain(transport, 1)
    assert result.status == 200, "ended at the first attempt's deadline, 0.3 s after it began"
    transport.close()
    resolver.close()


def test_an_address_that_cannot_be_dialled_ends_its_own_call_only(target):
    transport = open_transport(
        Guard([ip_network("fe80::/10"), ip_network("127.0.0.0/8")]), resolver=resolving(["fe80::1%nowhere"])
    )
    result = send(transport, "http://zone.example/")
    assert (result.status, result.sent) == (None, result.error_code == "protocol_error")
    assert send(transport, target.url + "/ok").status == 200
    transport.close()


def test_a_connection_that_ends_between_the_look_and_the_request_is_replaced(transport, target):
    assert send(transport, target.url + "/ok").status == 200
    [[kept]] = [list(idle.values()) for idle in transport._wire._idle._by_place.values()]
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
    assert len(transport._wire._idle) > 0
    end = monotonic() + 2.5
    while monotonic() < end:
        transport.turn(0.5)
    assert (len(transport._wire._idle), transport._wire._idle._by_place) == (0, {})
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert transport._wire._idle.sweep_at == float("inf"), "an idle transport wakes up for nothing"


def test_there_are_no_more_connections_than_seats(target, monkeypatch):
    """Kept ones to other places give way: a fan-out to a thousand names had two descriptors a seat."""
    transport = open_transport(resolver=resolving(["127.0.0.1"]))
    transport._wire._most = 20
    most = 0
    for round_ in range(4):
        for n in range(20):
            transport.start(call(f"http://name{round_}-{n}.example:{target.port}/slow/20"))
        left = 20
        while left:
            left -= len(transport.turn(1.0))
            most = max(most, len(transport._wire._idle) + len(transport._wire._busy))
    assert most == 20
    transport.close()


def test_names_that_share_an_address_do_not_share_connections(target):
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


def test_a_call_on_a_kept_connection_takes_two_system_calls_of_its_own(transport, target, monkeypatch):
    """One to send, one to receive. What else there is (epoll's wait) is shared by all that are in flight."""
    assert send(transport, target.url + "/ok").status == 200
    counts = Counter()

    def counting(owner, name):
        usual = getattr(owner, name)

        def count(*arguments, **named):
            counts[name] += 1
            return usual(*arguments, **named)

        monkeypatch.setattr(owner, name, count)

    [[kept]] = [list(idle.values()) for idle in transport._wire._idle._by_place.values()]
    kept.sock = Counted(kept.sock, counts)
    for name in ("listen", "unlisten"):
        counting(transport._watch, name)
    for _ in range(20):
        assert send(transport, target.url + "/ok").status == 200
    assert counts == {"send": 20, "recv": 20}


class Counted:
    """A socket whose calls are counted."""

    def __init__(self, sock, counts):
        self._sock, self._counts = sock, counts

    def __getattr__(self, name):
        self._counts[name] += 1
        return getattr(self._sock, name)

"""What the transport makes of answers, good and bad."""

import socket

import pytest

from jobsched.callback import Transport
from tests.integration.transports import call, open_transport, raw, run, send, serving

pytestmark = pytest.mark.usefixtures("both_carriers")


def test_an_answer_comes_back_whole(transport, target):
    result = send(transport, target.url + "/ok")
    assert (result.status, result.body, result.truncated) == (200, b"ok\n", False)
    assert (result.error_code, result.error_message, result.sent) == (None, None, True)
    assert result.headers == (("Content-Type", "text/plain"), ("Content-Length", "3"))
    assert 0 < result.phases.first_byte_ms <= result.phases.total_ms < 5000
    assert result.phases.connect_ms > 0
    assert result.phases.dns_ms == pytest.approx(0, abs=5)


@pytest.mark.parametrize(
    ("method", "body", "extra"),
    [
        ("POST", b'{"n":1}', {"content-length": "7"}),
        # Above 1 MiB libcurl would ask with Expect: 100-continue, and repeat the request after a 417.
        ("PUT", b"x" * 2_000_000, {"content-length": "2000000"}),
        ("PATCH", b"x", {"content-length": "1"}),
        ("DELETE", b"x", {"content-length": "1"}),
        ("OPTIONS", b"x", {"content-length": "1"}),
        ("POST", None, {"content-length": "0"}),
        ("PUT", None, {"content-length": "0"}),
        ("DELETE", None, {}),
        ("OPTIONS", None, {}),
        ("GET", None, {}),
        ("HEAD", None, {}),
    ],
)
def test_the_target_sees_what_the_call_says_and_nothing_more(transport, target, method, body, extra):
    headers = (("User-Agent", "test"), ("Accept", "text/html"), ("X-Empty", ""), ("X-A", "b, c;d"))
    result = send(transport, target.url + "/ok/./a/../b?x=%20/../y", method, body, headers=headers)
    assert (result.status, result.body) == (200, b"" if method == "HEAD" else b"ok\n")
    (arrival,) = target.arrivals
    host = target.url.removeprefix("http://")
    expected = {"host": host, "user-agent": "test", "accept": "text/html", "x-empty": "", "x-a": "b, c;d"}
    assert (arrival.method, arrival.path, arrival.body) == (method, "/ok/./a/../b?x=%20/../y", body or b"")
    assert arrival.headers == expected | extra


@pytest.mark.parametrize("status", [201, 204, 304, 400, 401, 407, 410, 417, 429, 489, 500, 503, 599])
def test_every_status_is_an_answer_and_the_request_goes_out_once(transport, target, status):
    result = send(transport, f"{target.url}/status/{status}")
    assert (result.status, result.error_code) == (status, None)
    assert target.count == 1


@pytest.mark.parametrize(
    "path",
    [
        "/close",
        "/reset",
        "/cut-status",
        "/cut-headers",
        "/cut-body",
        "/cut-chunk",
        raw(b"HTTP/1.1 200 OK"),
        raw(b"HTTP/1.1 200 OK\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX-A"),
        raw(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n"),
        raw(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n"),
        raw(b"hello world"),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b"HTTP/1.1 2000 OK\r\n\r\n"),
    ],
)
def test_an_answer_that_is_cut_off_or_no_http_is_never_a_success(transport, target, path):
    result = send(transport, target.url + path)
    assert (result.status, result.error_code, result.headers) == (None, "protocol_error", ())
    assert result.error_message.endswith(".")
    assert result.sent
    assert target.count == 1


def test_interim_answers_are_skipped_and_trailers_are_no_headers(transport, target):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    body = b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Trailer: 1\r\n\r\n"
    result = send(transport, target.url + raw(early + b"HTTP/1.1 201 Created\r\nX: y\r\n" + body))
    assert (result.status, result.body) == (201, b"hi")
    assert result.headers == (("X", "y"), ("Connection", "close"), ("Transfer-Encoding", "chunked"))


def test_headers_come_back_without_control_characters_and_unfolded(transport, target):
    answer = b"HTTP/1.1 200 OK\r\nX-Odd: a\x01\x80\x1bb\tc \xe4\r\nX-Fold: a\r\n  b\r\nConnection: close\r\n\r\nbody"
    result = send(transport, target.url + raw(answer))
    assert result.headers == (("X-Odd", "ab\tc ä"), ("X-Fold", "a b"), ("Connection", "close"))
    assert (result.status, result.body) == (200, b"body")


@pytest.mark.parametrize("kib", [60, 70, 290, 2000])
def test_headers_are_bounded_at_64_kib(transport, kib):
    lines = b"".join(b"X-%05d: %s\r\n" % (n, b"v" * 1013) for n in range(kib))
    with serving(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + lines + b"\r\n") as url:
        result = send(transport, url)
    if kib < 64:
        assert (result.status, len(result.headers)) == (200, kib + 1)
    else:
        assert (result.status, result.error_code, result.headers) == (None, "protocol_error", ())


@pytest.mark.parametrize(
    ("size", "truncated"), [(0, False), (8192, False), (8193, True), (1_048_576, True), (1_048_577, True)]
)
def test_the_first_8_kib_of_a_body_are_kept(transport, target, size, truncated):
    result = send(transport, f"{target.url}/big/{size}")
    assert (result.status, result.error_code, result.truncated) == (200, None, truncated)
    assert result.body == b"x" * min(size, 8192)


def test_reading_stops_at_the_limit_and_the_status_counts(transport, target):
    result = send(transport, f"{target.url}/big/1000000000000")
    assert (result.status, result.error_code, result.truncated) == (200, None, True)
    assert len(result.body) == 8192
    # Whoever reads on does not end in time.
    assert result.phases.total_ms < 2000
    assert send(transport, target.url + "/ok").status == 200


def test_a_body_whose_capture_is_switched_off_still_tells_that_there_was_one(target):
    transport = open_transport(capture_bytes=0)
    result = send(transport, target.url + "/ok")
    assert (result.body, result.truncated) == (b"", True)
    transport.close()


def test_nothing_is_decoded(transport, target):
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    assert send(transport, target.url + raw(head + b"\x1f\x8b\x00")).body == b"\x1f\x8b\x00"


@pytest.mark.parametrize("path", ["/hang", "/drip?ms=20", "/drip-headers?ms=20", "/slow/3000"])
def test_the_deadline_holds_for_every_kind_of_slowness(transport, target, path):
    result = send(transport, target.url + path, timeout_seconds=0.6)
    assert (result.status, result.error_code, result.sent) == (None, "timeout", True)
    assert 600 <= result.phases.total_ms <= 1100
    assert "0.6 s" in result.error_message


@pytest.mark.parametrize("timeout", [0.1, 0.0001])
def test_a_tiny_timeout_is_not_taken_for_none(transport, target, timeout):
    assert send(transport, target.url + "/hang", timeout_seconds=timeout).error_code == "timeout"


def test_a_refused_connection_is_known_to_have_sent_nothing(transport):
    result = send(transport, "http://127.0.0.1:1/")
    assert (result.status, result.error_code, result.sent) == (None, "connect_failed", False)
    assert result.error_message == "No connection to 127.0.0.1 port 1: Connection refused."


def test_a_connection_that_is_not_made_in_time_fails_before_the_request(transport):
    # TLS belongs to the connection, and this server never says a word of it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        slow = call(url, connect_timeout_seconds=0.3)
        short = call(url, timeout_seconds=0.2)
        connect, total = run(transport, [slow, short])
    assert (connect.error_code, connect.sent) == ("connect_failed", False)
    assert "within 0.3 s" in connect.error_message
    assert (total.error_code, total.sent) == ("timeout", False)


@pytest.mark.parametrize("bad", [("X", "a\r\nY: b"), ("X", "a\nY: b"), ("X", "ü"), ("X\x00", "a")])
def test_what_cannot_be_sent_is_an_invalid_job_and_stops_nobody(transport, target, bad):
    broken = call(target.url + "/ok", headers=(bad,))
    wrong_url = call("http://user@127.0.0.1/")
    healthy = call(target.url + "/ok")
    results = run(transport, [broken, wrong_url, healthy])
    assert (results[0].error_code, results[0].sent) == ("invalid_job", False)
    assert (results[1].error_code, results[1].sent) == ("invalid_job", False)
    assert results[2].status == 200


def test_a_handle_forgets_the_call_before(transport: Transport, target):
    secret = call(target.url + "/ok", "PUT", b"secret", headers=(("Authorization", "Bearer a"),))
    assert run(transport, [secret])[0].status == 200
    assert send(transport, target.url + "/ok", "GET", None, headers=()).status == 200
    last = target.arrivals[-1]
    assert (last.method, last.body) == ("GET", b"")
    assert "authorization" not in last.headers
    assert "content-length" not in last.headers
    assert run(transport, [secret])[0].status == 200
    assert send(transport, target.url + "/ok", "HEAD", None, headers=()).status == 200
    assert target.arrivals[-1].method == "HEAD"


def test_a_proxy_in_the_environment_is_ignored(transport, target, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert send(transport, target.url + "/ok").status == 200


def test_a_configured_proxy_gets_the_call_and_resolves_the_name(target):
    transport = open_transport(proxy=target.url)
    result = send(transport, "http://internal.invalid/ok")
    # The target is no proxy, but shows what one is asked.
    assert result.status == 404
    assert target.arrivals[-1].path == "http://internal.invalid/ok"
    assert send(transport, "http://10.0.0.1/ok").error_code == "target_refused"
    transport.close()

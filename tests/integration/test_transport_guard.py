"""Where calls may go: names pinned to checked addresses, sockets checked again, redirects hop by hop."""

from urllib.parse import quote

import pytest

from jobsched.callback import Guard
from jobsched.testing.target import Target
from tests.integration.transports import open_transport, resolving, send

pytestmark = pytest.mark.usefixtures("both_carriers")


@pytest.fixture(scope="module")
def other(target_of_module):
    """Another origin: the same port on another loopback address."""
    with Target(host="127.0.0.2", port=target_of_module.port) as running:
        yield running


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/", "http://127.0.0.1:1/", "http://127.1:1/", "http://0x7f.1:1/", "http://2130706433:1/",
        "http://017700000001:1/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]:1/", "http://0:1/",
        "http://169.254.169.254/latest/meta-data/", "http://[64:ff9b::a9fe:a9fe]/",
    ],
)  # fmt: skip
def test_a_literal_address_is_refused_in_every_spelling(url):
    transport = open_transport(Guard())
    result = send(transport, url)
    assert (result.status, result.error_code, result.sent) == (None, "target_refused", False)
    assert result.error_message.endswith(".")
    transport.close()


def test_one_bad_address_among_several_refuses_the_name(target):
    transport = open_transport(resolver=resolving(["127.0.0.1", "10.0.0.1"]))
    for _ in range(2):
        result = send(transport, f"http://mixed.example:{target.port}/ok")
        assert (result.error_code, result.sent) == ("target_refused", False)
        assert "10.0.0.1 is a private address" in result.error_message
    assert target.count == 0
    transport.close()


def test_a_name_is_dialled_at_the_address_that_was_checked(target):
    transport = open_transport(resolver=resolving(["127.0.0.1"]))
    result = send(transport, f"http://pinned.invalid:{target.port}/ok")
    assert result.status == 200
    assert target.arrivals[0].headers["host"] == f"pinned.invalid:{target.port}"
    assert result.phases.dns_ms > 0
    transport.close()


def test_a_name_that_moves_is_followed(target, other):
    other.reset()
    transport = open_transport(resolver=resolving(["127.0.0.1"], ["127.0.0.2"], ttl=0.0))
    url = f"http://moving.example:{target.port}/ok"
    for _ in range(2):
        assert send(transport, url, fresh_connection=True).status == 200
    assert (target.count, other.count) == (1, 1)
    transport.close()


def test_a_name_that_moves_to_a_bad_address_is_refused_even_with_a_kept_connection(target):
    transport = open_transport(resolver=resolving(["127.0.0.1"], ["10.0.0.1"], ttl=0.0))
    url = f"http://rebinding.example:{target.port}/ok"
    assert send(transport, url).status == 200
    assert send(transport, url).error_code == "target_refused"
    transport.close()


def test_the_socket_is_checked_again_when_it_is_opened(target):
    """Whatever got past the checks before, as a pin that libcurl reads in another way, ends here."""

    class Late(Guard):
        asked = 0

        def check_address(self, address):
            self.asked += 1
            return f"{address} was good once." if self.asked > 1 else None

    transport = open_transport(Late())
    result = send(transport, f"http://127.0.0.1:{target.port}/ok")
    assert (result.error_code, result.sent) == ("target_refused", False)
    assert result.error_message == "127.0.0.1 was good once."
    assert target.count == 0
    transport.close()


def test_several_addresses_are_tried_in_turn(target):
    transport = open_transport(resolver=resolving(["127.0.0.3", "127.0.0.1"]))
    assert send(transport, f"http://two.example:{target.port}/ok").status == 200
    transport.close()


def test_a_name_without_addresses_is_dns_failed(transport):
    result = send(transport, "http://nosuch.invalid/")
    assert (result.error_code, result.sent) == ("dns_failed", False)
    assert "nosuch.invalid" in result.error_message


def test_redirects_are_answers_unless_they_are_to_be_followed(transport, target):
    result = send(transport, target.url + "/redirect?to=/ok")
    assert (result.status, result.error_code) == (302, None)
    assert target.count == 1


@pytest.mark.parametrize(
    ("method", "status", "becomes"),
    [
        ("POST", 301, "GET"), ("POST", 302, "GET"), ("POST", 303, "GET"), ("PUT", 302, "PUT"), ("PUT", 303, "GET"),
        ("POST", 307, "POST"), ("POST", 308, "POST"), ("DELETE", 307, "DELETE"),
    ],
)  # fmt: skip
def test_a_followed_redirect_keeps_or_drops_the_body_as_rfc_9110_says(
    transport, target, method, status, becomes
):
    headers = (("Content-Type", "text/plain"), ("Authorization", "Bearer a"), ("webhook-signature", "v1,x"))
    url = f"{target.url}/redirect?to=/ok&status={status}"
    result = send(transport, url, method, b"body", headers=headers, follow_redirects=True)
    assert (result.status, result.body, result.error_code) == (200, b"ok\n", None)
    last = target.arrivals[-1]
    assert (last.method, last.path) == (becomes, "/ok")
    assert last.body == (b"" if becomes == "GET" else b"body")
    assert ("content-type" in last.headers, "webhook-signature" in last.headers) == (becomes != "GET",) * 2
    assert last.headers["authorization"] == "Bearer a"


def test_another_origin_gets_none_of_the_jobs_headers(transport, target, other):
    other.reset()
    headers = (
        ("Content-Type", "application/json"),
        ("User-Agent", "test"),
        ("Accept", "*/*"),
        ("Authorization", "Bearer a"),
        ("Cookie", "a=b"),
        ("X-Api-Key", "secret"),
        ("X-My-Own-Token", "secret"),
        ("webhook-id", "exec_a_1"),
        ("Jobsched-Attempt", "1"),
    )
    url = f"{target.url}/redirect?status=307&to={other.url}/ok"
    assert send(transport, url, headers=headers, follow_redirects=True).status == 200
    (arrival,) = other.arrivals
    assert arrival.headers == {
        "host": other.url.removeprefix("http://"),
        "content-type": "application/json",
        "user-agent": "test",
        "accept": "*/*",
        "webhook-id": "exec_a_1",
        "jobsched-attempt": "1",
        "content-length": "2",
    }


@pytest.mark.parametrize(
    "to",
    [
        "http://10.0.0.1/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://bad.example/",
        "file:///etc/passwd",
        "http://user@127.0.0.1/",
        "gopher://x/",
    ],
)
def test_every_hop_is_guarded_and_the_call_counts_as_sent(target, to):
    transport = open_transport(resolver=resolving(["10.0.0.1"]))
    result = send(transport, f"{target.url}/redirect?to={to}", follow_redirects=True)
    assert (result.status, result.error_code, result.sent) == (None, "target_refused", True)
    transport.close()


def test_five_redirects_are_followed_and_a_loop_ends(transport, target):
    path = "/ok"
    for _ in range(5):
        path = f"/redirect?to={quote(path, safe='/')}"
    assert send(transport, target.url + path, follow_redirects=True).status == 200
    assert target.count == 6
    target.reset()
    sixth = f"/redirect?to={quote(path, safe='/')}"
    result = send(transport, target.url + sixth, follow_redirects=True)
    assert (result.status, result.error_code, result.sent) == (None, "protocol_error", True)
    assert target.count == 6


def test_the_timeout_spans_all_hops(transport, target):
    url = f"{target.url}/redirect?to=/redirect%3Fto%3D/slow/2000"
    result = send(transport, url, follow_redirects=True, timeout_seconds=0.5)
    assert (result.error_code, result.sent) == ("timeout", True)
    assert 500 <= result.phases.total_ms < 1000


def test_a_refused_connection_after_a_redirect_counts_as_sent(transport, target):
    result = send(transport, f"{target.url}/redirect?to=http://127.0.0.1:1/", follow_redirects=True)
    assert (result.error_code, result.sent) == ("connect_failed", True)

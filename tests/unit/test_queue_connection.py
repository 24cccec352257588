"""How a client is set up, without a server."""

import socket

import pytest
import redis

from jobsched.errors import QueueUnavailable
from jobsched.queue.connection import connect, converted


def test_nothing_is_repeated_and_nothing_waits_for_long() -> None:
    options = connect("redis://localhost/0").get_connection_kwargs()
    assert options["retry"].get_retries() == 0
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 2.0
    assert options["protocol"] == 2
    assert options["client_name"].startswith("jobsched-")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
def test_a_peer_that_vanished_is_noticed_within_ten_seconds() -> None:
    options = connect("redis://localhost/0").get_connection_kwargs()["socket_keepalive_options"]
    idle, gap, probes = (options[getattr(socket, f"TCP_KEEP{name}")] for name in ("IDLE", "INTVL", "CNT"))
    assert idle + gap * probes < 10
    assert options[socket.TCP_USER_TIMEOUT] < 10_000


@pytest.mark.parametrize(("verify", "asked"), [(True, None), (False, "none")])
def test_certificates_are_checked_unless_told_otherwise(verify: bool, asked: str | None) -> None:
    options = connect("rediss://localhost/0", tls_verify=verify).get_connection_kwargs()
    assert options.get("ssl_cert_reqs") == asked


@pytest.mark.parametrize("url", ["redis://localhost/0", "unix:///tmp/redis.sock"])
def test_plain_addresses_take_no_tls_options(url: str) -> None:
    client = connect(url, tls_verify=False)
    client.connection_pool.make_connection()  # would refuse an option that it does not know


def test_an_address_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(QueueUnavailable, match="not understood"):
        connect("http://localhost")


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("gone"),
        redis.TimeoutError("late"),
        redis.ResponseError("no"),
        redis.ReadOnlyError("ro"),
        OSError("os"),
        ConnectionResetError(),
    ],
)
def test_errors_of_redis_become_ours_and_keep_their_cause(error: Exception) -> None:
    with pytest.raises(QueueUnavailable) as caught, converted():
        raise error
    assert caught.value.__cause__ is error
    assert str(caught.value) != "Redis: "


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), converted():
        raise KeyError("bug")

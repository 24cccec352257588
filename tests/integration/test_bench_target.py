"""The bench's target answers every POST, keeps connections, and counts what it was asked."""

import http.client

import pytest

from bench.process import cpu_of
from bench.target import NginxTarget, program

try:
    program()
except FileNotFoundError as missing:
    pytest.skip(str(missing), allow_module_level=True)


def test_requests_are_counted_without_the_questions_for_them() -> None:
    with NginxTarget() as target:
        host = target.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=10)
        assert target.requests() == 0
        for _ in range(1500):
            connection.request("POST", "/callback", b'{"n": 1}', {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"ok")
            assert answer.getheader("Connection") == "keep-alive"
        connection.close()
        assert target.requests() == 1500
        assert target.requests() == 1500
        assert len(target.pids) == 2
        assert cpu_of(target.pids) > 0
    assert target.pids == []

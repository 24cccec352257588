"""TLS is always verified, and a failure says why and that nothing was sent."""

import ssl

import pytest

from jobsched.testing.target import Target
from tests.integration.transports import certificate, open_transport, resolving, send, serving


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    cert, context = certificate(tmp_path_factory.mktemp("tls"), "good.example")
    with Target(tls=context) as target:
        yield target, str(cert)


@pytest.fixture
def resolver():
    made = resolving(["127.0.0.1"])
    yield made
    made.close()


def test_a_trusted_certificate_of_the_right_name_is_accepted(secured, resolver):
    target, cert = secured
    transport = open_transport(resolver=resolver, ca_bundle=cert)
    result = send(transport, f"https://good.example:{target.port}/ok")
    assert (result.status, result.error_code) == (200, None)
    assert result.phases.tls_ms > 0
    assert result.phases.connect_ms < result.phases.total_ms
    transport.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_every_other_certificate_fails_before_anything_is_sent(secured, resolver, trusted):
    target, cert = secured
    target.reset()
    transport = open_transport(resolver=resolver, ca_bundle=cert if trusted else None)
    host = "other.example" if trusted else "good.example"
    result = send(transport, f"https://{host}:{target.port}/ok")
    assert (result.status, result.error_code, result.sent) == (None, "tls_failed", False)
    assert host in result.error_message
    assert result.error_message.endswith(".")
    assert target.count == 0
    transport.close()


def test_old_versions_of_tls_are_refused(tmp_path, resolver):
    cert, context = certificate(tmp_path, "old.example")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Target(tls=context) as target:
        transport = open_transport(resolver=resolver, ca_bundle=str(cert))
        result = send(transport, f"https://old.example:{target.port}/ok")
        assert (result.error_code, result.sent) == ("tls_failed", False)
        transport.close()


def test_plain_http_behind_https_is_a_failed_handshake(resolver):
    with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        transport = open_transport(resolver=resolver)
        result = send(transport, url.replace("http:", "https:"))
        assert (result.error_code, result.sent) == ("tls_failed", False)
        transport.close()


def test_a_redirect_from_https_to_http_is_refused(secured, resolver):
    target, cert = secured
    transport = open_transport(resolver=resolver, ca_bundle=cert)
    url = f"https://good.example:{target.port}/redirect?status=307&to=http://good.example/"
    result = send(transport, url, follow_redirects=True)
    assert (result.error_code, result.sent) == ("target_refused", True)
    transport.close()

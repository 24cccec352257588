"""Signatures of callbacks, checked with the verifier of the standard's authors."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from jobsched.callback.model import Call
from jobsched.callback.signing import sign
from tests.unit.test_request import a_call

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def secret(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def signed(*keys: bytes, payload: str | None = '{"ü": [1, 2]}') -> Call:
    return a_call(payload_json=payload, signatures=sign(keys), now=datetime.now(UTC))


def verify(key: bytes, call: Call, **changed: str) -> None:
    headers = dict(call.headers) | {name.replace("_", "-"): value for name, value in changed.items()}
    Webhook(secret(key)).verify(call.body or b"", headers, json_parse=False)


def test_the_example_of_the_standard_comes_out() -> None:
    example = Webhook("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    body = b'{"event_type":"ping","data":{"success":true}}'
    key = base64.b64decode("C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    at = datetime.fromtimestamp(1731705121, UTC)
    assert sign([key])("msg_loFOjxBNrRLzqYUf", 1731705121, body) == example.sign(
        "msg_loFOjxBNrRLzqYUf", at, body.decode()
    )


def test_what_was_sent_is_verified() -> None:
    verify(NEW, signed(NEW))


def test_an_empty_body_is_signed_as_empty() -> None:
    call = signed(NEW, payload=None)
    assert call.body is None
    verify(NEW, call)
    headers = dict(call.headers)
    assert headers["webhook-signature"] == sign([NEW])(
        headers["webhook-id"], int(headers["webhook-timestamp"]), b""
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_id": "exec_abc123_18"},
        {"webhook_timestamp": str(int(datetime.now(UTC).timestamp()) + 60)},
        {"webhook_signature": "v1," + base64.b64encode(b"\0" * 32).decode()},
        {"webhook_signature": ""},
    ],
)
def test_what_was_changed_on_the_way_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        verify(NEW, signed(NEW), **changed)


def test_another_body_or_another_secret_is_refused() -> None:
    call = signed(NEW)
    with pytest.raises(WebhookVerificationError):
        verify(OTHER, call)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret(NEW)).verify((call.body or b"") + b" ", dict(call.headers))


def test_during_a_rotation_both_secrets_verify_and_no_third() -> None:
    call = signed(NEW, OLD)
    verify(NEW, call)
    verify(OLD, call)
    with pytest.raises(WebhookVerificationError):
        verify(OTHER, call)


@pytest.mark.parametrize("example", [0, 1])
@pytest.mark.parametrize(
    ("key", "changed", "body", "genuine"),
    [
        (NEW, {}, None, True),
        (OLD, {}, None, True),
        (OTHER, {}, None, False),
        (NEW, {}, b"{}", False),
        (NEW, {"webhook-id": "exec_abc123_18"}, None, False),
        (NEW, {"webhook-timestamp": "1731705121"}, None, False),
        (NEW, {"webhook-timestamp": "now"}, None, False),
        (NEW, {"webhook-signature": "ü"}, None, False),
        (NEW, None, None, False),
    ],
)
@pytest.mark.parametrize("spelling", [str, str.title])
def test_the_examples_of_the_document_tell_what_is_genuine(
    example: int,
    spelling: Callable[[str], str],
    key: bytes,
    changed: dict[str, str] | None,
    body: bytes | None,
    genuine: bool,
) -> None:
    """``changed``: headers that are not what was sent, None for no headers; ``body``: another than was sent."""
    call = signed(NEW, OLD)
    headers = {} if changed is None else {**dict(call.headers), **changed}
    text = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
    blocks = [one for one in re.findall(r"```python\n(.*?)```", text, re.S) if "genuine" in one]
    names: dict[str, Any] = {
        "secret": secret(key),
        "headers": {spelling(name): value for name, value in headers.items()},
        "body": call.body if body is None else body,
    }
    exec(blocks[example], names)
    assert names["genuine"] is genuine


@given(st.binary(min_size=24, max_size=64), st.text(max_size=50), st.integers(0, 2**40))
def test_any_text_is_signed_as_the_standard_says(key: bytes, text: str, seconds: int) -> None:
    body = text.encode(errors="replace").decode()
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        return
    assert sign([key])("id", seconds, body.encode()) == Webhook(secret(key)).sign("id", at, body)

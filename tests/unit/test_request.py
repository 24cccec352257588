"""What is sent: headers, body, signature, and which headers a job may set."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from jobsched import __version__
from jobsched.callback.model import Call
from jobsched.callback.request import build, compact_json
from jobsched.domain.headers import check_header

NOW = datetime(2026, 12, 1, 8, 0, 0, 250_000, tzinfo=UTC)


def a_call(**given_values) -> Call:
    values = {
        "execution_id": 17,
        "job_id": 4,
        "attempt": 2,
        "incarnation": "abc123",
        "scheduled_for": datetime(2026, 12, 1, 9, 0, tzinfo=timezone(timedelta(hours=1))),
        "trigger": "schedule",
        "method": "POST",
        "url": "https://example.com/run",
        "job_headers": {},
        "payload_json": '{"n": 1}',
        "timeout_seconds": 30.0,
        "follow_redirects": False,
        "at_most_once": False,
        "now": NOW,
    }
    return build(**(values | given_values))


def test_a_call_carries_exactly_these_headers():
    assert a_call() == Call(
        execution_id=17,
        attempt=2,
        method="POST",
        url="https://example.com/run",
        job_headers=(
            ("Content-Type", "application/json"),
            ("User-Agent", f"jobsched/{__version__}"),
            ("Accept", "*/*"),
        ),
        own_headers="\r\n".join(
            (
                "Accept-Encoding: identity",
                "Idempotency-Key: exec_abc123_17",
                "Jobsched-Job-Id: 4",
                "Jobsched-Execution-Id: 17",
                "Jobsched-Attempt: 2",
                "Jobsched-Scheduled-For: 2026-12-01T08:00:00.000Z",
                "Jobsched-Trigger: schedule",
                f"traceparent: {dict(a_call().headers)['traceparent']}",
                "webhook-id: exec_abc123_17",
                "webhook-timestamp: 1796112000",
            )
        ),
        body=b'{"n":1}',
        timeout_seconds=30.0,
        follow_redirects=False,
        fresh_connection=False,
    )


@pytest.mark.parametrize("trigger", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb", "a\0b"])
def test_what_a_hand_wrote_into_the_tables_makes_no_header(trigger):
    with pytest.raises(ValueError, match="line break"):
        a_call(trigger=trigger)


def test_attempts_share_their_names_and_their_trace_but_not_the_span_and_the_time():
    first, second = (
        dict(a_call(attempt=attempt, now=NOW + timedelta(seconds=attempt)).headers) for attempt in (1, 2)
    )
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"Jobsched-Attempt", "traceparent", "webhook-timestamp"}
    version, trace, span, flags = first["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert second["traceparent"].split("-")[1] == trace
    assert second["traceparent"].split("-")[2] != span


def test_a_job_overrides_what_is_its_own_in_any_case():
    job_headers = {"content-type": "text/plain", "USER-AGENT": "mine", "Accept": "text/html", "X-Key": " v "}
    headers = a_call(job_headers=job_headers).headers
    assert headers[:5] == (
        ("content-type", "text/plain"),
        ("USER-AGENT", "mine"),
        ("Accept", "text/html"),
        ("X-Key", "v"),
        ("Accept-Encoding", "identity"),
    )


@pytest.mark.parametrize("payload", [None, "null", " null "])
def test_without_a_payload_there_is_neither_body_nor_content_type(payload):
    call = a_call(payload_json=payload, job_headers={"Content-Type": "text/plain"})
    assert call.body is None
    assert "content-type" not in {name.lower() for name, _ in call.headers}


def test_a_connection_of_its_own_for_what_must_not_be_repeated_by_the_client():
    assert not a_call().fresh_connection
    assert a_call(at_most_once=True).fresh_connection
    assert a_call(payload_json=None).fresh_connection


def test_the_signature_covers_the_bytes_that_are_sent():
    webhook = Webhook("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")

    def sign(message_id: str, timestamp: int, body: bytes) -> str:
        return webhook.sign(message_id, datetime.fromtimestamp(timestamp, UTC), body.decode())

    now = datetime.now(UTC)
    call = a_call(payload_json='{"ü": [1, 2]}', signatures=sign, now=now)
    assert webhook.verify(call.body, dict(call.headers)) == {"ü": [1, 2]}
    empty = dict(a_call(payload_json=None, signatures=sign, now=now).headers)
    assert empty["webhook-signature"] == sign("exec_abc123_17", int(now.timestamp()), b"")


@pytest.mark.parametrize(
    ("text", "compact"),
    [
        ('{"a": 1.10, "b": [1e400, -0]}', '{"a":1.10,"b":[1e400,-0]}'),
        ('{"a b": " c  \\" d \\\\" , "x":\n\t"\\u00fc ü"}', '{"a b":" c  \\" d \\\\","x":"\\u00fc ü"}'),
        ('"a b"', '"a b"'),
        ("[]", "[]"),
    ],
)
def test_json_is_made_compact_without_touching_a_token(text, compact):
    assert compact_json(text) == compact


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_JSON, st.sampled_from([None, 1, 4]), st.booleans())
def test_compact_json_means_the_same_and_has_no_blanks_left(value, indent, ascii_only):
    compact = compact_json(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert json.loads(compact) == value
    assert compact == json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://user@host/"},
        {"url": "file:///etc/passwd"},
        {"method": "TRACE"},
        {"method": "GET / HTTP/1.1\r\nX:"},
        {"job_headers": {"Host": "other"}},
        {"job_headers": {"X": "a\r\nY: b"}},
        {"payload_json": '"\ud800"'},
    ],
)
def test_what_cannot_be_sent_raises_a_sentence(wrong):
    with pytest.raises(ValueError, match=r"\.$"):
        a_call(**wrong)


@pytest.mark.parametrize(
    "name",
    [
        "Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Trailer", "Upgrade", "Keep-Alive",
        "Proxy-Authorization", "Proxy-Connection", "Expect", "HTTP2-Settings", "Idempotency-Key", "traceparent",
        "Accept-Encoding", "Jobsched-Attempt", "jobsched-anything", "Webhook-Id", "webhook-signature",
        "", "a b", "a:b", "a\r\nb", "ü", "a\x00", "(a)",
    ],
)  # fmt: skip
def test_these_headers_are_not_a_jobs_to_set(name):
    assert check_header(name, "v") is not None


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "\x00", "\x7f", "ü", "\x1b[0m"])
def test_a_value_is_visible_ascii_and_never_quoted_back(value):
    reason = check_header("X-Key", value)
    assert reason is not None
    assert value not in reason


@pytest.mark.parametrize(
    "name", ["Content-Type", "User-Agent", "Accept", "Authorization", "X-Api-Key", "Date"]
)
def test_every_other_header_is(name):
    assert check_header(name, 'a "b"\tc; d=1') is None
    assert check_header(name, "") is None

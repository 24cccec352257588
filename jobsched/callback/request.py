"""Builds the request of one attempt: method, URL, headers and the very bytes of the body.

Pure. What names an execution (``webhook-id``, ``Idempotency-Key``, ``Jobsched-Scheduled-For``) is the same in
every attempt, so that a target can drop what it has seen; ``webhook-timestamp`` and the signature are of the
attempt. Signing follows Standard Webhooks 1.0.0 and covers exactly the bytes that are sent.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b

from jobsched import __version__
from jobsched.callback.model import CONNECT_SECONDS, Call
from jobsched.clock import rfc3339
from jobsched.domain.headers import FORBIDDEN_HEADERS, check_header
from jobsched.domain.targets import parse_url

__all__ = ["FORBIDDEN_HEADERS", "Sign", "build", "check_header", "compact_json"]

Sign = Callable[[str, int, bytes], str]
"""(message id, Unix seconds, body) → the value of ``webhook-signature``."""

# Many jobs are due at the same instant.
_instant = lru_cache(maxsize=1024)(rfc3339)
_USER_AGENT = f"jobsched/{__version__}"
_BLANK = re.compile(r"[ \t\r\n]")
_STRING_OR_BLANK = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
#: Characters up to which a payload is remembered.
_SHORT = 1024
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def build(
    *,
    execution_id: int,
    job_id: int,
    attempt: int,
    incarnation: str,
    scheduled_for: datetime,
    trigger: str,
    method: str,
    url: str,
    job_headers: Mapping[str, str],
    payload_json: str | None,
    timeout_seconds: float,
    follow_redirects: bool,
    at_most_once: bool,
    now: datetime,
    signatures: Sign | None = None,
) -> Call:
    """The complete call of one attempt.

    ``payload_json`` is JSON text; None and ``null`` mean no body. ``now`` is the wall clock of the attempt.
    The job may set Content-Type, User-Agent and Accept; every header of ours comes once, from here.
    Raises ValueError with one sentence for the user when the job cannot be called as it stands: the row
    ends as ``invalid_job`` and holds up no other.
    """
    if method not in _METHODS:
        raise ValueError(f"The method {method!r} is not one of {', '.join(sorted(_METHODS))}.")
    parse_url(url)
    body = _body(payload_json)
    message_id = f"exec_{incarnation}_{execution_id}"
    timestamp = int(now.timestamp())
    # The rest is ours and has no line breaks; a hand in the tables may have put one here.
    if not (trigger.isprintable() and incarnation.isprintable()):
        raise ValueError("What names the execution has a line break.")
    own = (
        f"Accept-Encoding: identity\r\nIdempotency-Key: {message_id}\r\nJobsched-Job-Id: {job_id}\r\n"
        f"Jobsched-Execution-Id: {execution_id}\r\nJobsched-Attempt: {attempt}\r\n"
        f"Jobsched-Scheduled-For: {_instant(scheduled_for)}\r\nJobsched-Trigger: {trigger}\r\n"
        f"traceparent: {_traceparent(message_id, attempt)}\r\nwebhook-id: {message_id}\r\n"
        f"webhook-timestamp: {timestamp}"
    )
    if signatures is not None:
        own = f"{own}\r\nwebhook-signature: {signatures(message_id, timestamp, body or b'')}"
    return Call(
        execution_id,
        attempt,
        method,
        url,
        _job_headers(tuple(job_headers.items()), body is not None),
        own,
        body,
        timeout_seconds,
        CONNECT_SECONDS,
        follow_redirects,
        # libcurl repeats a request by itself when a kept connection turns out dead, unless it would have to
        # rewind a body. Without one, only a connection of its own keeps a call from going out twice.
        at_most_once or not body,
    )


def compact_json(text: str) -> str:
    """JSON ``text`` without blanks between its tokens; every token stays as it is written.

    Not by ``json.loads`` and ``dumps``, which would turn 1.10 into 1.1, 1e400 into Infinity and cost more.
    """
    if not _BLANK.search(text):
        return text
    return _known_compact(text) if len(text) <= _SHORT else _compact(text)


def _compact(text: str) -> str:
    return _STRING_OR_BLANK.sub(r"\1", text)


# A job's own payload comes again with each of its executions.
_known_compact = lru_cache(maxsize=1024)(_compact)


def _body(payload_json: str | None) -> bytes | None:
    if payload_json is None:
        return None
    text = compact_json(payload_json)
    if text == "null":
        return None
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("The payload contains half a character (a lone surrogate).") from None


@lru_cache(maxsize=4096)
def _job_headers(job_headers: tuple[tuple[str, str], ...], has_body: bool) -> tuple[tuple[str, str], ...]:
    headers = []
    given = set()
    for name, value in job_headers:
        if reason := check_header(name, value):
            raise ValueError(reason)
        lower = name.lower()
        if lower == "content-type" and not has_body:
            continue
        given.add(lower)
        headers.append((name, value.strip(" \t")))
    if has_body and "content-type" not in given:
        headers.append(("Content-Type", "application/json"))
    if "user-agent" not in given:
        headers.append(("User-Agent", _USER_AGENT))
    if "accept" not in given:
        headers.append(("Accept", "*/*"))
    return tuple(headers)


def _traceparent(message_id: str, attempt: int) -> str:
    """W3C Trace Context: one trace an execution, one span an attempt, sampled; the same if asked again."""
    digest = blake2b(message_id.encode(), digest_size=24, person=b"jobsched").digest()
    span = int.from_bytes(digest[16:]) ^ attempt
    return f"00-{digest[:16].hex()}-{span or 1:016x}-01"

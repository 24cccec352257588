"""Records as the API shows them."""

import base64
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import orjson
from flask import Response
from werkzeug.datastructures import Headers

from jobsched.clock import rfc3339
from jobsched.db.executions import DeadLetterRecord, ExecutionRecord
from jobsched.db.job_list import ListedJob
from jobsched.db.jobs import JobRecord
from jobsched.db.page import Page
from jobsched.domain.json_text import compact
from jobsched.domain.spec import definition_json, spec_json
from jobsched.web.params import List, cursor_of

T = TypeVar("T")


class Answer(Response):
    """A response whose headers are final: all is ASCII, links are relative, the length is there."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        """The headers as they are, where werkzeug would quote and join the links in them anew."""
        return self.headers


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``value`` as a JSON response, with a line end, so that a terminal's prompt does not stick to it."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # it has an integer of more than 64 bits
        text = f"{compact(_finite(value))}\n".encode()
    # In the form in which werkzeug takes all as it is.
    own = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    return Answer([text], status, Headers([*own, *(headers.items() if headers else ())]))


def _finite(value: Any) -> Any:
    """``value`` with null for what JSON has no number for, as orjson has it. Only a hand in the tables can have put
    it there.
    """
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def page(kind: List, found: Page[T], show: Callable[[T], dict[str, Any]]) -> Response:
    """One page of a list."""
    return answer(
        {"items": [show(item) for item in found.items], "nextCursor": cursor_of(kind, found.next_before)}
    )


def job(record: JobRecord) -> dict[str, Any]:
    """A job; the values of secret headers are masked."""
    standing = read_only(record)
    return {"id": standing.pop("id"), **spec_json(record.spec), **standing}


def listed_job(record: ListedJob) -> dict[str, Any]:
    """The same of a job in a list."""
    return {
        "id": record.id,
        **definition_json(record.definition),
        "nextExecutionTime": record.next_execution_time,
        "lastExecutionTime": record.last_execution_time,
        "lastState": record.last_state,
        "createdAt": record.created_at,
        "updatedAt": record.updated_at,
        "version": record.version,
    }


def read_only(record: JobRecord) -> dict[str, Any]:
    """The fields of a job that only the server writes, as answers show them."""
    return {
        "id": record.id,
        "nextExecutionTime": instant(record.next_execution_time),
        "lastExecutionTime": instant(record.last_execution_time),
        "lastState": record.last_state,
        "createdAt": rfc3339(record.created_at),
        "updatedAt": rfc3339(record.updated_at),
        "version": record.version,
    }


# jsonb forgets the order of keys; people read these from top to bottom.
_PHASES = ("dnsMs", "connectMs", "tlsMs", "firstByteMs", "totalMs")
_ATTEMPT = (
    "attempt",
    "startedAt",
    "finishedAt",
    "responseStatus",
    "errorCode",
    "errorMessage",
    "phases",
    "worker",
)


def _phases(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    return stored and {name: stored.get(name) for name in _PHASES}


def _attempt(stored: dict[str, Any]) -> dict[str, Any]:
    shown = {name: stored.get(name) for name in _ATTEMPT}
    shown["phases"] = _phases(shown["phases"])
    return shown


def execution(record: ExecutionRecord) -> dict[str, Any]:
    """An execution with its attempts and the captured answer."""
    text, encoding = _body(record.response_body, record.response_truncated)
    return {
        "id": record.id,
        "jobId": record.job_id,
        "trigger": record.trigger,
        "state": record.state,
        "scheduledFor": record.scheduled_for,
        "dueAt": record.due_at,
        "queuedAt": record.queued_at,
        "startedAt": record.started_at,
        "finishedAt": record.finished_at,
        "executionDurationMs": record.execution_duration_ms,
        "attempt": record.attempt,
        "retryCount": record.retry_count,
        "maxRetryCount": record.max_retry_count,
        "worker": record.worker,
        "responseStatus": record.response_status,
        "responseHeaders": record.response_headers,
        "responseBody": text,
        "responseBodyEncoding": encoding,
        "responseTruncated": record.response_truncated,
        "errorCode": record.error_code,
        "errorMessage": record.error_message,
        "jobVersion": record.job_version,
        "phases": _phases(record.phases),
        "attempts": [_attempt(one) for one in record.attempts],
        "skippedCount": record.skipped_count,
        "redriveOf": record.redrive_of,
    }


def dead_letter(record: DeadLetterRecord) -> dict[str, Any]:
    """A dead letter; its id is that of the execution that failed."""
    return {
        "id": record.id,
        "jobId": record.job_id,
        "trigger": record.trigger,
        "scheduledFor": record.scheduled_for,
        "failedAt": record.failed_at,
        "attempt": record.attempt,
        "retryCount": record.retry_count,
        "responseStatus": record.response_status,
        "errorCode": record.error_code,
        "errorMessage": record.error_message,
        "payload": record.payload,
        "lastAttempt": record.last_attempt and _attempt(record.last_attempt),
        "queue": record.queue,
    }


def instant(value: datetime | None) -> str | None:
    """An instant in RFC 3339, or None."""
    return None if value is None else rfc3339(value)


def _body(body: bytes | None, truncated: bool) -> tuple[str | None, str | None]:
    """The captured body as text where it is UTF-8, else as Base64; and which of the two it is."""
    if body is None:
        return None, None
    body = bytes(body)
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError as error:
        # The end of the capture may have cut a character of up to four bytes in two.
        if truncated and error.reason == "unexpected end of data":
            return body[: error.start].decode(), "utf-8"
        return base64.b64encode(body).decode(), "base64"

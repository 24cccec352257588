"""A tiny HTTP server with canned answers in the shape of the contract, which remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

PROBLEM = "application/problem+json"


class Asked(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any


class Answer(NamedTuple):
    """One answer; ``body`` is sent as JSON, text as it is, and None as nothing. Status 0: the line breaks."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}


class CannedApi:
    """``answer(method, path, …)`` queues answers; the last one repeats. Anything else is 404."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answers.setdefault((method, path), []).append(Answer(status, body, named))

    def problem(self, method: str, path: str, status: int, detail: str, **more: Any) -> None:
        body = {"type": "about:blank", "title": "Problem", "status": status, "detail": detail, **more}
        self.answer(method, path, body, status, Content_Type=PROBLEM)

    def breaks(self, method: str, path: str) -> None:
        """The connection breaks where the answer should come."""
        self.answer(method, path, status=0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, method: str, path: str) -> Answer:
        answers = self._answers.get((method, path))
        if not answers:
            return Answer(404, {"title": "Not Found", "status": 404, "detail": "There is no such thing."})
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                parts = urlsplit(self.path)
                api.asked.append(
                    Asked(
                        self.command,
                        parts.path,
                        parse_qsl(parts.query),
                        {name.lower(): value for name, value in self.headers.items()},
                        json.loads(raw) if raw else None,
                    )
                )
                answer = api._next(self.command, parts.path)
                if answer.status == 0:
                    self.close_connection = True
                    return
                text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                data = b"" if answer.body is None else text.encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

            def log_message(self, *_: object) -> None: ...

        return Handler


JOB: dict[str, Any] = {
    "id": 7,
    "key": None,
    "name": "nightly report",
    "description": None,
    "schedule": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "isRecurring": True,
    "isActive": True,
    "api": "https://example.com/hooks/report",
    "method": "POST",
    "headers": {"Authorization": "***", "X-Team": "billing"},
    "secretHeaders": [],
    "payload": {"full": True},
    "type": "AT_LEAST_ONCE",
    "maxRetryCount": 3,
    "tags": ["billing", "daily"],
    "pool": "default",
    "priority": 5,
    "nextExecutionTime": "2099-01-01T01:30:00.000Z",
    "lastExecutionTime": "2026-01-01T01:30:00.000Z",
    "lastState": "succeeded",
    "createdAt": "2025-12-01T10:00:00.000Z",
    "updatedAt": "2025-12-01T10:00:00.000Z",
    "version": 4,
}

EXECUTION: dict[str, Any] = {
    "id": 1201,
    "jobId": 7,
    "trigger": "schedule",
    "state": "failed",
    "scheduledFor": "2026-01-01T01:30:00.000Z",
    "dueAt": "2026-01-01T01:30:00.000Z",
    "queuedAt": "2026-01-01T01:30:00.004Z",
    "startedAt": "2026-01-01T01:30:07.031Z",
    "finishedAt": "2026-01-01T01:30:07.911Z",
    "executionDurationMs": 880,
    "attempt": 2,
    "retryCount": 1,
    "maxRetryCount": 1,
    "worker": "w-1",
    "responseStatus": 503,
    "responseHeaders": {"content-type": "text/plain"},
    "responseBody": "busy [b]now[/b], \x1b]0;owned\x07come back\nlater",
    "responseBodyEncoding": "utf-8",
    "responseTruncated": False,
    "errorCode": "http_status",
    "errorMessage": "The target answered 503.",
    "jobVersion": 4,
    "phases": {"dnsMs": 1.2, "connectMs": 3.9, "tlsMs": 12, "firstByteMs": 850, "totalMs": 880},
    "attempts": [
        {
            "attempt": 1,
            "startedAt": "2026-01-01T01:30:00.010Z",
            "finishedAt": "2026-01-01T01:30:05.010Z",
            "responseStatus": None,
            "errorCode": "timeout",
            "errorMessage": "No answer within 5 s.",
            "phases": {"totalMs": 5000},
            "worker": "w-1",
        },
        {
            "attempt": 2,
            "startedAt": "2026-01-01T01:30:07.031Z",
            "finishedAt": "2026-01-01T01:30:07.911Z",
            "responseStatus": 503,
            "errorCode": "http_status",
            "errorMessage": "The target answered 503.",
            "phases": {"totalMs": 880},
            "worker": "w-1",
        },
    ],
    "skippedCount": None,
    "redriveOf": None,
}

DEAD_LETTER: dict[str, Any] = {
    "id": 1201,
    "jobId": 7,
    "trigger": "schedule",
    "scheduledFor": "2026-01-01T01:30:00.000Z",
    "failedAt": "2026-01-01T01:30:07.911Z",
    "attempt": 2,
    "retryCount": 1,
    "responseStatus": 503,
    "errorCode": "http_status",
    "errorMessage": "The target answered 503.",
    "payload": {"full": True},
    "lastAttempt": EXECUTION["attempts"][1],
    "queue": "default",
}

PREVIEW: dict[str, Any] = {
    "items": [
        {
            "scheduledFor": "2099-03-28T01:30:00.000Z",
            "dueAt": "2099-03-28T01:30:04.250Z",
            "local": "2099-03-28T02:30:00.000+01:00",
            "remark": None,
        },
        {
            "scheduledFor": "2099-03-29T01:00:00.000Z",
            "dueAt": "2099-03-29T01:00:00.000Z",
            "local": "2099-03-29T03:00:00.000+02:00",
            "remark": "02:30 does not exist on this day (the clock jumps from 02:00 to 03:00); it runs at the "
            "first instant after the gap.",
        },
    ],
    "description": "At 02:30 every day",
}

SECRETS: dict[str, Any] = {
    "items": [
        {
            "id": 2,
            "secret": "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3",
            "createdAt": "2026-01-02T00:00:00.000Z",
            "expiresAt": None,
        },
        {
            "id": 1,
            "secret": "whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "expiresAt": "2099-01-03T00:00:00.000Z",
        },
    ]
}

STATS: dict[str, Any] = {
    "queues": [
        {
            "name": name,
            "pool": "default",
            "ready": 12,
            "processing": 3,
            "retry": 1,
            "completed": 1000,
            "failed": 2,
            "queued": 12,
            "running": 3,
            "pending": 0,
            "retrying": 1,
            "dead": 2,
            "oldestWaitSeconds": 1.25,
        }
        for name in ("default", "default.high")
    ],
    "totals": {
        "ready": 24,
        "processing": 6,
        "queued": 24,
        "running": 6,
        "pending": 0,
        "retrying": 2,
        "dead": 4,
        "oldestWaitSeconds": 1.25,
    },
    "workers": [
        {
            "name": "w-1",
            "host": "app-01",
            "pid": 4711,
            "pools": ["default"],
            "concurrency": 100,
            "inFlight": 3,
            "startedAt": "2026-01-01T00:00:00.000Z",
            "heartbeatAt": "2026-01-01T01:30:00.000Z",
        }
    ],
    "pollerLagSeconds": 0.004,
}

"""Examples of bodies and answers, for the OpenAPI document: by the model's name, each with a line on what it shows.

A test holds them against the schemas; those of requests are also sent.
"""

from collections.abc import Mapping
from typing import Any, Final

REQUEST_ID: Final = "req_8Jx2nVh0cQkq3sYt1LwZbA"

_NIGHTLY: Final[dict[str, Any]] = {
    "key": "nightly-report",
    "name": "Nightly report",
    "schedule": "0 3 * * MON-FRI",
    "timezone": "Europe/Berlin",
    "api": "https://example.com/hooks/report",
    "headers": {"Authorization": "Bearer my-token"},
    "payload": {"report": 7},
    "maxRetryCount": 5,
    "tags": ["reports"],
}

_JOB: Final[dict[str, Any]] = {
    "id": 17,
    **_NIGHTLY,
    "description": None,
    "isRecurring": True,
    "isActive": True,
    "method": "POST",
    "headers": {"Authorization": "***"},
    "secretHeaders": [],
    "type": "AT_LEAST_ONCE",
    "minBackoffSeconds": 1,
    "maxBackoffSeconds": 3600,
    "backoffFactor": 2,
    "backoffJitter": 0.1,
    "timeoutSeconds": 30,
    "successStatus": ["200-299"],
    "noRetryStatus": [],
    "followRedirects": False,
    "misfirePolicy": "fire_once",
    "misfireGraceSeconds": 60,
    "overlapPolicy": "allow",
    "priority": 5,
    "pool": "default",
    "startAt": None,
    "endAt": None,
    "maxRuns": None,
    "jitterSeconds": 0,
    "nextExecutionTime": "2026-12-02T02:00:00.000Z",
    "lastExecutionTime": "2026-12-01T02:00:00.021Z",
    "lastState": "succeeded",
    "createdAt": "2026-11-20T10:15:00.000Z",
    "updatedAt": "2026-11-20T10:15:00.000Z",
    "version": 3,
}

_PHASES: Final = {"dnsMs": 3.1, "connectMs": 11.8, "tlsMs": 24.6, "firstByteMs": 61.2, "totalMs": 101.4}

_FAILED_ATTEMPT: Final[dict[str, Any]] = {
    "attempt": 1,
    "startedAt": "2026-12-01T02:00:00.021Z",
    "finishedAt": "2026-12-01T02:00:00.123Z",
    "responseStatus": 503,
    "errorCode": "http_status",
    "errorMessage": "The target answered 503.",
    "phases": _PHASES,
    "worker": "worker-1",
}

_SUCCEEDED: Final[dict[str, Any]] = {
    "id": 4021,
    "jobId": 17,
    "trigger": "schedule",
    "state": "succeeded",
    "scheduledFor": "2026-12-01T02:00:00.000Z",
    "dueAt": "2026-12-01T02:00:00.000Z",
    "queuedAt": "2026-12-01T02:00:00.009Z",
    "startedAt": "2026-12-01T02:00:01.140Z",
    "finishedAt": "2026-12-01T02:00:01.241Z",
    "executionDurationMs": 101.4,
    "attempt": 2,
    "retryCount": 1,
    "maxRetryCount": 5,
    "worker": "worker-1",
    "responseStatus": 200,
    "responseHeaders": {"content-type": "application/json"},
    "responseBody": '{"done":true}',
    "responseBodyEncoding": "utf-8",
    "responseTruncated": False,
    "errorCode": None,
    "errorMessage": None,
    "jobVersion": 3,
    "phases": _PHASES,
    "attempts": [
        _FAILED_ATTEMPT,
        {
            **_FAILED_ATTEMPT,
            "attempt": 2,
            "startedAt": "2026-12-01T02:00:01.140Z",
            "finishedAt": "2026-12-01T02:00:01.241Z",
            "responseStatus": 200,
            "errorCode": None,
            "errorMessage": None,
        },
    ],
    "skippedCount": None,
    "redriveOf": None,
}

_PENDING: Final[dict[str, Any]] = dict.fromkeys(_SUCCEEDED) | {
    "id": 4022,
    "jobId": 17,
    "trigger": "manual",
    "state": "pending",
    "scheduledFor": "2026-12-01T09:30:00.000Z",
    "dueAt": "2026-12-01T09:30:00.000Z",
    "attempt": 0,
    "retryCount": 0,
    "maxRetryCount": 5,
    "responseTruncated": False,
    "attempts": [],
}

_DEAD_LETTER: Final[dict[str, Any]] = {
    "id": 3990,
    "jobId": 17,
    "trigger": "schedule",
    "scheduledFor": "2026-11-30T02:00:00.000Z",
    "failedAt": "2026-11-30T02:01:07.513Z",
    "attempt": 6,
    "retryCount": 5,
    "responseStatus": 503,
    "errorCode": "http_status",
    "errorMessage": "The target answered 503.",
    "payload": {"report": 7},
    "lastAttempt": {**_FAILED_ATTEMPT, "attempt": 6},
    "queue": "default",
}

_FIGURES: Final[dict[str, Any]] = {
    "ready": 2,
    "processing": 1,
    "retry": 0,
    "completed": 311,
    "failed": 4,
    "queued": 2,
    "running": 1,
    "pending": 5,
    "retrying": 0,
    "dead": 4,
    "oldestWaitSeconds": 0.214,
}

_CHECKS: Final = {"database": "ok", "schema": "ok", "redis": "ok", "poller": "ok"}

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "JobCreate": {
        "A report on weekdays": _NIGHTLY,
        "Every 90 seconds, with a token": {
            "schedule": "@every 90s",
            "api": "https://example.com/hooks/poll",
            "method": "GET",
            "headers": {"X-Token": "my-token"},
            "secretHeaders": ["X-Token"],
        },
        "Once, at most once": {
            "schedule": "2036-12-01T09:00:00+01:00",
            "api": "https://example.com/hooks/invoice",
            "payload": {"invoice": 4711},
            "type": "AT_MOST_ONCE",
        },
    },
    "JobPatch": {
        "Another schedule": {"schedule": "0 4 * * *", "timezone": None},
        "Other headers": {"headers": {"Authorization": "Bearer another-token"}},
    },
    "Job": {"A job": _JOB},
    "JobPage": {"The last page": {"items": [_JOB], "nextCursor": None}},
    "JobList": {"Two jobs": [_NIGHTLY, {"schedule": "@hourly", "api": "https://example.com/hooks/poll"}]},
    "BulkCreated": {
        "All of them": {"created": 2, "ids": [17, 18], "errors": []},
        "Partly": {
            "created": 1,
            "ids": [17],
            "errors": [
                {"index": 1, "errors": [{"pointer": "/priority", "message": "must be at most 10"}]},
            ],
        },
    },
    "PreviewIn": {"Over a change of the clock": {"schedule": "30 2 * * *", "timezone": "Europe/Berlin"}},
    "Upcoming": {
        "A run that a gap moves": {
            "items": [
                {
                    "scheduledFor": "2027-03-28T01:00:00.000Z",
                    "dueAt": "2027-03-28T01:00:00.000Z",
                    "local": "2027-03-28T03:00:00.000+02:00",
                    "remark": "02:30 is skipped by the clock; runs at 03:00",
                }
            ],
            "description": "At 02:30 every day",
        }
    },
    "RunIn": {"Another payload": {"payload": {"report": 8}}},
    "Execution": {"One that waits": _PENDING, "One that succeeded at its second attempt": _SUCCEEDED},
    "ExecutionPage": {"A page": {"items": [_PENDING, _SUCCEEDED], "nextCursor": "ZXhlY3V0aW9uczo0MDIx"}},
    "DeadLetterPage": {"The last page": {"items": [_DEAD_LETTER], "nextCursor": None}},
    "RedriveIn": {
        "By id, with a corrected payload": {"ids": [3990], "payload": {"report": 9}},
        "What a job left, one a second": {"filter": {"jobId": 17}, "ratePerSecond": 1},
    },
    "Redrive": {"Accepted": {"id": 12, "matched": 40}},
    "RedriveProgress": {"Half done": {"id": 12, "matched": 40, "done": 20, "failed": 1, "state": "running"}},
    "DiscardIn": {
        "By ids": {"ids": [3990, 3991]},
        "Of one error": {"filter": {"errorCode": "dns_failed"}},
    },
    "Discarded": {"What was discarded": {"discarded": 2}},
    "SigningSecretList": {
        "After a rotation": {
            "items": [
                {
                    "id": 2,
                    "secret": "whsec_ZXhhbXBsZS1vZi1hLXNlY3JldC1vZi0zMi1ieXRlcyE=",
                    "createdAt": "2026-12-01T09:30:00.000Z",
                    "expiresAt": None,
                },
                {
                    "id": 1,
                    "secret": "whsec_YW4tb2xkZXItZXhhbXBsZS1vZi0zMi1ieXRlcy0tLSE=",
                    "createdAt": "2026-06-01T09:30:00.000Z",
                    "expiresAt": "2026-12-02T09:30:00.000Z",
                },
            ]
        }
    },
    "QueueStats": {
        "One worker": {
            "queues": [{"name": "default", "pool": "default", **_FIGURES}],
            "totals": _FIGURES,
            "workers": [
                {
                    "name": "worker-1",
                    "host": "app-1",
                    "pid": 71,
                    "pools": ["default"],
                    "concurrency": 100,
                    "inFlight": 1,
                    "startedAt": "2026-12-01T00:00:00.000Z",
                    "heartbeatAt": "2026-12-01T09:30:00.000Z",
                }
            ],
            "pollerLagSeconds": 0.012,
        }
    },
    "Metrics": {
        "Two of the figures": (
            "# HELP jobsched_lag_seconds By how much firing is late.\n# TYPE jobsched_lag_seconds gauge\n"
            "jobsched_lag_seconds 0.012\n# HELP jobsched_executions Live executions, by queue and state.\n"
            '# TYPE jobsched_executions gauge\njobsched_executions{queue="default",state="queued"} 3.0\n'
        )
    },
    "Health": {"Alive": {"status": "ok"}},
    "Readiness": {
        "All is well": {"status": "ok", "checks": _CHECKS},
        "Nothing runs jobs": {"status": "degraded", "checks": {**_CHECKS, "poller": "none is alive"}},
        "No database": {
            "status": "unavailable",
            "checks": {
                "database": "cannot be reached",
                "schema": "unknown",
                "redis": "ok",
                "poller": "unknown",
            },
        },
    },
}

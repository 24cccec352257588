"""/queue/stats, /metrics, /health, /ready"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from flask import Response
from flask_openapi3.models.tag import Tag

from jobsched import metrics
from jobsched.clock import rfc3339
from jobsched.db.connection import converted
from jobsched.db.stats import QueueStats
from jobsched.domain.queues import pool_of, queues_of
from jobsched.errors import DatabaseError, JobschedError, SchemaMismatch
from jobsched.log import get_logger
from jobsched.queue.broker import RqCounts
from jobsched.web import figures, schemas, serialize
from jobsched.web.auth import principal
from jobsched.web.probe import Probe
from jobsched.web.routing import Api
from jobsched.web.services import Services

TAG = Tag(name="operation", description="How the installation is.")

_RQ: Final = ("ready", "processing", "retry", "completed", "failed")
#: Seconds after which a schedule that is due tells of a poller that does not do its work.
_OVERDUE: Final = 30.0
_OURS: Final = ("queued", "running", "pending", "retrying", "dead")


def register(api: Api, services: Services) -> None:
    """Add the routes for operators."""
    check_schema = Probe(services.check_schema)

    @api.route("GET", "/queue/stats", tag=TAG, role="read", answers={200: schemas.QueueStats})
    def queue_stats() -> Response:
        """Read the figures of queues, workers and pollers.

        While Redis is away, RQ's numbers are null and the rest is answered as ever.
        """
        known = {queue.name: queue for queue in services.stats.queues(principal().project_id)}
        workers = services.stats.workers()
        pools = {"default", *map(pool_of, known), *(pool for worker in workers for pool in worker.pools)}
        names = [name for pool in sorted(pools) for name in queues_of(pool)]
        counts = services.rq_counts(names)
        figures = [_queue(name, known.get(name), counts) for name in names]
        # A pool's own queue is always listed; its .high and .low ones when there is anything to say.
        shown = [queue for queue in figures if queue["name"] == queue["pool"] or any(_numbers(queue))]
        return serialize.answer(
            {
                "queues": shown,
                "totals": _totals(figures),
                "workers": [
                    {
                        "name": worker.name,
                        "host": worker.host,
                        "pid": worker.pid,
                        "pools": worker.pools,
                        "concurrency": worker.concurrency,
                        "inFlight": worker.in_flight,
                        "startedAt": rfc3339(worker.started_at),
                        "heartbeatAt": rfc3339(worker.heartbeat_at),
                    }
                    for worker in workers
                ],
                "pollerLagSeconds": services.stats.poller().lag_seconds,
            }
        )

    @api.route("GET", "/metrics", tag=TAG, role="read", answers={200: None}, text="Metrics")
    def read_metrics() -> Response:
        """Read the figures for Prometheus.

        Those of the whole installation and of this API process, in Prometheus' text format 0.0.4. While Redis is
        away its figures are left out. Pollers and workers serve their own on ports of their own.
        """
        return Response(figures.exposition(services), content_type=metrics.CONTENT_TYPE)

    @api.route("GET", "/health", tag=TAG, answers={200: schemas.Health}, any_query=True)
    def health() -> Response:
        """Whether this process is alive.

        Touches nothing else.
        """
        return serialize.answer({"status": "ok"})

    @api.route(
        "GET",
        "/ready",
        tag=TAG,
        answers={200: schemas.Readiness, 503: schemas.Readiness},
        any_query=True,
    )
    def ready() -> Response:
        """Whether requests can be served.

        503 when the database cannot be reached or its schema is not that of this version. Without Redis or
        a poller: 200 and `degraded`, since jobs can be registered and read.
        """
        checks = {"database": "ok", "schema": "ok", "redis": services.redis_fault() or "ok", "poller": "ok"}
        checks |= _database_checks(check_schema)
        served = checks["database"] == checks["schema"] == "ok"
        checks["poller"] = _poller_check(services) if served else "unknown"
        status = "unavailable" if not served else "degraded" if set(checks.values()) != {"ok"} else "ok"
        headers = {} if served else {"Retry-After": "5"}
        return serialize.answer({"status": status, "checks": checks}, 200 if served else 503, headers)


def _database_checks(check_schema: Callable[[], None]) -> dict[str, str]:
    try:
        check_schema()
    except SchemaMismatch as error:
        get_logger(component="web").warning("not_ready", error=str(error))
        return {"schema": "not that of this version; run `jobsched migrate`"}
    except JobschedError as error:
        get_logger(component="web").warning("not_ready", error=str(error))
        return {"database": "cannot be reached", "schema": "unknown"}
    return {}


def _poller_check(services: Services) -> str:
    try:
        with converted(), services.connection():
            pollers = services.stats.poller()
    except DatabaseError:
        return "unknown"
    if not pollers.alive:
        return "none is alive"
    # One that beats and does not fire is none either: its loop hangs, or a lock holds it.
    return "ok" if pollers.overdue_seconds < _OVERDUE else "alive, but what is due is not fired"


def _queue(name: str, known: QueueStats | None, counts: Mapping[str, RqCounts] | None) -> dict[str, Any]:
    rq = None if counts is None else counts.get(name, RqCounts(0, 0, 0, 0, 0))
    return {
        "name": name,
        "pool": pool_of(name),
        **{field: None if rq is None else getattr(rq, field) for field in _RQ},
        **{field: 0 if known is None else getattr(known, field) for field in _OURS},
        "oldestWaitSeconds": 0.0 if known is None else round(known.oldest_wait_seconds, 3),
    }


def _totals(queues: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums over all queues; of the oldest waits, the longest."""
    listed = list(queues)
    totals: dict[str, Any] = {}
    for field in (*_RQ, *_OURS):
        values = [queue[field] for queue in listed]
        totals[field] = None if None in values else sum(values)
    totals["oldestWaitSeconds"] = max((queue["oldestWaitSeconds"] for queue in listed), default=0.0)
    return totals


def _numbers(queue: Mapping[str, Any]) -> Iterable[Any]:
    return (queue[field] for field in (*_RQ, *_OURS))

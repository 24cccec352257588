"""What ``GET /metrics`` answers: the installation's figures from the servers, and this process's own."""

import re
from collections import defaultdict
from functools import cache

from flask import Response, request

from jobsched import clock, metrics
from jobsched.domain.queues import pool_of, queues_of
from jobsched.domain.states import LIVE
from jobsched.web.services import Services

# What a browser or a client of HTTP knows; anything else a caller may invent.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def exposition(services: Services) -> bytes:
    """All figures as text. Raises the database's errors; without Redis its own are left out."""
    return metrics.exposition(_installation(services).registry, metrics.API)


def count(response: Response, seconds: float) -> None:
    """Count the present request, answered by ``response`` after ``seconds``."""
    rule = request.url_rule
    route = "none" if rule is None else _template(rule.rule)
    method = request.method if request.method in _METHODS else "other"
    metrics.requests.labels(method, route, f"{response.status_code // 100}xx").inc()
    metrics.request_duration.labels(method, route).observe(seconds)


@cache
def _template(rule: str) -> str:
    """A route as the OpenAPI document writes it: ``/api/v1/jobs/{id}``."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _installation(services: Services) -> metrics.Installation:
    shown = metrics.Installation()
    before = clock.utc_now().timestamp()
    vitals = services.stats.vitals()
    # The database looked at its clock somewhere between the question and the answer.
    shown.clock_skew.set(vitals.clock - (before + clock.utc_now().timestamp()) / 2)
    shown.schedules_oldest_due.set(vitals.schedules_oldest_due_seconds)
    shown.oldest_transaction.set(vitals.oldest_transaction_seconds)
    shown.database_size.set(vitals.size_bytes)
    shown.history_covered.set(vitals.history_covered_seconds)
    shown.history_default.set(vitals.history_in_default)
    if vitals.poller_heartbeat_age_seconds is None:
        shown.registry.unregister(shown.heartbeat_age)
    else:
        shown.heartbeat_age.set(vitals.poller_heartbeat_age_seconds)

    workers, poller = services.stats.workers(), services.stats.poller()
    shown.lag.set(poller.lag_seconds or 0.0)
    shown.processes.labels("worker").set(len(workers))
    shown.processes.labels("poller").set(poller.alive)
    shown.seats.set(sum(worker.concurrency for worker in workers))
    shown.seats_used.set(sum(worker.in_flight for worker in workers))

    depths = services.stats.depths()
    pools = {
        "default",
        *(pool_of(one.queue) for one in depths),
        *(p for worker in workers for p in worker.pools),
    }
    queues = [queue for pool in sorted(pools) for queue in queues_of(pool)]
    oldest: defaultdict[str, float] = defaultdict(float)
    for queue in queues:
        for state in LIVE:
            shown.executions.labels(queue, state)  # 0 until it is set
    for one in depths:
        shown.executions.labels(one.queue, one.state).set(one.count)
        oldest[one.queue] = max(oldest[one.queue], one.oldest_due_seconds)
    for queue in queues:
        shown.oldest_due.labels(queue).set(oldest[queue])
    for dead in services.stats.dead_letters():
        shown.dead_letters.labels(dead.queue, dead.error_code).set(dead.count)

    counts = services.rq_counts(queues)
    shown.redis_up.set(counts is not None)
    if counts is not None:
        for queue in queues:
            shown.messages.labels(queue).set(counts[queue].ready if queue in counts else 0)
    return shown

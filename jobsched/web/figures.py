"""What ``GET /metrics`` answers: the installation's figures from the servers, and this process's own."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from flask import Response, request

from jobsched import clock, metrics
from jobsched.db.stats import DeadLetters, Depth
from jobsched.domain.queues import pool_of, queues_of
from jobsched.domain.states import LIVE
from jobsched.web.services import Services

# What a browser or a client of HTTP knows; anything else a caller may invent.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: Pools that have series of their own at most. A pool is whatever a job names, and each value of a label is a series
#: that Prometheus keeps for weeks.
MOST_POOLS = 200

#: What stands for the queues of all others.
OTHER = "other"


def exposition(services: Services) -> bytes:
    """All figures as text. Raises the database's errors; without Redis its own are left out."""
    return metrics.exposition(_installation(services).registry, metrics.API)


def count(response: Response, seconds: float) -> None:
    """Count the present request, answered by ``response`` after ``seconds``."""
    rule = request.url_rule
    route = "none" if rule is None else _template(rule.rule)
    method = request.method if request.method in _METHODS else "other"
    requests, durations = _series(method, route, response.status_code // 100)
    requests.inc()
    durations.observe(seconds)


@cache
def _series(method: str, route: str, hundreds: int) -> tuple[Any, Any]:
    labels = method, route
    return metrics.requests.labels(*labels, f"{hundreds}xx"), metrics.request_duration.labels(*labels)


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

    depths, dead_letters = services.stats.depths(), services.stats.dead_letters()
    known = {pool for worker in workers for pool in worker.pools}
    pools = _largest(known, depths, dead_letters)
    queues = [queue for pool in sorted(pools) for queue in queues_of(pool)]
    named = frozenset(queues)
    live: Counter[tuple[str, str]] = Counter()
    oldest: defaultdict[str, float] = defaultdict(float)
    for one in depths:
        queue = one.queue if one.queue in named else OTHER
        live[queue, one.state] += one.count
        oldest[queue] = max(oldest[queue], one.oldest_due_seconds)
    shown_queues = [*queues, OTHER] if OTHER in oldest and OTHER not in named else queues
    for queue in shown_queues:
        for state in LIVE:
            shown.executions.labels(queue, state).set(live[queue, state])
        shown.oldest_due.labels(queue).set(oldest[queue])
    dead: Counter[tuple[str, str]] = Counter()
    for letters in dead_letters:
        dead[letters.queue if letters.queue in named else OTHER, letters.error_code] += letters.count
    for labels, count in dead.items():
        shown.dead_letters.labels(*labels).set(count)

    counts = services.rq_counts(queues)
    shown.redis_up.set(counts is not None)
    if counts is not None:
        for queue in queues:
            shown.messages.labels(queue).set(counts[queue].ready if queue in counts else 0)
    return shown


def _largest(known: set[str], depths: Sequence[Depth], dead_letters: Sequence[DeadLetters]) -> list[str]:
    """The pools whose queues are shown by name: default, and those of workers or with the most in them."""
    sizes = Counter(dict.fromkeys(known, 0))
    counts: list[tuple[str, int]] = [(one.queue, one.count) for one in depths]
    counts += [(one.queue, one.count) for one in dead_letters]
    for queue, count in counts:
        sizes[pool_of(queue)] += count
    sizes.pop("default", None)
    # Those of workers first, which nobody makes by naming them in a job; then the largest, by name where equal.
    order = sorted(sizes, key=lambda pool: (pool not in known, -sizes[pool], pool))
    return ["default", *order[: MOST_POOLS - 1]]

"""Every figure that jobsched gives to Prometheus, and the only part that knows Prometheus' client library.

A counter counts for the whole process, as the library wants it, so that no constructor has to carry one. Which
process shows which figure is the registry's business: ``API``, ``POLLER``, ``WORKER``. What is read from the servers
for one answer stands in ``Installation``. docs/metrics.md lists them all; a test holds the two together.

Labels are bounded: queues, states, codes and routes. Never an id, a URL or a host of a target: each value is a
series that Prometheus keeps for weeks.
"""

from functools import partial
from itertools import product
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from jobsched.metrics.spread import LabelledSpread, Spread
from jobsched.metrics.text import written

#: Of what ``exposition`` returns; every Prometheus reads it.
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Registry = CollectorRegistry
API, POLLER, WORKER = Registry(), Registry(), Registry()

# Each would double a counter's series, to say what Prometheus finds out by itself.
disable_created_metrics()  # type: ignore[no-untyped-call]
for _registry in (API, POLLER, WORKER):
    ProcessCollector(registry=_registry)
    PlatformCollector(registry=_registry)
    GCCollector(registry=_registry)

Shared = TypeVar("Shared", Counter, Gauge)


def exposition(*registries: Registry) -> bytes:
    """The figures of ``registries`` as text, in Prometheus' format 0.0.4."""
    return "".join(map(written, registries)).encode()


def _shared(metric: Shared) -> Shared:
    """One that pollers and workers both have."""
    for registry in (POLLER, WORKER):
        registry.register(metric)
    return metric


#: Seconds. Lateness and delays: the promise is within a second or two; above it, minutes matter.
_LATE = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)
#: Seconds. Calls: from targets nearby up to the longest timeout, 1,800.
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
#: Seconds. Requests to the API, and rounds of a poller.
_ROUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)

# ---------------------------------------------------------------------------------------------------------------
# Pollers and workers

push_failures = _shared(
    Counter(
        "jobsched_push_failures_total",
        "Times that Redis did not take ids; recovery pushes them later.",
        registry=None,
    )
)
foreign_messages = _shared(
    Counter(
        "jobsched_foreign_messages_dropped_total",
        "Entries of our lists in Redis that were no execution ids.",
        registry=None,
    )
)

# ---------------------------------------------------------------------------------------------------------------
# Pollers

service_failures = Counter(
    "jobsched_poller_service_failures_total",
    "Rounds of a background loop that failed and are tried again, by the loop and the error's code.",
    ["service", "code"],
    registry=POLLER,
)
slots_fired = Counter("jobsched_poller_slots_fired_total", "Slots that became executions.", registry=POLLER)
slots_skipped = Counter(
    "jobsched_poller_slots_skipped_total",
    "Slots and requests that are not run: misfire, overlap or backlog.",
    ["reason"],
    registry=POLLER,
)
released = Counter(
    "jobsched_poller_executions_released_total",
    "Executions that waited (pending or retrying) and became queued.",
    registry=POLLER,
)
blocked = Counter(
    "jobsched_poller_executions_blocked_total",
    "Executions that wait until their job is free.",
    registry=POLLER,
)
unblocked = Counter(
    "jobsched_poller_executions_unblocked_total",
    "Blocked executions that reconcile let go, since nobody else had.",
    registry=POLLER,
)
lateness = Spread(
    "jobsched_poller_slot_lateness_seconds",
    "From a slot's due time, jitter included, to its execution, by the database's clock.",
    buckets=_LATE,
    registry=POLLER,
)
lag = Gauge(
    "jobsched_poller_lag_seconds",
    "By how much the latest slot of the last round was late.",
    registry=POLLER,
)
last_round = Gauge(
    "jobsched_poller_last_round_timestamp_seconds",
    "When a round of firing and releasing last succeeded, in Unix time.",
    registry=POLLER,
)
round_duration = Spread(
    "jobsched_poller_round_duration_seconds",
    "One round of firing and releasing.",
    buckets=_ROUNDS,
    registry=POLLER,
)
poller_clock_skew = Gauge(
    "jobsched_poller_clock_skew_seconds",
    "The database's clock less this process's.",
    registry=POLLER,
)
recovered = Counter(
    "jobsched_poller_executions_recovered_total",
    "Executions taken back (reason: worker_lost, overdue) and where they went (state: retrying, failed, cancelled).",
    ["reason", "state"],
    registry=POLLER,
)
declared_dead = Counter(
    "jobsched_poller_processes_declared_dead_total",
    "Workers and pollers that stopped beating.",
    ["kind"],
    registry=POLLER,
)
pushed_again = Counter(
    "jobsched_poller_messages_pushed_again_total",
    "Messages that Redis had lost, one by one.",
    registry=POLLER,
)
refills = Counter(
    "jobsched_poller_redis_refills_total",
    "Times that Redis was empty or another one while executions were queued.",
    registry=POLLER,
)
refilled = Counter(
    "jobsched_poller_redis_refilled_executions_total",
    "Executions that were pushed again by those refills.",
    registry=POLLER,
)
set_aside = Counter(
    "jobsched_poller_set_aside_total",
    "Rows that cannot be handled and are tried again in an hour: schedule or execution.",
    ["kind"],
    registry=POLLER,
)

# ---------------------------------------------------------------------------------------------------------------
# Workers

attempts = Counter(
    "jobsched_worker_attempts_total",
    "Attempts recorded, by where the execution went and the error's code (none: no error).",
    ["state", "error_code"],
    registry=WORKER,
)
attempt_duration = Spread(
    "jobsched_worker_attempt_duration_seconds",
    "A whole call, from the lookup of the name to the answer's last byte.",
    buckets=_CALLS,
    registry=WORKER,
)
start_delay = Spread(
    "jobsched_worker_start_delay_seconds",
    "From an execution's due time, or its retry's, to its claim (startedAt), by the database's clock.",
    buckets=_LATE,
    registry=WORKER,
)
seats = Gauge("jobsched_worker_seats", "Calls that this worker makes at once at most.", registry=WORKER)
seats_used = Gauge(
    "jobsched_worker_seats_used",
    "Executions that are called or whose outcome waits to be recorded.",
    registry=WORKER,
)
claimed = Counter(
    "jobsched_worker_executions_claimed_total", "Executions that this worker took.", registry=WORKER
)
dropped = Counter(
    "jobsched_worker_messages_dropped_total",
    "Ids taken from Redis whose execution was not queued any more.",
    registry=WORKER,
)
takes_failed = Counter(
    "jobsched_worker_takes_failed_total", "Times that Redis gave no answer to a take.", registry=WORKER
)
claims_postponed = Counter(
    "jobsched_worker_claims_postponed_total", "Times that Postgres did not take a claim.", registry=WORKER
)
recordings_postponed = Counter(
    "jobsched_worker_recordings_postponed_total",
    "Times that Postgres did not take a batch of outcomes.",
    registry=WORKER,
)
fenced = Counter(
    "jobsched_worker_outcomes_fenced_total",
    "Outcomes dropped, since others own the executions by now.",
    registry=WORKER,
)
handed_back = Counter(
    "jobsched_worker_executions_handed_back_total",
    "Executions queued again without an attempt: nothing was sent.",
    registry=WORKER,
)
unknown_rows = Counter(
    "jobsched_worker_unknown_rows_returned_total",
    "Executions that carried this worker's id without its knowing them.",
    registry=WORKER,
)
given_up = Counter(
    "jobsched_worker_identities_given_up_total",
    "Times that this worker found itself declared dead.",
    registry=WORKER,
)
interrupted = Counter(
    "jobsched_worker_calls_interrupted_total",
    "Calls that a stop found still running when the grace was over.",
    registry=WORKER,
)
beats = Counter(
    "jobsched_worker_beats_total",
    "Signs of life: committed, failed (the database was away), loop_still (none was sent), refused (declared dead).",
    ["result"],
    registry=WORKER,
)
connections = Counter(
    "jobsched_worker_connections_opened_total", "Sockets opened to targets or the proxy.", registry=WORKER
)

# A series that begins at 1 has never increased, so an alarm on a rare event would miss the first one.
for _metric, _labels in (
    (slots_skipped, [("misfire",), ("overlap",), ("backlog",)]),
    (recovered, list(product(("worker_lost", "overdue"), ("retrying", "failed", "cancelled")))),
    (declared_dead, [("worker",), ("poller",)]),
    (set_aside, [("schedule",), ("execution",)]),
    (beats, [("committed",), ("failed",), ("loop_still",), ("refused",)]),
):
    for _values in _labels:
        _metric.labels(*_values)

# ---------------------------------------------------------------------------------------------------------------
# The API

requests = Counter(
    "jobsched_http_requests_total",
    "Requests answered, by route (none: no such path) and class of the status, such as 2xx.",
    ["method", "route", "status"],
    registry=API,
)
request_duration = LabelledSpread(
    "jobsched_http_request_duration_seconds",
    "From a request's head to its answer.",
    ["method", "route"],
    buckets=_ROUNDS,
    registry=API,
)


class Installation:
    """Figures of the whole installation, read for one answer of the API. They are those of all projects."""

    def __init__(self) -> None:
        self.registry = Registry()
        gauge = partial(Gauge, registry=self.registry)
        self.executions = gauge(
            "jobsched_executions", "Live executions, by queue and state.", ["queue", "state"]
        )
        self.dead_letters = gauge(
            "jobsched_dead_letters",
            "Dead letters that are neither redriven nor discarded.",
            ["queue", "error_code"],
        )
        self.messages = gauge(
            "jobsched_queue_messages",
            "Ids in the lists of Redis; no figure while Redis is away.",
            ["queue"],
        )
        self.oldest_due = gauge(
            "jobsched_queue_oldest_due_seconds",
            "Since the oldest execution that is due and not running was due; 0 where none waits.",
            ["queue"],
        )
        self.schedules_oldest_due = gauge(
            "jobsched_schedules_oldest_due_seconds",
            "Since the oldest slot that is due and not fired was due; 0 where none waits.",
        )
        self.lag = gauge(
            "jobsched_lag_seconds",
            "By how much firing is late: the worst of what pollers last measured and what is overdue now.",
        )
        self.heartbeat_age = gauge(
            "jobsched_poller_heartbeat_age_seconds",
            "Since a poller last gave a sign of life, by the database's clock; no figure where none is known.",
        )
        self.processes = gauge(
            "jobsched_processes_alive", "Processes that gave a sign of life within 30 s.", ["kind"]
        )
        self.seats = gauge("jobsched_seats", "Seats of all workers that are alive.")
        self.seats_used = gauge("jobsched_seats_used", "Those of them that are taken, at the last beats.")
        self.oldest_transaction = gauge(
            "jobsched_database_oldest_transaction_seconds",
            "Age of the oldest open transaction in our database that we may see; 0 where there is none.",
        )
        self.database_size = gauge("jobsched_database_size_bytes", "What our database takes on its disk.")
        self.history_covered = gauge(
            "jobsched_history_covered_seconds",
            "From now to the first day that has no partition of the history.",
        )
        self.history_default = gauge(
            "jobsched_history_in_default_partition",
            "1 where history fell into the default partition, since its day had none.",
        )
        self.clock_skew = gauge(
            "jobsched_clock_skew_seconds", "The database's clock less that of this API process."
        )
        self.redis_up = gauge("jobsched_redis_up", "Whether Redis answers the API: 1 or 0.")

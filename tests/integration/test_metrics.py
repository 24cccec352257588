"""Metrics with real rows and real servers: what the API answers of an installation, and what each move counts."""

import uuid
from typing import Any

import pytest

from jobsched import metrics
from jobsched.db import workers
from jobsched.db.connection import Link
from jobsched.errors import DatabaseUnavailable
from jobsched.poller.fire import Fire
from jobsched.poller.process import Dispatch
from jobsched.poller.reconcile import Reconcile
from jobsched.queue.broker import Broker, RqCounts
from jobsched.queue.connection import connect
from jobsched.testing.target import Target
from jobsched.worker.process import Worker
from tests.conftest import eventually
from tests.integration.api_rig import Api, api, assert_problem
from tests.integration.factories import make_execution, make_job, make_worker
from tests.integration.test_worker import enqueue, settings, worker
from tests.unit.test_metrics import samples

__all__ = ["api", "settings", "worker"]


class Since:
    """How much each series of a process has grown since this was made."""

    def __init__(self, registry: metrics.Registry) -> None:
        self._registry = registry
        self._before = samples(metrics.exposition(registry))

    def __call__(self, name: str, **labels: str) -> float:
        series = name, frozenset(labels.items())
        return samples(metrics.exposition(self._registry)).get(series, 0.0) - self._before.get(series, 0.0)


def scraped(api: Api) -> Any:
    """The value of a series in what the API answers."""
    answer = api.call("GET", "/metrics", key="read")
    assert answer.status_code == 200, answer.text
    assert answer.content_type == metrics.CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.data)
    return lambda name, **labels: found[name, frozenset(labels.items())]


def test_an_empty_installation_has_its_figures_too(api: Api) -> None:
    value = scraped(api)
    for state in ("pending", "queued", "running", "retrying", "blocked"):
        assert value("jobsched_executions", queue="default", state=state) == 0
    assert value("jobsched_queue_oldest_due_seconds", queue="default.high") == 0
    assert value("jobsched_schedules_oldest_due_seconds") == value("jobsched_lag_seconds") == 0
    assert value("jobsched_processes_alive", kind="poller") == 0
    assert value("jobsched_seats") == value("jobsched_seats_used") == 0
    assert value("jobsched_redis_up") == 1
    assert value("jobsched_queue_messages", queue="default") == 0
    assert value("jobsched_database_size_bytes") > 1_000_000
    assert 14 * 86400 < value("jobsched_history_covered_seconds") <= 15 * 86400
    assert value("jobsched_history_in_default_partition") == 0
    assert abs(value("jobsched_clock_skew_seconds")) < 1
    with pytest.raises(KeyError):
        value("jobsched_poller_heartbeat_age_seconds")


def test_the_installation_is_counted_by_queue_state_and_code(api: Api, link: Link) -> None:
    api.rq = {"eu.high": RqCounts(7, 0, 0, 0, 0)}
    job = make_job(link, due="clock_timestamp() - interval '90 s'")
    for state in ("queued", "queued", "pending", "blocked", "retrying"):
        make_execution(link, job, state, pool="'eu'", queue="'eu.high'")
    make_execution(link, job, "pending", pool="'eu'", queue="'eu'", due_at="now() - interval '1 hour'")
    link.execute(
        "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, queue, "
        "failed_at, error_code) SELECT n, 1, %s, 'manual', now(), 1, 0, 'eu', now(), code "
        "FROM unnest(ARRAY['timeout', 'timeout', 'poison']) WITH ORDINALITY AS c (code, n)",
        (job,),
    )
    workers.beat(link, make_worker(link), in_flight=3)
    poller = uuid.uuid4()
    workers.register(link, id=poller, kind="poller", name="p", host="h", pid=1, pools=(), concurrency=0)
    workers.beat(link, poller, lag_seconds=200.0)
    link.execute("UPDATE worker_process SET heartbeat_at = now() - interval '5 s' WHERE kind = 'poller'")
    value = scraped(api)
    counted = {
        state: value("jobsched_executions", queue="eu.high", state=state) for state in ("queued", "blocked")
    }
    assert counted == {"queued": 2, "blocked": 1}
    assert value("jobsched_executions", queue="eu.high", state="running") == 0
    assert 3600 <= value("jobsched_queue_oldest_due_seconds", queue="eu") < 3660
    assert 90 <= value("jobsched_schedules_oldest_due_seconds") < 120
    assert value("jobsched_dead_letters", queue="eu", error_code="timeout") == 2
    assert value("jobsched_dead_letters", queue="eu", error_code="poison") == 1
    assert value("jobsched_queue_messages", queue="eu.high") == 7
    assert (
        value("jobsched_processes_alive", kind="worker")
        == value("jobsched_processes_alive", kind="poller")
        == 1
    )
    assert value("jobsched_seats_used") == 3
    assert value("jobsched_lag_seconds") == 200
    assert 5 <= value("jobsched_poller_heartbeat_age_seconds") < 30


def test_pools_without_number_make_a_bounded_number_of_series(
    api: Api, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsched.web.figures.MOST_POOLS", 3)
    make_worker(link)
    link.execute("UPDATE worker_process SET pools = '{mine}'")
    job = make_job(link, due=None)
    for pool, count in {"large": 3, "small": 2, "tiny": 1}.items():
        for _ in range(count):
            make_execution(link, job, "queued", pool=f"'{pool}'", queue=f"'{pool}.high'")
    value = scraped(api)
    assert value("jobsched_executions", queue="large.high", state="queued") == 3
    assert value("jobsched_executions", queue="mine", state="queued") == 0
    assert value("jobsched_executions", queue="other", state="queued") == 3
    with pytest.raises(KeyError):
        value("jobsched_executions", queue="small.high", state="queued")


def test_a_transaction_that_stays_open_is_seen(api: Api, link: Link) -> None:
    with link.transaction() as cursor:
        cursor.execute("SELECT pg_sleep(0.2)")
        assert scraped(api)("jobsched_database_oldest_transaction_seconds") >= 0.2


def test_a_day_without_a_partition_is_foretold(fresh_database_url: str) -> None:
    from tests.integration.api_rig import opened

    with opened(fresh_database_url) as rig:
        [(name,)] = rig.sql(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = "
            "'execution_history'::regclass AND c.relname LIKE 'execution_history_' || to_char((now() AT TIME ZONE "
            "'UTC')::date + 2, 'YYYYMMDD') || '%%'"
        )
        rig.sql(f"DROP TABLE {name}")
        assert 86400 < scraped(rig)("jobsched_history_covered_seconds") <= 2 * 86400


def test_without_redis_its_figures_are_left_out(api: Api) -> None:
    api.rq = None
    value = scraped(api)
    assert value("jobsched_redis_up") == 0
    assert value("jobsched_executions", queue="default", state="queued") == 0
    with pytest.raises(KeyError):
        value("jobsched_queue_messages", queue="default")


def test_without_the_database_or_a_key_there_are_no_figures(api: Api) -> None:
    def away(_pool: Any) -> Any:
        raise DatabaseUnavailable("away")

    assert_problem(api.call("GET", "/metrics", key=None), 401)
    assert_problem(api.call("GET", "/metrics?x=1"), 422)
    api.connection = away
    assert_problem(api.call("GET", "/metrics"), 503)


def test_requests_are_counted_by_route_and_class_of_status(api: Api) -> None:
    since = Since(metrics.API)
    job = api.create()["id"]
    api.call("GET", f"/api/v1/jobs/{job}")
    api.call("GET", f"/api/v1/jobs/{job}?x=1")
    api.call("GET", "/nowhere")
    api.call("BREW", "/api/v1/jobs")
    route = "/api/v1/jobs/{id}"
    assert since("jobsched_http_requests_total", method="POST", route="/api/v1/jobs", status="2xx") == 1
    assert since("jobsched_http_requests_total", method="GET", route=route, status="2xx") == 1
    assert since("jobsched_http_requests_total", method="GET", route=route, status="4xx") == 1
    assert since("jobsched_http_requests_total", method="GET", route="none", status="4xx") == 1
    assert since("jobsched_http_requests_total", method="other", route="none", status="4xx") == 1
    assert since("jobsched_http_request_duration_seconds_count", method="GET", route=route) == 2


def test_a_round_of_a_poller_counts_slots_by_what_became_of_them(link: Link, broker: Broker) -> None:
    make_job(link, due="clock_timestamp() - interval '1 s'")
    late = "clock_timestamp() - interval '2 hours'"
    make_job(link, due=late, slot=late, misfire_policy="skip")
    make_execution(link, make_job(link, due=None), "pending")
    since = Since(metrics.POLLER)
    Dispatch(link, broker, 100, 5.0).run_once()
    assert since("jobsched_poller_slots_fired_total") == 1
    assert since("jobsched_poller_slots_skipped_total", reason="misfire") >= 1
    assert since("jobsched_poller_executions_released_total") == 1
    assert since("jobsched_poller_slot_lateness_seconds_count") == 1
    assert 1 <= since("jobsched_poller_slot_lateness_seconds_sum") < 5
    assert since("jobsched_poller_round_duration_seconds_count") == 1
    found = samples(metrics.exposition(metrics.POLLER))
    assert found["jobsched_poller_lag_seconds", frozenset()] >= 7200
    assert found["jobsched_poller_last_round_timestamp_seconds", frozenset()] > 1.7e9
    assert abs(found["jobsched_poller_clock_skew_seconds", frozenset()]) < 1


def test_a_push_that_fails_is_counted(link: Link) -> None:
    make_job(link)
    since = Since(metrics.POLLER)
    away = connect("redis://127.0.0.1:1/0")
    Fire(link, Broker(away), 100).run_once()
    away.close()
    assert since("jobsched_push_failures_total") == 1


def test_what_recovery_does_is_counted_by_reason_and_state(link: Link, broker: Broker) -> None:
    dead = make_worker(link)
    for type in ("'AT_LEAST_ONCE'", "'AT_LEAST_ONCE'", "'AT_MOST_ONCE'"):
        make_execution(link, make_job(link, due=None), "running", worker_id=f"'{dead}'", attempt=1, type=type,
                       started_at="now()", deadline_at="now() + interval '1 hour'")  # fmt: skip
    link.execute("UPDATE worker_process SET state = 'dead'")
    make_execution(link, make_job(link, due=None))
    since = Since(metrics.POLLER)
    reconcile = Reconcile(link, broker)
    reconcile.run_once()
    assert since("jobsched_poller_executions_recovered_total", reason="worker_lost", state="retrying") == 2
    assert since("jobsched_poller_executions_recovered_total", reason="worker_lost", state="failed") == 1
    assert since("jobsched_poller_redis_refills_total") == 1
    assert since("jobsched_poller_redis_refilled_executions_total") == 1
    link.execute("UPDATE execution SET queued_at = now() - interval '1 minute' WHERE state = 'queued'")
    broker.take(("default",), 10)
    reconcile.run_once()
    assert since("jobsched_poller_messages_pushed_again_total") == 1


def test_a_worker_counts_what_it_takes_and_how_it_ends(
    link: Link, broker: Broker, worker: Worker, target: Target
) -> None:
    since = Since(metrics.WORKER)
    enqueue(link, broker, make_job(link, api=f"{target.url}/ok"), 5)
    enqueue(link, broker, make_job(link, api=f"{target.url}/status/500", max_retry_count=0))
    enqueue(link, broker, make_job(link, api=f"{target.url}/status/500", backoff_jitter=0))
    broker.push([("default", 999_999_999)])

    def counted() -> None:
        assert since("jobsched_worker_attempts_total", state="succeeded", error_code="none") == 5
        assert since("jobsched_worker_attempts_total", state="failed", error_code="http_status") == 1
        assert since("jobsched_worker_attempts_total", state="retrying", error_code="http_status") == 1
        assert since("jobsched_worker_attempt_duration_seconds_count") == 7
        assert since("jobsched_worker_start_delay_seconds_count") == 7
        assert since("jobsched_worker_executions_claimed_total") == 7
        assert since("jobsched_worker_messages_dropped_total") == 1
        assert since("jobsched_worker_connections_opened_total") >= 1

    eventually(counted)
    found = samples(metrics.exposition(metrics.WORKER))
    assert found["jobsched_worker_seats", frozenset()] == 50
    eventually(lambda: seats_used(0))


def seats_used(number: int) -> None:
    found = samples(metrics.exposition(metrics.WORKER))
    assert found["jobsched_worker_seats_used", frozenset()] == number


def test_an_outcome_that_is_fenced_is_counted(
    link: Link, broker: Broker, worker: Worker, target: Target
) -> None:
    since = Since(metrics.WORKER)
    enqueue(link, broker, make_job(link, api=f"{target.url}/slow/500"))
    target.wait_for(1)
    seats_used(1)
    link.execute("UPDATE execution SET attempt = attempt + 1")
    eventually(lambda: seats_used(0))
    assert since("jobsched_worker_outcomes_fenced_total") == 1
    assert since("jobsched_worker_attempts_total", state="succeeded", error_code="none") == 0


def test_a_worker_that_is_declared_dead_counts_that_it_gave_up(link: Link, worker: Worker) -> None:
    since = Since(metrics.WORKER)
    eventually(lambda: committed(since))
    link.execute("UPDATE worker_process SET state = 'dead'")

    def gave_up() -> None:
        assert since("jobsched_worker_identities_given_up_total") == 1
        assert since("jobsched_worker_beats_total", result="refused") == 1

    eventually(gave_up)


def committed(since: Since) -> None:
    assert since("jobsched_worker_beats_total", result="committed") >= 1

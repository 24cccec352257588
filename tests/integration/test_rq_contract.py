"""What RQ's own code makes of what we write, and the places of RQ that we lean on, against the installed RQ."""

import inspect
import json
import signal
import sys
import time
import types
from collections.abc import Iterator

import pytest
import redis
from click.testing import CliRunner
from rq import Queue, SimpleWorker
from rq.cli.cli import main as rq_command
from rq.job import Job, JobStatus
from rq.registry import clean_registries
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from jobsched.queue import rq_keys
from jobsched.queue.broker import Broker, QueuePicture
from jobsched.queue.connection import connect


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def broker(client: redis.Redis) -> Broker:
    return Broker(client)


@pytest.fixture
def rq_client(redis_url: str) -> Iterator[redis.Redis]:
    """A connection as RQ's users make it: RQ changes its timeouts."""
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What a stock worker called ``jobsched.worker.tasks.deliver`` with."""
    calls: list[int] = []
    tasks = types.ModuleType("jobsched.worker.tasks")
    tasks.deliver = calls.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobsched.worker.tasks", tasks)
    monkeypatch.setattr("jobsched.worker.tasks", tasks, raising=False)
    return calls


def queue_of(client: redis.Redis, name: str = "default") -> Queue:
    return Queue(name, connection=client, serializer=JSONSerializer)


def work(client: redis.Redis, *queues: str) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker = SimpleWorker(list(queues), connection=client, serializer=JSONSerializer)
        worker.work(burst=True, logging_level="ERROR")
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def rq(redis_url: str, *arguments: str) -> str:
    result = CliRunner().invoke(rq_command, [*arguments, "--url", redis_url], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.output)


# --- messages ----------------------------------------------------------------------------------------------


def test_a_pushed_id_is_a_job_that_rq_understands(broker: Broker, client: redis.Redis) -> None:
    broker.push([("default", 42)])
    (job,) = queue_of(client).jobs
    assert (job.id, job.func_name, job.args, job.kwargs) == ("42", rq_keys.FUNCTION, [42], {})
    assert (job.meta, job.timeout, job.origin) == ({}, -1, "default")
    assert (job.get_status(), job.result_ttl, job.failure_ttl) == (JobStatus.QUEUED, 60, rq_keys.FAILED_TTL)
    assert abs(job.enqueued_at.timestamp() - time.time()) < 5
    assert Queue.all(connection=client) == [queue_of(client)]


def test_we_write_no_field_that_rq_would_not(broker: Broker, client: redis.Redis) -> None:
    broker.push([("default", 42)])
    queue_of(client).enqueue(rq_keys.FUNCTION, 42, job_id="by-rq", result_ttl=60, failure_ttl=60)
    ours, theirs = client.hgetall("rq:job:42"), client.hgetall("rq:job:by-rq")
    assert set(ours) <= set(theirs)
    assert json.loads(ours[b"data"]) == [rq_keys.FUNCTION, None, [42], {}]


@pytest.mark.parametrize("queues", [["default"], ["default.high", "default"]])
def test_a_stock_worker_delivers_what_we_push(
    broker: Broker, rq_client: redis.Redis, delivered: list[int], queues: list[str]
) -> None:
    broker.push([("default", 1), ("default", 2)])
    work(rq_client, *queues)
    assert delivered == [1, 2]
    assert broker.counts(["default"])["default"] == (0, 0, 0, 2, 0)


def test_a_stock_worker_skips_a_message_without_a_hash(
    broker: Broker, rq_client: redis.Redis, delivered: list[int]
) -> None:
    broker.push([("default", 1), ("default", 2)])
    broker.forget([1])
    work(rq_client, "default")
    assert delivered == [2]


def test_what_a_stock_worker_left_behind_does_not_bother_the_next_push(
    broker: Broker, rq_client: redis.Redis, delivered: list[int]
) -> None:
    broker.push([("default", 1)])
    work(rq_client, "default")
    broker.push([("default", 1)])
    assert queue_of(rq_client).jobs[0].latest_result() is None
    work(rq_client, "default")
    assert delivered == [1, 1]


# --- the picture -------------------------------------------------------------------------------------------


def test_registries_show_an_execution_from_start_to_end(broker: Broker, client: redis.Redis) -> None:
    queue, deadline = queue_of(client), time.time() + 30
    broker.push([("default", n) for n in (1, 2, 3, 4)])
    broker.take(["default"], 4)
    broker.show_started([("default", n, deadline) for n in (1, 2, 3, 4)], "worker-1")
    assert sorted(queue.started_job_registry.get_job_ids()) == ["1", "2", "3", "4"]
    job = Job.fetch("1", connection=client, serializer=JSONSerializer)
    assert (job.get_status(), job.worker_name) == (JobStatus.STARTED, "worker-1")

    now = int(time.time())
    broker.settle(
        [
            ("default", 1, "finished", now),
            ("default", 2, "failed", now),
            ("default", 3, "scheduled", now + 90),
            ("default", 4, "queued", 0),
        ]
    )
    assert queue.started_job_registry.get_job_ids() == []
    assert queue.finished_job_registry.get_job_ids() == ["1"]
    assert queue.failed_job_registry.get_job_ids() == ["2"]
    assert queue.scheduled_job_registry.get_job_ids() == ["3"]
    assert queue.scheduled_job_registry.get_scheduled_time("3").timestamp() == now + 90
    statuses = [
        Job.fetch(str(n), connection=client, serializer=JSONSerializer).get_status() for n in range(1, 5)
    ]
    assert statuses == [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.SCHEDULED, JobStatus.QUEUED]
    assert broker.counts(["default"])["default"] == (0, 0, 1, 1, 1)


def test_a_retry_that_is_pushed_leaves_scheduled(broker: Broker, client: redis.Redis) -> None:
    broker.push([("default", 1)])
    broker.show_scheduled("default", 1, time.time() + 60)
    broker.push([("default", 1)])
    assert queue_of(client).scheduled_job_registry.get_job_ids() == []


def test_rq_info_shows_our_numbers(broker: Broker, redis_url: str) -> None:
    broker.push([("default", n) for n in range(1, 11)])
    ids = broker.take(["default"], 6)
    broker.show_started([("default", n, time.time() + 30) for n in ids], "w")
    broker.settle([("default", n, "finished", time.time()) for n in ids[:3]])
    broker.show_failed("default", ids[3], time.time())
    assert "queue default 4, 2 executing, 3 finished, 1 failed" in rq(redis_url, "info", "--raw", "-Q")


def test_rq_info_may_call_an_overdue_execution_failed_and_breaks_nothing(
    broker: Broker, client: redis.Redis, redis_url: str
) -> None:
    overdue = time.time() - 2 * rq_keys.STARTED_MARGIN
    broker.push([("default", n) for n in (1, 2, 3, 4)])
    broker.take(["default"], 3)
    broker.show_started([("default", n, overdue) for n in (1, 2, 3)], "w")
    client.delete("rq:job:3")
    assert "queue default 1, 0 executing, 0 finished, 2 failed" in rq(redis_url, "info", "--raw", "-Q")
    assert broker.heads(["default"]) == {"default": 4}  # nothing was queued again

    # It ends well after all; or it is found lost, and pushed again.
    broker.show_finished("default", 1, time.time())
    broker.push([("default", 2)])
    broker.rebuild_picture({"default": QueuePicture()})
    assert broker.counts(["default"])["default"] == (2, 0, 0, 1, 0)
    assert queue_of(client).jobs[1].get_status() == JobStatus.QUEUED


def test_an_execution_within_its_deadline_survives_rq_info(broker: Broker, redis_url: str) -> None:
    broker.push([("default", 1)])
    broker.take(["default"], 1)
    broker.show_started([("default", 1, time.time() - 1)], "w")  # past its deadline, within the margin
    rq(redis_url, "info", "--raw", "-Q")
    assert broker.counts(["default"])["default"].processing == 1


def test_what_rq_requeues_comes_to_us_as_an_id(broker: Broker, redis_url: str) -> None:
    broker.push([("default", 1)])
    broker.take(["default"], 1)
    broker.show_failed("default", 1, time.time())
    rq(redis_url, "requeue", "--all", "--queue", "default", "-S", "json")
    assert broker.take(["default"], 5) == [1]  # whose claim finds no queued row: dropped


def test_dead_letters_have_a_hash_even_after_a_wipe(
    broker: Broker, redis_url: str, client: redis.Redis
) -> None:
    broker.rebuild_picture({"default": QueuePicture(failed=[(7, time.time())])})
    broker.show_failed("default", 8, time.time())
    for execution in (7, 8):
        job = Job.fetch(str(execution), connection=client, serializer=JSONSerializer)
        assert (job.get_status(), job.args, job.origin) == (JobStatus.FAILED, [execution], "default")
        assert client.ttl(job.key) > 0
    rq(redis_url, "requeue", "--all", "--queue", "default", "-S", "json")
    assert sorted(broker.take(["default"], 5)) == [7, 8]


def test_other_hashes_are_written_only_where_they_exist(broker: Broker, client: redis.Redis) -> None:
    now = time.time()
    broker.show_started([("default", 1, now + 9)], "w")
    broker.settle(
        [("default", 1, "finished", now), ("default", 2, "scheduled", now), ("default", 3, "queued", 0)]
    )
    broker.rebuild_picture({"default": QueuePicture(started=[(4, now)], scheduled=[(5, now)])})
    assert client.keys("rq:job:*") == []


def test_finished_and_failed_keep_the_newest_thousand_and_their_hashes(
    broker: Broker, client: redis.Redis
) -> None:
    now = time.time()
    broker.push([("default", n) for n in range(1, 2401)])
    broker.settle([("default", n, "finished", now + n) for n in range(1, 1201)])
    broker.settle([("default", n, "failed", now + n) for n in range(1201, 2401)])
    assert broker.counts(["default"])["default"] == (2400, 0, 0, 1000, 1000)
    left = sorted(int(key.removeprefix(b"rq:job:")) for key in client.keys("rq:job:*"))
    assert left == [*range(201, 1201), *range(1401, 2401)]
    assert 0 < client.ttl("rq:job:1000") <= rq_keys.FINISHED_TTL


def test_rebuilding_replaces_the_registries_and_lets_go_of_hashes(
    broker: Broker, client: redis.Redis
) -> None:
    now = time.time()
    broker.push([("default", n) for n in range(1, 8)])
    broker.take(["default"], 7)
    broker.show_started([("default", n, now + 9) for n in (1, 2, 3)], "w")
    broker.settle(
        [("default", 4, "failed", now), ("default", 5, "failed", now), ("default", 6, "scheduled", now)]
    )
    broker.rebuild_picture(
        {
            "default": QueuePicture(
                started=[(1, now + 9)], scheduled=[(2, now + 5)], failed=[(5, now), (3, now)]
            )
        }
    )
    queue = queue_of(client)
    assert queue.started_job_registry.get_job_ids() == ["1"]
    assert queue.scheduled_job_registry.get_job_ids() == ["2"]
    assert sorted(queue.failed_job_registry.get_job_ids()) == ["3", "5"]
    assert not client.exists("rq:job:4")  # redriven or discarded
    assert 0 < client.ttl("rq:job:6") <= rq_keys.FINISHED_TTL  # left without a word
    broker.rebuild_picture({"default": QueuePicture()})
    assert broker.counts(["default"])["default"] == (0, 0, 0, 0, 0)


def test_a_large_picture_is_cut_and_drawn_in_one_go(broker: Broker) -> None:
    now = time.time()
    many = [(n, now + 100 - n / 1000) for n in range(1, 20_001)]
    broker.rebuild_picture({"default": QueuePicture(started=many, scheduled=many, failed=many)})
    counts = broker.counts(["default", "other"])
    assert counts["default"] == (0, rq_keys.SHOWN, rq_keys.SHOWN, 0, rq_keys.KEPT)
    assert counts["other"] == (0, 0, 0, 0, 0)


def test_rq_cleaning_up_leaves_what_waits_alone(broker: Broker, rq_client: redis.Redis) -> None:
    broker.push([("default", 1), ("default", 2)])
    broker.show_scheduled("default", 2, time.time() - 100)
    clean_registries(queue_of(rq_client))
    assert broker.counts(["default"])["default"] == (2, 0, 1, 0, 0)


# --- the places of RQ that we lean on ----------------------------------------------------------------------


def test_keys_are_where_rq_puts_them(client: redis.Redis) -> None:
    queue = queue_of(client, "a.high")
    assert rq_keys.queue_key("a.high") == queue.key
    assert {
        "wip": queue.started_job_registry.key,
        "scheduled": queue.scheduled_job_registry.key,
        "finished": queue.finished_job_registry.key,
        "failed": queue.failed_job_registry.key,
    } == {name: f"{rq_keys.PREFIX}:{name}:a.high" for name in ("wip", "scheduled", "finished", "failed")}
    assert Job.key_for("1") == f"{rq_keys.PREFIX}:job:1"
    assert Queue.redis_queues_keys == f"{rq_keys.PREFIX}:queues"


@pytest.mark.parametrize(
    "name",
    [
        "_set_connection",
        "_set_ip_address",
        "_pubsub_exception_handler",
        "clean_group_registries",
        "clean_registries",
        "handle_payload",
        "heartbeat",
        "register_birth",
        "register_death",
        "run_maintenance_tasks",
        "serialize",
        "should_run_maintenance_tasks",
        "subscribe",
        "work",
    ],
)
def test_rqs_worker_still_has_what_ours_overrides_or_calls(name: str) -> None:
    assert hasattr(BaseWorker, name)


def test_rqs_worker_still_speaks_as_ours_does() -> None:
    assert set(inspect.signature(BaseWorker.heartbeat).parameters) == {"self", "timeout", "pipeline"}
    assert {status.value for status in WorkerStatus} == {"started", "suspended", "busy", "idle"}

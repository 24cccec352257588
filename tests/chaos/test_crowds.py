"""Many at once: calls that hang beside fast ones, a job deleted with all that waits, edits while slots fire."""

import random
import statistics
import threading
import time
from collections import defaultdict

from jobsched.client import Client
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import calls_of, seconds, slots_of
from tests.chaos.accounting import Load, lasting, patiently

SEED = 20_262

_WAITING = """
INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue)
SELECT 1, %s, 'manual', clock_timestamp(), clock_timestamp(), 'pending', 5, 'default', 'default'
FROM generate_series(1, %s) RETURNING 1
"""


def test_nine_hundred_hanging_calls_do_not_delay_the_others(
    stand: Stand, client: Client, target: Target
) -> None:
    stand.start("p1", "poller")
    stand.start("w1", "worker", "--concurrency", "1100")
    hanging = client.jobs.create(schedule="@yearly", api=target.url + "/hang", timeout_seconds=600)["id"]
    stand.query(_WAITING, (hanging, 900))
    target.wait_for(900, 30)
    load = Load(client, target.url + "/ok", jobs=40, runs=5)
    calls = calls_of(target.wait_for(900 + 200, 30))[900:]
    assert set(slots_of(calls)) == load.slots
    delays = [call.at - seconds(call.slot) for call in calls]
    assert min(delays) >= 0
    assert statistics.median(delays) < 0.3
    assert statistics.quantiles(delays, n=100)[98] < 1.5
    stand.wait("SELECT count(*) FROM execution WHERE state = 'running'", 900, 10)


def test_a_job_with_a_thousand_queued_executions_is_deleted_at_once(
    stand: Stand, client: Client, target: Target
) -> None:
    stand.start("p1", "poller")
    full = client.jobs.create(schedule="@yearly", api=target.url + "/ok?full")["id"]
    stand.query(_WAITING, (full, 1000))
    stand.wait("SELECT count(*) FROM execution WHERE state = 'queued'", 1000, 20)
    other = client.jobs.create(schedule="@yearly", api=target.url + "/ok?other")["id"]
    behind = client.jobs.run(other)["id"]
    began = time.monotonic()
    client.jobs.delete(full)
    assert time.monotonic() - began < 5
    assert stand.query(
        "SELECT state, error_code, count(*) FROM execution_history WHERE job_id = %s GROUP BY 1, 2", (full,)
    ) == [("cancelled", "cancelled", 1000)]
    stand.start("w1", "worker", "--name", "w1")
    assert client.executions.wait(behind, 30)["state"] == "succeeded"
    assert [arrival.path for arrival in target.arrivals] == ["/ok?other"]


def test_edits_that_race_with_firing_never_fire_a_slot_twice(
    stand: Stand, client: Client, target: Target
) -> None:
    for name in ("p1", "p2"):
        stand.start(name, "poller")
    stand.start("w1", "worker", "--name", "w1")
    jobs = [client.jobs.create(schedule="* * * * * *", api=target.url + "/ok")["id"] for _ in range(20)]
    stop = threading.Event()
    faults: list[Exception] = []

    def edit(editor: Client, chance: random.Random) -> None:
        edits = (
            {"schedule": "*/1 * * * * *"},
            {"schedule": "* * * * * *"},
            {"schedule": "@every 1s"},
            {"timezone": "Asia/Tokyo"},
            {"timezone": "UTC"},
            {"timeoutSeconds": 20},
        )
        try:
            while not stop.is_set():
                job = chance.choice(jobs)
                if chance.random() < 0.2:
                    editor.jobs.pause(job)
                    editor.jobs.resume(job)
                else:
                    editor.jobs.update(job, chance.choice(edits))
        except Exception as error:
            faults.append(error)

    editors = [
        threading.Thread(target=edit, args=(stand.client(), random.Random(SEED + n))) for n in range(3)
    ]
    for editor in editors:
        editor.start()
    lasting(7)
    stop.set()
    for editor in editors:
        editor.join(30)
    assert faults == []
    for job in jobs:
        client.jobs.pause(job)

    def all_over() -> None:
        assert stand.query("SELECT count(*) FROM execution")[0][0] == 0

    patiently(all_over, 20)
    calls = calls_of(target.arrivals)
    assert len(calls) > 40
    assert {slot: count for slot, count in slots_of(calls).items() if count > 1} == {}
    told = stand.query("SELECT job_id, scheduled_for, id FROM execution_history ORDER BY id")
    assert len(told) == len(calls)
    in_order = defaultdict(list)
    for job, slot, _id in told:
        in_order[job].append(slot)
    for slots in in_order.values():
        # Slots only move forward, whatever the edits say.
        assert slots == sorted(set(slots))

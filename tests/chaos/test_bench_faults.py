"""The bench's own ground: a cluster that mends itself, and leaves nothing behind."""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

from jobsched.client import Client
from jobsched.testing.stand import Stand
from tests.chaos.bench import collect
from tests.chaos.bench.cluster import Cluster
from tests.chaos.bench.faults import FAULTS
from tests.conftest import eventually

BLOWS = ("worker_killed", "postgres_killed", "redis_killed_empty")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cluster_survives_a_blow_to_each_part_and_leaves_no_process_behind() -> None:
    with Cluster(apis=1, pollers=1, workers=1, concurrency=10) as cluster:
        first = [cluster.process(slot) for slot in cluster.slots()]
        with ThreadPoolExecutor() as threads:
            struck = threads.map(lambda kind: FAULTS[kind].strike(cluster, random.Random(1)), BLOWS)
            assert cluster.kill("api1") == "api1.1"
            assert cluster.restart_with("poller1", JOBSCHED_LOG_LEVEL="warning") == "poller1.2"
            strikes = {strike.kind: strike for strike in struck}
        cluster.wait_until_whole(30)
        # There was no load, so nobody was hurt; a strike that hits nothing says so.
        killed = strikes["worker_killed"]
        assert (killed.took_effect, killed.worker, killed.in_flight) == (False, "worker1.1", ())
        assert killed.effect == "worker1.1 killed with 0 in flight"
        told = cluster.timeline.text()
        assert "ended      worker1.1 with -9" in told
        assert "JOBSCHED_LOG_LEVEL=warning" in told
        assert {"api1.1", "api1.2", "poller1.1", "poller1.2", "worker1.1", "worker1.2"} <= set(cluster.logs())
        # What is frozen at the end must end as well.
        last = [cluster.process(slot) for slot in cluster.slots()]
        cluster.freeze("worker1")
        family = cluster.postgres_processes()
        for pid in family:
            cluster.freeze_process(pid)
        folder = cluster.stand.folder
    pids = [process.pid for process in [*first, *last] if process is not None] + family

    def all_gone() -> None:
        assert [pid for pid in pids if lives(pid)] == []

    eventually(all_gone, 5)
    assert len(pids) > 10
    assert not folder.exists()


def test_a_run_is_over_only_when_nothing_more_will_fire(stand: Stand, client: Client) -> None:
    # A slot between the reading of two records was counted as lost, with an arrival that nobody had sent.
    assert collect.is_over(stand)
    last = client.jobs.create(schedule="@in 4s", api="http://127.0.0.1:9/ok")
    assert not collect.is_over(stand)
    assert collect.is_over(stand, {last["id"]})
    client.jobs.delete(last["id"])
    assert collect.is_over(stand)
    later = client.jobs.create(schedule="@in 1h", api="http://127.0.0.1:9/ok")
    assert collect.is_over(stand)
    client.jobs.run(later["id"])
    assert not collect.is_over(stand)


def test_a_process_that_stops_itself_ends_when_it_is_told_to() -> None:
    # Armed to stand still at a fail point, it came there only after the fault had given up waiting for it.
    with Cluster(apis=1, pollers=1, workers=1, concurrency=10) as cluster:
        process = cluster.process("poller1")
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        assert cluster.terminate("poller1", timeout=20) == "poller1.1"

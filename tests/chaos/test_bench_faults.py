"""The bench's own ground: a cluster that mends itself, and leaves nothing behind."""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.bench.cluster import Cluster
from tests.chaos.bench.faults import FAULTS
from tests.conftest import eventually


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cluster_survives_a_blow_to_each_part_and_leaves_no_process_behind() -> None:
    with Cluster(apis=1, pollers=1, workers=1, concurrency=10) as cluster:
        ended = [cluster.process(slot) for slot in cluster.slots()]
        killed = {cluster.kill(slot) for slot in cluster.slots()}
        assert killed == {"api1.1", "poller1.1", "worker1.1"}
        kinds = ("postgres_killed", "redis_killed_empty")
        with ThreadPoolExecutor() as threads:
            strikes = list(threads.map(lambda kind: FAULTS[kind].strike(cluster, random.Random(1)), kinds))
        assert [strike.kind for strike in strikes] == list(kinds)
        cluster.wait_until_whole(20)
        running = [cluster.process(slot) for slot in cluster.slots()]
        # What is frozen at the end must end as well.
        frozen = cluster.freeze("worker1")
        family = cluster.postgres_processes()
        for pid in family:
            cluster.freeze_process(pid)
        names = set(cluster.logs())
        assert killed | {frozen, cluster.process_name("api1"), cluster.process_name("poller1")} <= names
        folder = cluster.stand.folder
        told = cluster.timeline.text()
        started = {entry.text.split()[0] for entry in cluster.timeline.entries if entry.kind == "started"}
        assert killed < started
        assert "ended      worker1.1 with -9" in told
    pids = [process.pid for process in [*ended, *running] if process is not None] + family

    def all_gone() -> None:
        assert [pid for pid in pids if lives(pid)] == []

    eventually(all_gone, 5)
    assert not folder.exists()


def test_a_fault_that_finds_nothing_to_hurt_says_so() -> None:
    with Cluster(apis=1, pollers=1, workers=1) as cluster:
        strike = FAULTS["worker_killed"].strike(cluster, random.Random(1))
        assert (strike.took_effect, strike.worker, strike.in_flight) == (False, "worker1.1", ())
        assert strike.effect == "worker1.1 killed with 0 in flight"
        restarted = cluster.restart_with("poller1", JOBSCHED_LOG_LEVEL="debug")
        cluster.wait_until_whole(20)
        process = cluster.process("poller1")
        assert process is not None
        assert restarted == "poller1.2"
        os.kill(process.pid, signal.SIGTERM)

        def third_begins() -> None:
            assert "poller1.3" in cluster.logs()

        # The next one of the slot has the usual environment again.
        eventually(third_begins, 10)

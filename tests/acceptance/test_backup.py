"""A backup made with pg_dump while everything runs, restored an hour later: what docs/operations.md promises."""

import signal
import subprocess
from pathlib import Path

import psycopg

from jobsched.client import Client
from jobsched.db.connection import Link
from jobsched.embedded import binaries
from jobsched.embedded.account import choose
from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.acceptance.accounts import calls_of
from tests.conftest import eventually, with_database

SETTINGS = {
    "JOBSCHED_POLL_INTERVAL": "0.5",
    "JOBSCHED_SECRET_KEY": "a-secret-key-of-this-test-with-32-characters",
}

#: What a backup holds and a restore brings back as it was.
KEPT = ("job", "job_last", "execution_history", "dead_letter", "api_key", "signing_secret", "redrive")

#: The backup is as old as this; the schedules below had five slots meanwhile, the last of them five minutes ago.
AGE = "interval '55 minutes'"
EVERY = "@every 10m"


def program(stand: Stand, name: str, *arguments: str | Path) -> None:
    """Run one of Postgres' own programs, of the version of the stand's server."""
    found = binaries.postgres_programs(choose(stand.folder)) / name
    subprocess.run([found, *arguments], check=True, capture_output=True, text=True, timeout=60)


def run(client: Client, job: dict[str, object]) -> int:
    return int(client.executions.wait(client.jobs.run(job["id"])["id"], timeout=20)["id"])


def rows(stand: Stand) -> dict[str, list[tuple[object, ...]]]:
    return {table: stand.query(f"SELECT * FROM {table} ORDER BY 1") for table in KEPT}


def test_an_old_backup_fires_by_policy_loses_nothing_and_uses_no_key_again() -> None:
    with Target() as target, Stand(**SETTINGS) as stand:
        stand.start_api()
        stand.start("poller", "poller")
        stand.start("worker", "worker", "--name", "w1")
        client = stand.client()
        policies = {
            policy: client.jobs.create(schedule=EVERY, api=f"{target.url}/ok", misfire_policy=policy)
            for policy in ("fire_once", "fire_all", "skip")
        }
        by_hand = client.jobs.create(schedule="@yearly", api=f"{target.url}/ok")
        fails = client.jobs.create(schedule="@yearly", api=f"{target.url}/status/500", max_retry_count=0)
        hangs = client.jobs.create(schedule="@yearly", api=f"{target.url}/hang", timeout_seconds=60)
        for job in (by_hand, by_hand, fails):
            run(client, job)

        # One call is in flight and one execution is queued at the moment of the backup.
        running = client.jobs.run(hangs["id"])["id"]
        target.wait_for(4)
        stand.stop("worker", signal.SIGKILL)
        queued = client.jobs.run(by_hand["id"])["id"]
        stand.wait(f"SELECT state FROM execution WHERE id = {queued}", "queued")
        kept = rows(stand)
        dump = stand.folder / "jobsched.dump"
        program(stand, "pg_dump", "--format=custom", f"--file={dump}", f"--dbname={stand.database_url}")

        # What happens after it will be forgotten, but not by the target.
        stand.start("worker", "worker", "--name", "w2")
        client.executions.wait(queued, timeout=20)
        for _ in range(3):
            run(client, by_hand)
        client.jobs.create(schedule="@yearly", api=f"{target.url}/ok", name="forgotten")
        for name in list(stand.processes):
            stand.stop(name)
        before = calls_of(target.arrivals)
        target.reset()

        with psycopg.connect(with_database(stand.database_url, "postgres"), autocommit=True) as admin:
            admin.execute("DROP DATABASE jobsched")
            admin.execute("CREATE DATABASE jobsched")
        program(
            stand,
            "pg_restore",
            "--no-owner",
            "--exit-on-error",
            "--single-transaction",
            f"--dbname={stand.database_url}",
            dump,
        )
        assert rows(stand) == kept
        grow_old(stand)

        stand.run("migrate")
        stand.start_api()
        stand.start("poller", "poller")
        stand.start("worker", "worker", "--name", "w3")
        client = stand.client()
        assert [job["name"] for job in client.jobs.list()] == [None] * 6

        eventually(lambda: assert_told(client, policies), 20)
        client.executions.wait(queued, timeout=20)
        run(client, by_hand)
        # The row of the worker that was killed beats no more: its call is made again once that was seen for 20 s.
        eventually(lambda: assert_called(target, running), 40)

        after = calls_of(target.arrivals)
        # Numbers are given out again, to other work.
        assert {c.execution for c in before if c.execution > queued} & {
            c.execution for c in after if c.execution > queued
        }
        assert {call.key for call in before} & {call.key for call in after} == set()
        assert len({call.key.split("_")[1] for call in after}) == 1
        slots = {name: [c.slot for c in after if c.job == job["id"]] for name, job in policies.items()}
        assert {name: len(one) for name, one in slots.items()} == {"fire_once": 1, "fire_all": 5, "skip": 0}
        old = {row[0] for row in kept["execution_history"]}
        assert old <= {row[0] for row in stand.query("SELECT id FROM execution_history")}
        assert [row[0] for row in kept["dead_letter"]] == [one["id"] for one in client.dead_letters.list()]


def grow_old(stand: Stand) -> None:
    """Let all times of the restored rows be as if the backup had been made AGE ago."""
    link: Link = stand.link()
    try:
        for statement in (
            f"UPDATE job_schedule SET next_slot = next_slot - {AGE}, anchor = anchor - {AGE}, "
            f"next_execution_time = next_execution_time - {AGE}, last_slot = last_slot - {AGE}",
            f"UPDATE job SET created_at = created_at - {AGE}, updated_at = updated_at - {AGE}",
            f"UPDATE execution SET scheduled_for = scheduled_for - {AGE}, due_at = due_at - {AGE}, "
            f"queued_at = queued_at - {AGE}, started_at = started_at - {AGE}, deadline_at = deadline_at - {AGE}",
            f"UPDATE worker_process SET started_at = started_at - {AGE}, heartbeat_at = heartbeat_at - {AGE}",
        ):
            link.execute(statement)
    finally:
        link.close()


def assert_told(client: Client, policies: dict[str, dict[str, object]]) -> None:
    """Each policy's runs are over, and what was not run is told."""
    told = {
        policy: [
            (one["state"], one["skippedCount"])
            for one in client.executions.page(job_id=job["id"], limit=50)["items"]
        ]
        for policy, job in policies.items()
    }
    assert sorted(told["fire_once"]) == [("skipped", 4), ("succeeded", None)]
    assert told["fire_all"] == [("succeeded", None)] * 5
    assert told["skip"] == [("skipped", 5)]


def assert_called(target: Target, execution: int) -> None:
    assert execution in {call.execution for call in calls_of(target.arrivals)}

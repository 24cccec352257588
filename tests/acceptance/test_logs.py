"""The logs of all processes: one execution followed by its ids, and a log that cannot be written."""

import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

from jobsched.testing.stand import Stand
from jobsched.testing.target import Target
from tests.conftest import eventually


def lines_of(stand: Stand, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stand.log_of(name).splitlines()]


def about(stand: Stand, name: str, execution: int) -> list[dict[str, Any]]:
    return [
        line
        for line in lines_of(stand, name)
        if line.get("execution_id") == execution or execution in line.get("execution_ids", ())
    ]


def test_a_failing_execution_is_followed_from_the_request_to_its_dead_letter() -> None:
    settings = {"JOBSCHED_LOG_FORMAT": "json", "JOBSCHED_LOG_LEVEL": "debug", "JOBSCHED_POLL_INTERVAL": "0.2"}
    with Target() as target, Stand(**settings) as stand:
        stand.start_api()
        stand.start("poller", "poller")
        stand.start("worker", "worker", "--name", "w1")
        client = stand.client()
        job = client.jobs.create(
            schedule="@yearly",
            api=f"{target.url}/status/500",
            max_retry_count=1,
            min_backoff_seconds=0.1,
            backoff_jitter=0,
        )
        run = urllib.request.Request(
            f"{stand.url}/api/v1/jobs/{job['id']}/run",
            method="POST",
            headers={"Authorization": f"Bearer {stand.key}", "X-Request-Id": "follow-me"},
        )
        with urllib.request.urlopen(run, timeout=10) as answer:
            execution = json.loads(answer.read())["id"]
        client.executions.wait(execution, timeout=20)

        ids = {"execution_id": execution, "job_id": job["id"]}
        eventually(lambda: _has(about(stand, "worker", execution), "dead_letter"))
        eventually(lambda: _has(about(stand, "api", execution), "request"))
        asked = next(line for line in lines_of(stand, "api") if line.get("request_id") == "follow-me")
        assert {name: asked[name] for name in ("event", *ids, "status")} == {
            "event": "request",
            **ids,
            "status": 202,
        }
        assert [line["event"] for line in about(stand, "poller", execution)] == ["released", "released"]
        story = about(stand, "worker", execution)
        assert [(line["event"], line["level"], line["attempt"]) for line in story] == [
            ("claimed", "debug", 1),
            ("attempt_failed", "info", 1),
            ("claimed", "debug", 2),
            ("dead_letter", "warning", 2),
        ]
        for line in story:
            assert {name: line[name] for name in (*ids, "worker")} == {**ids, "worker": "w1"}
        for line in story[1::2]:
            assert (line["error_code"], line["status"], line["milliseconds"] > 0) == (
                "http_status",
                500,
                True,
            )
        assert 0 <= story[1]["retry_in_seconds"] <= 0.2


def test_with_their_logs_on_a_full_disk_all_processes_go_on() -> None:
    with Target() as target, Stand(JOBSCHED_LOG_FORMAT="json", JOBSCHED_LOG_LEVEL="debug") as stand:
        stand.start_api()
        full = os.open("/dev/full", os.O_WRONLY)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes += [
                subprocess.Popen(
                    [sys.executable, "-m", "jobsched", command],
                    env=stand.environment(),
                    stdout=full,
                    stderr=full,
                    start_new_session=True,
                )
                for command in ("poller", "worker")
            ]
            client = stand.client()
            for path in ("/ok", "/status/500", "/ok"):
                job = client.jobs.create(schedule="@yearly", api=target.url + path, max_retry_count=0)
                client.jobs.run(job["id"])
            target.wait_for(3, 30)
            eventually(lambda: _equal(stand.query("SELECT count(*) FROM execution_history"), [(3,)]))
        finally:
            os.close(full)
            for process in processes:
                process.terminate()
            codes = [process.wait(40) for process in processes]
    assert codes == [0, 0]


def _has(lines: list[dict[str, Any]], event: str) -> None:
    assert event in [line["event"] for line in lines]


def _equal(found: object, wanted: object) -> None:
    assert found == wanted

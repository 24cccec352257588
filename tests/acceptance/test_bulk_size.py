"""What ten thousand jobs in one request cost: time, and memory of the process that serves them."""

import json
import sys
import time
from pathlib import Path

import pytest
import requests

from jobsched.testing.stand import Stand

JOBS = 10_000
#: Seconds on two cores, and MiB above what the process held before.
LONGEST, MOST = 2.0, 64


def documents(prefix: str) -> list[dict[str, object]]:
    return [
        {
            "key": f"{prefix}-{number}",
            "name": f"Report {number}",
            "schedule": "0 9 * * MON-FRI",
            "timezone": "Europe/Berlin",
            "api": f"https://example.com/hooks/{number}",
            "payload": {"customer": number, "parts": ["summary", "details"]},
            "tags": ["report", f"group-{number % 50}"],
        }
        for number in range(JOBS)
    ]


def memory(pid: int) -> dict[str, int]:
    """``VmRSS`` and the peak ``VmHWM`` of a process, in MiB."""
    lines = dict(
        line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return {name: int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read from /proc")
def test_ten_thousand_jobs_take_two_seconds_and_64_mebibytes() -> None:
    with Stand() as stand, requests.Session() as session:
        url = f"{stand.start_api()}/api/v1/jobs/bulk"
        session.headers.update({"Authorization": f"Bearer {stand.key}", "Content-Type": "application/json"})
        arbiter = stand.processes["api"].pid
        [serving] = map(int, Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split())
        took = []
        for attempt in range(3):
            body = json.dumps(documents(f"job-{attempt}"))
            Path(f"/proc/{serving}/clear_refs").write_text("5")  # the peak starts anew
            before = memory(serving)["VmRSS"]
            began = time.monotonic()
            answer = session.post(url, data=body, timeout=60)
            took.append(time.monotonic() - began)
            assert (answer.status_code, answer.json()["created"]) == (201, JOBS)
            assert memory(serving)["VmHWM"] - before <= MOST
        # Of three, the best: other work on the machine makes it slower, nothing makes it faster.
        assert min(took) <= LONGEST
        spoilt = documents("spoilt")
        spoilt[7123]["priority"] = 11
        answer = session.post(url, data=json.dumps(spoilt), timeout=60)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"pointer": "/7123/priority", "message": "must be at most 10"}]
        assert stand.query("SELECT count(*) FROM job") == [(3 * JOBS,)]

"""How many callbacks one worker process delivers and records a second, as its target sees it.

    python bench/deliver.py [--executions 24000] [--concurrency 256] [--path /slow/200] [--hanging 100]

Starts servers, a target and a worker of its own; everything on this machine. Prints one line a run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from jobsched.testing.stand import Stand

JOB = """
INSERT INTO job (project_id, schedule, is_recurring, api, payload, timeout_seconds, max_retry_count)
SELECT 1, '@every 1h', true, %s, '{"n": 1}', 60, 3 FROM generate_series(1, %s) RETURNING id
"""
FILL = """
INSERT INTO execution (project_id, job_id, trigger, scheduled_for, due_at, state, priority, pool, queue, queued_at)
SELECT 1, (%(jobs)s::bigint[])[1 + n %% %(count)s], 'manual', clock_timestamp(), clock_timestamp(), 'queued', 5,
    'default', 'default', clock_timestamp()
FROM generate_series(1, %(n)s) AS n RETURNING id
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=24_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--path", default="/slow/200")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--hanging", type=int, default=0)
    options = parser.parse_args()
    target = subprocess.Popen(
        [sys.executable, "-m", "jobsched.testing.target", "--port", "0", "--no-record"],
        stdout=subprocess.PIPE,
    )
    assert target.stdout is not None
    url = target.stdout.readline().decode().split()[-1].rstrip("/")
    try:
        with Stand() as stand:
            measure(stand, url, options)
    finally:
        target.kill()


def measure(stand: Stand, url: str, options: argparse.Namespace) -> None:
    from jobsched.queue.broker import Broker
    from jobsched.queue.connection import connect

    link, broker = stand.link(), Broker(connect(stand.redis_url))
    if options.hanging:
        jobs = [row[0] for row in link.execute(JOB, (f"{url}/hang", 1))]
        rows = link.execute(FILL, {"jobs": jobs, "count": 1, "n": options.hanging})
        link.execute("UPDATE job SET timeout_seconds = 30, max_retry_count = 0")
        broker.push([("default", row[0]) for row in rows])
    jobs = [row[0] for row in link.execute(JOB, (url + options.path, options.jobs))]
    rows = link.execute(FILL, {"jobs": jobs, "count": len(jobs), "n": options.executions})
    broker.push([("default", row[0]) for row in rows])
    link.execute("ANALYZE")
    before = link.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]
    worker = stand.start("worker", "worker", "--concurrency", str(options.concurrency))
    first = None
    done, marks = 0, []
    while done < options.executions:
        time.sleep(0.25)
        count = json.load(urllib.request.urlopen(f"{url}/_count"))
        done = (count["count"] if isinstance(count, dict) else count) - options.hanging
        if done > 0 and first is None:
            first = (time.monotonic(), done)
        marks.append((time.monotonic(), done))
        assert worker.poll() is None, stand.log_of("worker")
    seen = (done - first[1]) / (marks[-1][0] - first[0])
    stand.wait("SELECT count(*) FROM execution WHERE state <> 'running'", 0, 30)
    everything = options.executions + options.hanging
    stand.wait(f"SELECT count(*) >= {everything} FROM execution_history", True, 60)
    cpu = cpu_seconds(worker.pid)
    durations = [
        row[0] for row in link.execute("SELECT duration_ms FROM execution_history WHERE state = 'succeeded'")
    ]
    commits = link.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][
        0
    ]
    twice = link.execute("SELECT count(*) FROM execution_history WHERE attempt > 1")[0][0]
    quantiles = statistics.quantiles(durations, n=100)
    print(
        f"{seen:.0f}/s at the target; {len(durations)} recorded, {twice} of them in more than one attempt; "
        f"call p50 {quantiles[49]:.0f} ms p99 {quantiles[98]:.0f} ms; worker CPU {1e6 * cpu / done:.0f} µs a callback; "
        f"{done / (commits - before):.1f} callbacks a commit"
    )
    link.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()

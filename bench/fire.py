"""How many due schedules one poller turns into pushed executions a second.

    python bench/fire.py [--jobs 40000]

Fills a database of its own with jobs that are due now, each with a cron expression, and fires them all.
"""

import argparse
import resource
import time

from jobsched.poller.fire import Fire
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.testing.stand import Stand

FILL = """
WITH new AS (
    INSERT INTO job (project_id, schedule, is_recurring, api)
    SELECT 1, (n %% 60) || ' ' || (n %% 24) || ' * * *', true, 'http://127.0.0.1:1/'
    FROM generate_series(1, %s) AS n RETURNING id
)
INSERT INTO job_schedule (job_id, next_slot, next_execution_time, anchor)
SELECT id, date_trunc('second', now()), date_trunc('second', now()), now() FROM new
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=40_000)
    options = parser.parse_args()
    with Stand() as stand:
        link = stand.link()
        link.execute(FILL, (options.jobs,))
        link.execute("ANALYZE")
        fire = Fire(link, Broker(connect(stand.redis_url)), high_water=10_000_000)
        began, cpu = time.monotonic(), cpu_seconds()
        fired = 0
        while (one := fire.run_once()).executions:
            fired += one.executions
        seconds = time.monotonic() - began
        print(f"{fired / seconds:.0f}/s; {1e6 * (cpu_seconds() - cpu) / fired:.0f} µs CPU of the poller each")
        link.close()


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()

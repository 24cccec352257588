"""How punctual calls are: one job every 2 s and one on the 5-second marks, for a minute.

    python bench/punctual.py [--seconds 60]

Prints how many calls arrived and how late after their ``scheduledFor``.
"""

import argparse
import time
from datetime import UTC, datetime

from jobsched.testing.stand import Stand
from jobsched.testing.target import Target


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with Stand() as stand, Target() as target:
        stand.start_api()
        stand.start("poller", "poller")
        stand.start("worker", "worker")
        stand.wait("SELECT count(*) FROM worker_process WHERE state = 'alive'", 2)
        client = stand.client()
        began = time.time()
        jobs = {
            client.jobs.create(schedule=schedule, api=f"{target.url}/ok")["id"]: schedule
            for schedule in ("@every 2s", "*/5 * * * * *")
        }
        time.sleep(options.seconds + 0.5)
        arrivals = [one for one in target.arrivals if one.t < began + options.seconds + 0.2]
        for job, schedule in jobs.items():
            late = []
            for one in arrivals:
                headers = {name.lower(): value for name, value in dict(one.headers).items()}
                if headers["jobsched-job-id"] == str(job):
                    slot = datetime.fromisoformat(headers["jobsched-scheduled-for"]).astimezone(UTC)
                    late.append(1000 * (one.t - slot.timestamp()))
            print(
                f"{schedule}: {len(late)} arrivals in {options.seconds} s, "
                f"{min(late):.1f} to {max(late):.1f} ms after their slot, median {sorted(late)[len(late) // 2]:.1f} ms"
            )


if __name__ == "__main__":
    main()

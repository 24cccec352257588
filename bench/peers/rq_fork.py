"""RQ's stock Worker, what ``rq worker`` starts: a fork for every job.

Settings: ``requests`` is imported before the fork, so that no child does; log level WARNING. Each child opens a
connection of its own: one that was opened before the fork cannot be shared. There is no concurrency to choose.
"""

import sys

import requests
from redis import Redis
from rq import Worker

from bench.peers import QUEUE, redis_url, target_url
from bench.peers.rq_simple import fill


def call(data: dict[str, object]) -> int:
    """The job: post, read the answer, return its status, which RQ keeps as the result."""
    return requests.post(target_url(), json=data, timeout=30).status_code


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]), "bench.peers.rq_fork.call")
    else:
        Worker([QUEUE], connection=Redis.from_url(redis_url())).work(logging_level="WARNING")

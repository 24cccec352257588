"""RQ's SimpleWorker: every job in the worker's own process, one after the other.

Settings: a ``requests.Session`` kept for the life of the process, log level WARNING, results kept for RQ's 500 s.
There is no concurrency to choose.
"""

import sys

import requests
from redis import Redis
from rq import Queue, SimpleWorker

from bench.peers import QUEUE, payload, redis_url, target_url

_SESSION = requests.Session()


def call(data: dict[str, object]) -> int:
    """The job: post, read the answer, return its status, which RQ keeps as the result."""
    return _SESSION.post(target_url(), json=data, timeout=30).status_code


def fill(count: int, function: str) -> None:
    """Enqueue so many jobs, as RQ's own call for many does."""
    connection = Redis.from_url(redis_url())
    queue = Queue(QUEUE, connection=connection)
    data = payload()
    for done in range(0, count, 1000):
        jobs = [Queue.prepare_data(function, (data,)) for _ in range(min(1000, count - done))]
        queue.enqueue_many(jobs)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]), "bench.peers.rq_simple.call")
    else:
        SimpleWorker([QUEUE], connection=Redis.from_url(redis_url())).work(logging_level="WARNING")

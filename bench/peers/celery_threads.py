"""Celery on Redis: one worker with its pool of threads.

Settings: ``celery worker --pool threads --concurrency N --without-gossip --without-mingle --without-heartbeat``, log
level WARNING, Redis as result backend, a ``requests.Session`` a thread, 16 messages fetched ahead for each thread.
Its other pools: ``prefork`` took half as much processor time again for a job, and ``solo`` makes one call at a time.
"""

import sys
import threading

import requests
from celery import Celery

from bench.peers import payload, redis_url, target_url

app = Celery("bench", broker=redis_url(), backend=redis_url())
app.conf.update(
    worker_prefetch_multiplier=16, broker_connection_retry_on_startup=True, task_ignore_result=False
)
_OWN = threading.local()


@app.task(name="call")
def call(data: dict[str, object]) -> int:
    """The job: post, read the answer, return its status, which Celery keeps as the result."""
    if not hasattr(_OWN, "session"):
        _OWN.session = requests.Session()
    return int(_OWN.session.post(target_url(), json=data, timeout=30).status_code)


if __name__ == "__main__":
    message = payload()
    with app.producer_pool.acquire() as producer:
        for _ in range(int(sys.argv[2])):
            call.apply_async((message,), producer=producer)

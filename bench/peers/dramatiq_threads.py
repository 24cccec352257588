"""dramatiq on Redis: one worker process with threads.

Settings: ``dramatiq --processes 1 --threads N``, a ``requests.Session`` a thread. By habit dramatiq keeps no results:
a message that was handled is removed, and that is all the record there is.
"""

import sys
import threading

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker

from bench.peers import QUEUE, payload, redis_url, target_url

_BROKER = RedisBroker(url=redis_url())
dramatiq.set_broker(_BROKER)
_OWN = threading.local()


@dramatiq.actor(queue_name=QUEUE, actor_name="call")
def call(data: dict[str, object]) -> None:
    """The job: post and read the answer."""
    if not hasattr(_OWN, "session"):
        _OWN.session = requests.Session()
    _OWN.session.post(target_url(), json=data, timeout=30).raise_for_status()


if __name__ == "__main__":
    message = payload()
    for _ in range(int(sys.argv[2])):
        call.send(message)

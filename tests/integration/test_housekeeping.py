"""RQ's picture, as a poller keeps it."""

import time

from jobsched import clock
from jobsched.poller.housekeeping import PICTURE_AGAIN, PICTURE_EVERY, Housekeeping
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.integration.factories import make_worker


def test_what_another_poller_has_shown_and_is_over_is_taken_from_the_picture(link, broker):
    make_worker(link)  # it serves the pool default
    queues = ["default", "default.high", "default.low"]
    broker.show_started([(queue, n, time.time() + 60) for n, queue in enumerate(queues, 1)], "worker-1")
    Housekeeping(link, broker, 30).run_once()
    assert {queue: numbers.processing for queue, numbers in broker.counts(queues).items()} == dict.fromkeys(
        queues, 0
    )


def test_a_picture_that_redis_did_not_take_is_tried_again_soon(link, broker, monkeypatch):
    make_worker(link)
    broker.show_started([("default", 1, time.time() + 60)], "worker-1")
    now = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    house = Housekeeping(link, Broker(connect("redis://127.0.0.1:1/0")), 30)
    assert house.run_once() == PICTURE_AGAIN
    now[0] += PICTURE_AGAIN
    house._broker = broker
    assert house.run_once() == PICTURE_EVERY
    assert broker.counts(["default"])["default"].processing == 0

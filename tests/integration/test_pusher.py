"""What Redis does not take while it is away comes as soon as it is back, and not as a lost message much later."""

import pytest

from jobsched.poller.fire import Fire
from jobsched.poller.pusher import Pusher
from jobsched.poller.reconcile import Reconcile
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from tests.integration.factories import make_job


class Away:
    """A broker between two states: beside a Redis that is there, as the network decides."""

    def __init__(self, broker, nowhere):
        self.there, self._broker, self._nowhere = True, broker, nowhere

    def __getattr__(self, name):
        return getattr(self._broker if self.there else self._nowhere, name)


@pytest.fixture
def redis(broker):
    """A broker whose Redis can be ``there`` or not."""
    return Away(broker, Broker(connect("redis://127.0.0.1:1/0")))


def test_what_was_due_while_redis_was_away_is_pushed_in_the_first_round_after_it(link, redis):
    pusher = Pusher(redis)
    reconcile = Reconcile(link, redis, pusher=pusher)
    reconcile.run_once()  # gives Redis its epoch
    make_job(link)
    redis.there = False
    assert Fire(link, redis, 100, pusher).run_once().executions == 1
    assert reconcile.run_once().pushed == 0
    redis.there = True
    assert reconcile.run_once().pushed == 1
    [(execution,)] = link.execute("SELECT id FROM execution WHERE state = 'queued'")
    assert redis.take(["default"], 10) == [execution]
    assert reconcile.run_once().pushed == 0


def test_a_redis_that_was_wiped_meanwhile_is_filled_once(link, redis, redis_url):
    pusher = Pusher(redis)
    reconcile = Reconcile(link, redis, pusher=pusher)
    reconcile.run_once()
    make_job(link)
    redis.there = False
    Fire(link, redis, 100, pusher).run_once()
    connect(redis_url).flushall()
    redis.there = True
    assert reconcile.run_once().pushed == 1
    assert reconcile.run_once().pushed == 0
    assert len(redis.take(["default"], 10)) == 1


def test_what_was_due_meanwhile_goes_behind_and_nothing_is_pushed_twice(link, redis):
    pusher = Pusher(redis)
    reconcile, fire = Reconcile(link, redis, pusher=pusher), Fire(link, redis, 100, pusher)
    reconcile.run_once()
    make_job(link)
    make_job(link)
    redis.there = False
    assert fire.run_once().executions == 2
    link.execute("UPDATE execution SET queued_at = queued_at - interval '60 s'")
    redis.there = True
    make_job(link)
    assert fire.run_once().executions == 1
    assert reconcile.run_once().pushed == 0
    ids = [i for (i,) in link.execute("SELECT id FROM execution ORDER BY id")]
    assert redis.take(["default"], 10) == ids

"""What Redis does not take while it is away comes as soon as it is back, and not as a lost message much later."""

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


def test_what_was_due_while_redis_was_away_is_pushed_in_the_first_round_after_it(link, redis_url):
    client = connect(redis_url)
    client.flushall()
    broker = Away(Broker(client), Broker(connect("redis://127.0.0.1:1/0")))
    pusher = Pusher(broker)
    reconcile = Reconcile(link, broker, pusher=pusher)
    reconcile.run_once()  # gives Redis its epoch
    make_job(link)
    broker.there = False
    assert Fire(link, broker, 100, pusher).run_once().executions == 1
    assert reconcile.run_once().pushed == 0
    broker.there = True
    assert reconcile.run_once().pushed == 1
    [(execution,)] = link.execute("SELECT id FROM execution WHERE state = 'queued'")
    assert broker.take(["default"], 10) == [execution]
    assert reconcile.run_once().pushed == 0
    client.close()


def test_a_redis_that_was_wiped_meanwhile_is_filled_once(link, redis_url):
    client = connect(redis_url)
    client.flushall()
    broker = Away(Broker(client), Broker(connect("redis://127.0.0.1:1/0")))
    pusher = Pusher(broker)
    reconcile = Reconcile(link, broker, pusher=pusher)
    reconcile.run_once()
    make_job(link)
    broker.there = False
    Fire(link, broker, 100, pusher).run_once()
    client.flushall()
    broker.there = True
    assert reconcile.run_once().pushed == 1
    assert reconcile.run_once().pushed == 0
    assert len(broker.take(["default"], 10)) == 1
    client.close()


def test_what_was_due_meanwhile_goes_behind_and_nothing_is_pushed_twice(link, redis_url):
    client = connect(redis_url)
    client.flushall()
    broker = Away(Broker(client), Broker(connect("redis://127.0.0.1:1/0")))
    pusher = Pusher(broker)
    reconcile, fire = Reconcile(link, broker, pusher=pusher), Fire(link, broker, 100, pusher)
    reconcile.run_once()
    make_job(link)
    make_job(link)
    broker.there = False
    assert fire.run_once().executions == 2
    link.execute("UPDATE execution SET queued_at = queued_at - interval '60 s'")
    broker.there = True
    make_job(link)
    assert fire.run_once().executions == 1
    assert reconcile.run_once().pushed == 0
    ids = [i for (i,) in link.execute("SELECT id FROM execution ORDER BY id")]
    assert broker.take(["default"], 10) == ids
    client.close()

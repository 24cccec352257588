"""Taking and claiming as strands: what they say of faults that nobody foresaw, and how they hear of a stop."""

import json
import threading
from types import SimpleNamespace

import pytest

from jobsched import clock, log
from jobsched.db import claims
from jobsched.db.vault import Vault
from jobsched.queue.broker import Waker
from jobsched.worker.identity import Identity
from jobsched.worker.intake import Intake
from jobsched.worker.journal import Journal
from jobsched.worker.seats import Seats
from jobsched.worker.taking import Taking
from tests.conftest import eventually
from tests.integration.factories import make_execution, make_job
from tests.integration.transports import in_strand, running_strands

NEVER_SUSPENDED = SimpleNamespace(suspended=lambda: False)


@pytest.fixture
def intake(database_url, redis_url, broker):
    """An intake that is not begun, of a worker that may start calls."""
    identity, seats = Identity(), Seats(10)
    identity.prove(identity.reborn(), clock.monotonic())
    waker = Waker(redis_url, ["default"])
    recorder = SimpleNamespace(journal=Journal("w"))
    with running_strands() as strands:
        taking = Taking(broker, waker, ["default"], seats, identity, NEVER_SUSPENDED, strands)
        yield Intake(database_url, taking, seats, identity, None, recorder, None, Vault(None), strands)
        taking.end(5)
    waker.close()


@pytest.fixture
def told(capsys):
    """All events so far."""
    log.configure(json=True)
    events = []

    def read():
        events.extend(json.loads(line)["event"] for line in capsys.readouterr().err.splitlines())
        return events

    return read


def test_a_take_that_fails_in_a_way_nobody_foresaw_is_told_and_tried_again(intake, broker, told, monkeypatch):
    tries = []

    def take(*_, **__):
        tries.append(1)
        if len(tries) == 1:
            raise ZeroDivisionError
        return []

    monkeypatch.setattr(broker, "take", take)
    intake._taking.begin()
    eventually(lambda: _is(told(), ["taking_failed", "outage_over"]), 5)


def test_a_claim_that_fails_in_a_way_nobody_foresaw_is_told_and_its_seats_are_free(
    intake, broker, told, link, monkeypatch
):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(claims, "claim", fail)
    broker.push([("default", make_execution(link, make_job(link, due=None)))])
    intake.begin()
    intake._taking.begin()
    eventually(lambda: _is(told(), ["claiming_failed"]), 5)
    intake._taking.end(5)
    assert intake.end(5)
    assert intake._taking._free() == Seats(10).free()
    assert link.execute("SELECT state FROM execution") == [("queued",)]


def test_a_stop_ends_the_pause_of_a_claim_at_once(intake):
    intake._taking.begin()
    threading.Timer(0.1, intake._taking.end, [5]).start()
    began = clock.monotonic()
    for pause in (30, 30):
        assert in_strand(intake._strands, lambda pause=pause: intake._taking.stopped_within(pause))
    assert clock.monotonic() - began < 3


def _is(events, expected):
    assert events == expected

import pytest

from jobsched import clock
from jobsched.worker.identity import Identity


@pytest.fixture
def now(monkeypatch):
    time = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: time[0])
    return time


def test_an_id_counts_once_it_is_proven(now):
    identity = Identity()
    assert identity.for_new_calls() is None
    id = identity.reborn()
    assert identity.for_new_calls() is None
    identity.prove(id, now[0])
    assert identity.for_new_calls() == id


def test_without_a_proof_no_call_is_started_after_12_s(now):
    identity = Identity()
    id = identity.reborn()
    identity.prove(id, now[0])
    now[0] += 11.9
    assert identity.for_new_calls() == id
    now[0] += 0.1
    assert identity.for_new_calls() is None
    identity.prove(id, now[0])
    assert identity.for_new_calls() == id


def test_a_proof_for_an_older_id_proves_nothing(now):
    identity = Identity()
    old = identity.reborn()
    identity.reborn()
    identity.prove(old, now[0])
    assert identity.for_new_calls() is None

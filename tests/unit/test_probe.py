"""Probe: a check that is waited for no longer than it is worth."""

import contextlib
import threading
import time

import pytest

from jobsched.errors import DatabaseUnavailable, SchemaMismatch
from jobsched.web.probe import Probe


def test_a_check_answers_or_raises_as_it_is():
    asked = []
    probe = Probe(lambda: asked.append(None))
    probe()
    probe()
    assert len(asked) == 2

    def mismatch():
        raise SchemaMismatch("another schema")

    with pytest.raises(SchemaMismatch):
        Probe(mismatch)()


def test_while_a_check_hangs_nobody_waits_longer_than_the_patience_and_none_is_started_beside_it():
    go_on, asked = threading.Event(), []

    def hang():
        asked.append(None)
        go_on.wait(10)

    probe = Probe(hang, patience=0.05)
    with pytest.raises(DatabaseUnavailable):
        probe()
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(DatabaseUnavailable):
            probe()
    assert time.monotonic() - began < 0.5
    assert len(asked) == 1
    go_on.set()
    deadline = time.monotonic() + 5
    while len(asked) == 1 and time.monotonic() < deadline:
        with contextlib.suppress(DatabaseUnavailable):
            probe()
    assert len(asked) == 2

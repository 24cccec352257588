"""The clock of tests/chaos/clock, seen by each kind of process that is put under it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest
import redis

from tests.chaos.clock import Clock, ClockedStand, clock_environment, unavailable
from tests.conftest import eventually

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

HOUR = 3600.0

# Answers each line with what its clocks show; 5 is CLOCK_REALTIME_COARSE of Linux, which Python does not name.
_TELL = """
import sys, time
from datetime import datetime
for line in sys.stdin:
    print(time.time(), datetime.now().timestamp(), time.clock_gettime(5), time.monotonic(), flush=True)
"""


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


def test_a_python_process_follows_every_step_and_its_monotonic_clock_does_not(clock: Clock) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TELL],
        env={**os.environ, **clock.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for offset in (0.0, 2 * 24 * HOUR, -2 * HOUR, 0.25, -0.75, -1e9 / 3):
            clock.offset = offset
            before, monotonic = time.time(), time.monotonic()
            process.stdin.write("\n")
            process.stdin.flush()
            *shown, steady = map(float, process.stdout.readline().split())
            for at in shown:
                # The coarse clock lags by a tick of the kernel.
                assert before + offset - 0.02 <= at <= time.time() + offset
            assert monotonic <= steady <= time.monotonic()
        process.stdin.close()
        assert process.wait(10) == 0


def test_processes_without_the_clock_are_left_alone(clock: Clock) -> None:
    clock.offset = HOUR
    assert abs(clock.now().timestamp() - time.time() - HOUR) < 1
    shown = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], capture_output=True, text=True, check=True
    ).stdout
    assert abs(float(shown) - time.time()) < 10


def test_a_file_that_is_not_there_leaves_the_clock_as_it_is(clock: Clock) -> None:
    missing = clock_environment(clock.file.with_name("missing"))
    shown = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **missing},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert abs(float(shown) - time.time()) < 10


def follows(valkey: redis.Redis, clock: Clock) -> None:
    seconds, microseconds = valkey.time()
    assert abs(seconds + microseconds / 1e6 - clock.now().timestamp()) < 1


def test_postgres_and_valkey_follow_and_a_key_lives_by_the_clock(clock: Clock) -> None:
    clock.show(datetime(2027, 3, 27, 23, 0, tzinfo=UTC))
    with ClockedStand(clock) as stand, redis.Redis.from_url(stand.redis_url) as valkey:
        link = stand.link()
        valkey.set("key", "value", ex=int(HOUR))
        for step in (0.0, HOUR / 2, -HOUR, 2 * HOUR, 24 * HOUR):
            clock.step(step)
            before = clock.now()
            [(wall, statement)] = link.execute("SELECT clock_timestamp(), statement_timestamp()")
            assert before <= statement <= wall <= clock.now()
            eventually(partial(follows, valkey, clock), 2)  # it looks at the clock ten times a second
        assert valkey.get("key") is None
        link.close()
        # What the stand's own processes write is of that time too.
        assert stand.query("SELECT min(finished_at) IS NULL FROM execution_history") == [(True,)]
        assert "execution_history_20270327_20270328" in {
            row[0] for row in stand.query("SELECT relname FROM pg_class WHERE relkind = 'r'")
        }

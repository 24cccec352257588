"""The names of queues."""

import pytest

from jobsched.domain.queues import pool_of, queue_name, queues_of


@pytest.mark.parametrize(
    ("priority", "queue"),
    [(0, "eu.low"), (3, "eu.low"), (4, "eu"), (5, "eu"), (7, "eu"), (8, "eu.high"), (10, "eu.high")],
)
def test_a_priority_decides_the_queue_within_its_pool(priority: int, queue: str) -> None:
    assert queue_name("eu", priority) == queue


@pytest.mark.parametrize("pool", ["default", "a_b-c", "high", "low", "x-high"])
def test_every_queue_of_a_pool_names_its_pool(pool: str) -> None:
    assert [pool_of(queue) for queue in queues_of(pool)] == [pool] * 3
    assert {queue_name(pool, priority) for priority in range(11)} == set(queues_of(pool))


def test_queues_are_served_high_first() -> None:
    assert queues_of("default") == ("default.high", "default", "default.low")

"""``jobsched up``: each process has a port of its own for its figures."""

import pytest

from jobsched.config import Settings
from jobsched.embedded.up import metrics_ports
from jobsched.errors import ConfigError


def ports(first: int | None, count: int) -> list[str | None]:
    return [one.get("JOBSCHED_METRICS_PORT") for one in metrics_ports(Settings(metrics_port=first), count)]


def test_ports_follow_each_other_from_the_one_that_is_given() -> None:
    assert ports(9100, 3) == ["9100", "9101", "9102"]
    assert ports(65533, 3) == ["65533", "65534", "65535"]


def test_any_free_port_is_any_free_port_for_each() -> None:
    assert ports(0, 3) == ["0", "0", "0"]


def test_without_the_setting_nothing_is_served() -> None:
    assert ports(None, 2) == [None, None]


def test_ports_that_run_out_are_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"JOBSCHED_METRICS_PORT: 3 ports are needed from 65534 on"):
        ports(65534, 3)

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsched.domain.misfire import DUE_LIMIT, FIRE_ALL_LIMIT, MisfireDecision, decide
from jobsched.domain.schedule import Due

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def due(*seconds_ago: float, count: int | None = None) -> Due:
    return Due(tuple(ago(seconds) for seconds in seconds_ago), count or len(seconds_ago))


def every_second(count: int) -> Due:
    """As many slots as given, the newest now; listed as a caller lists them."""
    return Due(tuple(ago(seconds) for seconds in reversed(range(min(count, DUE_LIMIT)))), count)


@pytest.mark.parametrize("policy", ["fire_once", "fire_all", "skip"])
def test_slots_that_are_not_missed_all_run(policy: str) -> None:
    assert decide(policy, due(60, 30, 0), NOW, 60) == MisfireDecision((ago(60), ago(30), ago(0)), 0, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["fire_once", "fire_all", "skip"])
def test_nothing_due_is_nothing_to_do(policy: str) -> None:
    assert decide(policy, Due((), 0), NOW, 60) == MisfireDecision((), 0, None)  # type: ignore[arg-type]


def test_fire_once_folds_all_into_the_newest_if_any_was_missed() -> None:
    assert decide("fire_once", due(61, 30, 0), NOW, 60) == MisfireDecision((ago(0),), 2, ago(30))
    assert decide("fire_once", due(7200), NOW, 60) == MisfireDecision((ago(7200),), 0, None)


def test_fire_once_folds_more_slots_than_one_decision_may_run() -> None:
    assert decide("fire_once", every_second(5000), NOW, 604_800) == MisfireDecision((NOW,), 4999, ago(1))


def test_fire_all_runs_each_oldest_first() -> None:
    assert decide("fire_all", due(7200, 3600, 0), NOW, 60).run == (ago(7200), ago(3600), ago(0))


def test_fire_all_runs_the_newest_thousand() -> None:
    everything = decide("fire_all", every_second(FIRE_ALL_LIMIT), NOW, 60)
    assert (len(everything.run), everything.skipped, everything.skipped_newest) == (1000, 0, None)
    decision = decide("fire_all", every_second(5000), NOW, 60)
    assert (len(decision.run), decision.skipped, decision.skipped_newest) == (1000, 4000, ago(1000))


def test_skip_runs_only_what_is_within_the_grace() -> None:
    assert decide("skip", due(7200, 61, 60, 0), NOW, 60) == MisfireDecision((ago(60), ago(0)), 2, ago(61))
    assert decide("skip", due(7200, 3600), NOW, 60) == MisfireDecision((), 2, ago(3600))
    assert decide("skip", due(0.001), NOW, 0) == MisfireDecision((), 1, ago(0.001))


def test_skip_runs_the_newest_thousand_within_a_long_grace() -> None:
    decision = decide("skip", every_second(604_800), NOW, 604_800)
    assert (len(decision.run), decision.skipped, decision.skipped_newest) == (1000, 603_800, ago(1000))


@given(
    st.sampled_from(["fire_once", "fire_all", "skip"]),
    st.integers(1, 3000),
    st.integers(1, DUE_LIMIT),
    st.integers(0, 4000),
)
def test_each_slot_is_run_or_counted_and_the_newest_not_run_is_named(
    policy: str, count: int, newest: int, grace: int
) -> None:
    listed = Due(every_second(count).slots[-newest:], count)
    decision = decide(policy, listed, NOW, grace)  # type: ignore[arg-type]
    assert len(decision.run) + decision.skipped == count
    assert len(decision.run) <= FIRE_ALL_LIMIT
    assert (decision.skipped_newest is None) == (decision.skipped == 0)
    in_order = [*([decision.skipped_newest] if decision.skipped_newest else []), *decision.run]
    assert in_order == list(listed.slots[len(listed.slots) - len(in_order) :])

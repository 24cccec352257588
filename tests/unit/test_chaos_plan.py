"""The chaos bench's plan: every kind of fault gets its turn, none at a part that another one holds."""

from collections import Counter
from dataclasses import dataclass

import pytest

from tests.chaos.bench.faults import FAULTS
from tests.chaos.bench.plan import AT_ONCE, Planned, chance_of, make_plan

SECONDS = 180.0
PLANS = {seed: make_plan(seed, SECONDS) for seed in range(1, 21)}


@dataclass(frozen=True)
class Card:
    parts: tuple[str, ...]
    lasts: float


def test_the_same_seed_makes_the_same_plan():
    assert make_plan(7, SECONDS) == PLANS[7]
    assert make_plan(8, SECONDS) != PLANS[7]


def test_twenty_seeds_strike_with_every_kind_often_enough():
    struck = Counter(planned.kind for plan in PLANS.values() for planned in plan)
    assert {kind: struck[kind] for kind in FAULTS if struck[kind] < 5} == {}


@pytest.mark.parametrize("seed", PLANS)
def test_a_fault_strikes_every_five_seconds_and_is_healed_before_the_load_ends(seed):
    plan = PLANS[seed]
    assert len(plan) >= 34
    assert [planned.at for planned in plan] == sorted({planned.at for planned in plan})
    assert all(planned.at % 5 == 0 for planned in plan)
    assert max(planned.at + FAULTS[planned.kind].lasts for planned in plan) <= SECONDS


@pytest.mark.parametrize("seed", PLANS)
def test_no_part_is_hit_twice_at_once_and_one_worker_is_always_left_alone(seed):
    for planned in PLANS[seed]:
        under_way = [one for one in PLANS[seed] if one.at <= planned.at < one.at + FAULTS[one.kind].lasts]
        places = Counter(
            "poller" if part == "pollers" else part for one in under_way for part in FAULTS[one.kind].parts
        )
        assert {place: n for place, n in places.items() if n > AT_ONCE.get(place, 1)} == {}


def test_a_part_that_is_held_for_long_leaves_its_turns_to_others():
    kinds = {"long": Card(("a",), 29.0), "short": Card(("b",), 1.0), "both": Card(("a", "b"), 1.0)}
    plan = make_plan(1, 30.0, 5.0, kinds)
    assert [planned.at for planned in plan] == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    assert make_plan(1, 30.0, 5.0, {"long": kinds["long"]}) == [Planned(0.0, "long")]


def test_each_strike_has_a_randomness_of_its_own():
    drawn = {(seed, index): chance_of(seed, index).random() for seed in (1, 2) for index in range(3)}
    assert len(set(drawn.values())) == 6
    assert chance_of(2, 1).random() == drawn[2, 1]


def test_a_fault_is_known_by_its_name_and_says_how_long_it_lasts():
    assert {fault.kind for fault in FAULTS.values()} == set(FAULTS)
    assert all(0 < fault.lasts < 60 for fault in FAULTS.values())
    assert all(fault.parts for fault in FAULTS.values())

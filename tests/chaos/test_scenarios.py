"""The named scenarios of the chaos bench: small ones all the time, with --full every one in its whole size."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.chaos import clock
from tests.chaos.bench.scenarios import SCENARIOS, Scenario, dst_day, wall
from tests.unit import dst_table
from tests.unit.test_dst_table import rows, watch

NEED_THE_CLOCK = {"dst_day", "clock_jump"}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_scenario_shows_what_it_must(scenario: Scenario, full: bool) -> None:
    if scenario.name in NEED_THE_CLOCK and (reason := clock.unavailable()):
        pytest.skip(reason)
    if scenario.small is None and not full:
        pytest.skip("takes long: --full")
    told = scenario.run(**({} if full else scenario.small or {}))
    json.dumps(told)
    assert told["findings"] == [], told["figures"]
    assert told["passed"]


def documented() -> list[tuple[str, str, date]]:
    """The rows of the document that the oracle can read: no delays, and instants without an offset only."""
    found = []
    for schedule, zone, day in rows():
        local = "T" in schedule and datetime.fromisoformat(schedule.removeprefix("@at ")).tzinfo is None
        if local or not ("T" in schedule or schedule.startswith("@in")):
            found.append((f"@at {schedule.removeprefix('@at ')}" if local else schedule, zone, day))
    return found


@pytest.mark.parametrize(("schedule", "zone", "day"), documented())
def test_the_oracle_of_the_day_agrees_with_the_watch_of_the_document(
    schedule: str, zone: str, day: date
) -> None:
    midnight, end = dst_table.day_of(zone, day)
    # Intervals count from noon of the day before.
    first = dst_table.anchor_of(zone, day) if schedule.startswith("@every") else midnight
    found = wall.slots(schedule, zone, first, end - timedelta(microseconds=1))
    assert [slot for slot in found if slot >= midnight] == [
        slot.astimezone(UTC) for slot in watch(schedule, zone, day)
    ]


def test_the_nights_have_the_changes_that_they_name() -> None:
    for night in (*dst_day.NIGHTS, *dst_day.SMALL):
        change = wall.change(night.zone, dst_day.YEAR, forward=night.forward)
        known = [one.at for one in dst_table.changes(night.zone, dst_day.YEAR)]
        assert change.at in known
        assert (change.jump > timedelta()) == night.forward

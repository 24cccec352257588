"""docs/schedules.md tells what runs when the clock changes; a watch of the clock on the wall says the same.

The watch asks zoneinfo what the clock shows, minute by minute (second by second where a schedule has seconds),
and knows nothing of offsets, gaps or folds.
"""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.unit import dst_table
from tests.unit.dst_table import (
    CHANGING,
    STEADY,
    STEADY_DAY,
    STEADY_SCHEDULES,
    anchor_of,
    changes,
    cron_fields,
    day_of,
    has_star,
    matches,
    minutes,
    runs,
    schedules,
)

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


def test_the_document_has_the_tables_that_the_code_makes() -> None:
    held = dst_table.between_marks(dst_table.DOCUMENT.read_text(encoding="utf-8"))
    # Other zone data are a reason too: the years to come are what governments last said.
    assert held == dst_table.tables(), "write it anew: python -m tests.unit.dst_table"


def rows() -> list[tuple[str, str, date]]:
    found = [(each, zone, STEADY_DAY) for zone in STEADY for each in STEADY_SCHEDULES]
    for zone in CHANGING:
        gap, fold = changes(zone)
        for on_gap, on_fold in schedules(gap, fold):
            found += [(on_gap, zone, gap.day), (on_fold, zone, fold.day)]
    return found


@pytest.mark.parametrize(("schedule", "zone", "day"), rows())
def test_each_cell_is_what_a_watch_of_the_clock_sees(schedule: str, zone: str, day: date) -> None:
    expected = [slot.astimezone(ZoneInfo(zone)) for slot in watch(schedule, zone, day)]
    assert [slot.isoformat() for slot in runs(schedule, zone, day)] == [slot.isoformat() for slot in expected]


def watch(schedule: str, zone: str, day: date) -> list[datetime]:
    """What runs on a local day by the rule of the document."""
    fields = cron_fields(schedule)
    if fields is not None:
        return watch_cron(schedule, fields, zone, day)
    keyword, _, rest = schedule.rpartition(" ")
    first, last = day_of(zone, day)
    if keyword in ("@every", "@in"):
        step = timedelta(hours=int(rest.removesuffix("h")))
        slots = [anchor_of(zone, day) + step]
        while keyword == "@every" and slots[-1] + step < last:
            slots.append(slots[-1] + step)
        return [slot for slot in slots if first <= slot < last]
    instant = datetime.fromisoformat(rest)
    if instant.tzinfo is not None:
        return [local for local in minutes(zone, day) if local.timestamp() == instant.timestamp()]
    return [next(local for local in minutes(zone, day) if local.replace(tzinfo=None) >= instant)]


def watch_cron(schedule: str, fields: list[set[int]], zone: str, day: date) -> list[datetime]:
    step = SECOND if fields[0] != {0} else MINUTE
    reached, found = None, []
    for local in minutes(zone, day) if step == MINUTE else small_hours(zone, day):
        wall = local.replace(tzinfo=None)
        if has_star(schedule):
            found += [local] * matches(fields, wall)
            continue
        new = wall if reached is None else reached + step
        while new <= wall:  # one round, but where the clock has jumped
            if matches(fields, new):
                found.append(local)
                break
            new += step
        reached = wall if reached is None else max(reached, wall)
    return found


def small_hours(zone: str, day: date) -> list[datetime]:
    """Each second of the first six hours of a local day: all rows with seconds run before 4:00."""
    first, _last = day_of(zone, day)
    return [(first + SECOND * number).astimezone(ZoneInfo(zone)) for number in range(6 * 3600)]


@pytest.mark.parametrize("zone", CHANGING)
def test_a_zone_that_changes_has_one_gap_and_one_fold_that_year(zone: str) -> None:
    gap, fold = changes(zone)
    assert gap.jump == -fold.jump
    assert gap.jump == (timedelta(minutes=30) if zone == "Australia/Lord_Howe" else timedelta(hours=1))


@pytest.mark.parametrize("zone", STEADY)
def test_a_steady_zone_does_not_change(zone: str) -> None:
    assert changes(zone) == []


def test_other_crons_are_told_apart_as_their_manual_does() -> None:
    """cron(8), for the night in which Berlin's clock goes from 2:00 to 3:00, and the one in which it goes back."""
    gap, fold = (change.day for change in changes("Europe/Berlin"))

    def shown(cron: str, schedule: str, day: date) -> list[str]:
        found = getattr(dst_table, cron)(schedule, "Europe/Berlin", day)
        return [f"{local:%H:%M%z}" for local in found]

    assert shown("debian", "30 2 * * *", gap) == ["03:00+0200"]
    assert shown("debian", "30 2 * * *", fold) == ["02:30+0200"]
    assert shown("debian", "0,30 2 * * *", gap) == ["03:00+0200", "03:00+0200"]
    assert shown("debian", "30 2-3 * * *", fold) == ["02:30+0200", "03:30+0100"]
    assert shown("debian", "*/30 2 * * *", gap) == []
    assert len(shown("debian", "*/30 2 * * *", fold)) == 4
    assert shown("unpatched", "30 2 * * *", gap) == []
    assert shown("unpatched", "30 2 * * *", fold) == ["02:30+0200", "02:30+0100"]
    assert dst_table.debian("20 30 2 * * *", "Europe/Berlin", gap) is None
    assert dst_table.debian("@every 6h", "Europe/Berlin", gap) is None

"""The chaos bench's own arithmetic of slots, against what is known by heart and against the product's."""

from datetime import UTC, datetime, timedelta

import pytest

from jobsched.domain.schedule import parse_schedule
from tests.chaos.bench.slots import instant, is_recurring, milliseconds, slots

NOON = instant("2026-12-01T12:00:00.250Z")


def test_an_interval_counts_from_its_anchor_and_leaves_the_anchor_out() -> None:
    assert list(slots("@every 2s", NOON, 0, NOON + 6000)) == [NOON + 2000, NOON + 4000, NOON + 6000]
    assert list(slots("@every 2s", NOON, NOON + 2001, NOON + 5999)) == [NOON + 4000]


def test_both_bounds_are_included() -> None:
    found = slots("@every 1s", NOON, NOON, NOON + 9000, start_at=NOON + 2000, end_at=NOON + 4000)
    assert list(found) == [NOON + 2000, NOON + 3000, NOON + 4000]


def test_a_delay_and_an_instant_have_one_slot() -> None:
    assert list(slots("@in 1.5s", NOON, 0, NOON + 9000)) == [NOON + 1500]
    assert list(slots("2026-12-01T12:00:03Z", 0, 0, NOON + 9000)) == [NOON + 2750]
    assert list(slots("@at 2026-12-01T12:00:03Z", 0, NOON + 3000, NOON + 9000)) == []
    assert [is_recurring(each) for each in ("@in 3s", "2026-12-01T12:00:03Z", "@every 3s", "* * * * *")] == [
        False,
        False,
        True,
        True,
    ]


def test_a_duration_that_cannot_be_read_is_refused() -> None:
    assert milliseconds("1h30m1.5s20ms") == 5_401_520
    with pytest.raises(AssertionError):
        milliseconds("1d")


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * * *",
        "*/2 * * * * *",
        "5-20/5,50 */3 * * * *",
        "*/7 * * * *",
        "30 0 12 * * 2",
        "0 1/29 12-13 1 12 *",
        "@every 1s",
        "@every 90s",
    ],
)
def test_the_product_finds_the_same_slots(schedule: str) -> None:
    anchor = datetime(2026, 12, 1, 11, 59, 30, 250_000, UTC)
    end = anchor + timedelta(hours=1)
    parsed = parse_schedule(schedule, "UTC")
    known, after = [], anchor
    while (found := parsed.next_after(after, anchor)) is not None and found <= end:
        known.append(instant(found.isoformat()))
        after = found
    start = instant(anchor.isoformat())
    assert list(slots(schedule, start, start, instant(end.isoformat()))) == known

"""When a job is next due once the rules of its zone have changed, and by which version of them."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from jobsched.domain.advance import next_slot
from jobsched.domain.schedule import parse_schedule
from jobsched.domain.zone_rules import ZonedGroup, ZonedJob, all_right, is_older, times_by_present_rules
from jobsched.poller.tzdata import rules_version
from tests.zone_files import hours, write_version, write_zone, zones_of

ZONE = "Europe/Berlin"
DAY = datetime(2026, 6, 10, tzinfo=UTC)
WRITTEN = DAY - timedelta(days=10)


def job(schedule, next_slot, **fields):
    row = {
        "job_id": 1, "next_slot": next_slot, "last_slot": None, "runs": 0, "anchor": WRITTEN,
        "schedule": schedule, "timezone": ZONE, "start_at": None, "end_at": None, "jitter_seconds": 0.0,
        "updated_at": WRITTEN,
    }  # fmt: skip
    return ZonedJob(**(row | fields))


@pytest.fixture
def moved(tmp_path):
    """The next slot once the zone, at +2 hours so far, has another offset from an instant on."""

    def compute(offset, since, one):
        write_zone(tmp_path, ZONE, 2, [(since, offset)])
        with zones_of(tmp_path):
            times = times_by_present_rules(one)
            return one.next_slot if times is None else times.next_slot

    return compute


@pytest.mark.parametrize(("offset", "hour"), [(1, 8), (3, 6)])
def test_a_slot_to_come_keeps_its_time_on_the_wall(moved, offset, hour):
    one = job("0 9 1 7 *", datetime(2026, 7, 1, 7, tzinfo=UTC), last_slot=datetime(2025, 7, 1, 7, tzinfo=UTC))
    assert moved(offset, DAY, one) == datetime(2026, 7, 1, hour, tzinfo=UTC)


def test_an_instant_on_the_wall_moves_and_one_with_an_offset_stays(moved):
    slot = datetime(2026, 7, 1, 7, tzinfo=UTC)
    assert moved(1, DAY, job("@at 2026-07-01T09:00:00", slot)) == slot + hours(1)
    assert moved(1, DAY, job("2026-07-01T09:00:00+02:00", slot)) == slot


def test_intervals_and_delays_are_left_alone(moved):
    for schedule in ("@every 1h", "@in 90m"):
        odd = DAY + timedelta(days=3, minutes=17)
        assert moved(1, DAY, job(schedule, odd)) == odd


def test_a_slot_before_the_change_stays(moved):
    one = job("0 9 * * *", DAY + hours(7), last_slot=DAY - hours(17))
    assert moved(1, DAY + hours(12), one) == DAY + hours(7)


def test_the_first_of_several_times_of_a_day_is_not_passed_over(moved):
    """By the new rules the stored slot, 9:00 before, is 10:00 of the same day; 9:00 comes an hour sooner."""
    one = job("0 9,10 * * *", DAY + hours(7), last_slot=DAY - hours(16))
    assert moved(3, DAY, one) == DAY + hours(6)


def test_a_run_whose_wall_time_comes_again_by_rules_that_are_late_is_not_repeated(moved):
    """9:00 was run at 7:00 UTC; the zone had left +2 a week ago, so that it should have been 8:00 UTC."""
    one = job("0 9 * * *", DAY + hours(31), last_slot=DAY + hours(7))
    assert moved(1, DAY - timedelta(days=7), one) == DAY + hours(32)
    renamed = job("0 9 * * *", DAY + hours(31), last_slot=DAY + hours(7), updated_at=DAY + hours(7.5))
    assert moved(1, DAY - timedelta(days=7), renamed) == DAY + hours(32)
    yearly = job("0 9 10 6 *", DAY + hours(7) + timedelta(days=365), last_slot=DAY + hours(7))
    assert moved(1, DAY - timedelta(days=7), yearly) == DAY + hours(8) + timedelta(days=365)


def test_a_run_that_has_moved_into_the_past_is_late_not_lost(moved):
    one = job("0 9 10 6 *", DAY + hours(7), last_slot=DAY + hours(7) - timedelta(days=365))
    assert moved(4, DAY, one) == DAY + hours(5)


def test_a_run_that_has_moved_to_before_an_edit_of_something_else_is_not_lost(moved):
    one = job("0 9 10 6 *", DAY + hours(7), updated_at=DAY + hours(5.5))
    assert moved(4, DAY, one) == DAY + hours(5)
    ends = job("0 9 10 6 *", DAY + hours(7), updated_at=DAY + hours(5.5), end_at=DAY + hours(7))
    assert moved(4, DAY, ends) == DAY + hours(5)


def test_slots_of_a_pause_stay_passed_over(moved):
    """Paused for a year and resumed at 6:30, half an hour before a slot that is half an hour away."""
    last = DAY - timedelta(days=365)
    one = job("0 * * * *", DAY + hours(7), last_slot=last, updated_at=DAY + hours(6.5))
    assert moved(1, DAY, one) == DAY + hours(7)
    daily = job("0 9 * * *", DAY + hours(7), last_slot=last + hours(7), updated_at=DAY + hours(3))
    assert moved(3, DAY, daily) == DAY + hours(6)


def test_a_slot_of_an_earlier_schedule_is_no_reason_to_pass_one_over(moved):
    """It ran 10:58 in the morning by another schedule, just before this one was written."""
    last, written = DAY + hours(5.9), DAY + hours(5.95)
    one = job("0 9 10 6 *", DAY + hours(7), last_slot=last, anchor=written, updated_at=written)
    assert moved(3, DAY, one) == DAY + hours(6)


def test_bounds_hold(moved):
    slot = DAY + hours(7)
    assert moved(1, DAY, job("0 9 * * *", slot, last_slot=slot - hours(24), end_at=slot)) is None
    first = job("0 9 * * *", slot, start_at=slot, anchor=slot)
    assert moved(3, DAY, first) == DAY + hours(30)


def test_jitter_goes_with_the_slot(tmp_path):
    write_zone(tmp_path, ZONE, 1)
    with zones_of(tmp_path):
        times = times_by_present_rules(
            job("0 9 1 7 *", datetime(2026, 7, 1, 7, tzinfo=UTC), jitter_seconds=60)
        )
    assert times is not None
    assert times.next_slot == datetime(2026, 7, 1, 8, tzinfo=UTC)
    assert timedelta() < times.next_execution_time - times.next_slot < timedelta(minutes=1)


def test_by_unchanged_rules_nothing_ever_moves():
    choice = random.Random(5)
    texts = (
        "0 9 * * *",
        "*/20 2 * * *",
        "30 2 29 2 *",
        "0 9,10 1 * *",
        "@hourly",
        "@monthly",
        "30 1-3 * * SUN",
    )
    zones = (ZONE, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia")
    for _ in range(2000):
        schedule = parse_schedule(choice.choice(texts), choice.choice(zones))
        last = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=choice.randrange(1_000_000))
        resumed = last + timedelta(minutes=choice.choice([-500_000, 0, 7, 90, 600_000]))
        start_at = choice.choice([None, last - hours(5), resumed + hours(30)])
        known = next_slot(
            schedule, after=max(last, resumed), anchor=last, start_at=start_at, end_at=None, max_runs=None,
            runs=0, is_recurring=True,
        )  # fmt: skip
        assert known is not None
        renamed = resumed + choice.choice([0, 0.3, 1]) * (known - resumed)
        fired = last if resumed < last else choice.choice([None, last])
        one = job(
            schedule.text, known, timezone=schedule.timezone, last_slot=fired,
            anchor=start_at or choice.choice([last, resumed]), start_at=start_at, updated_at=renamed,
        )  # fmt: skip
        assert times_by_present_rules(one) is None, one


def test_no_job_moves_whose_group_is_all_right(tmp_path):
    """Other rules than those that the slots were stored by, jobs that share a slot, and histories of all kinds."""
    chance = random.Random(7)
    outcomes = set()
    for _ in range(300):
        text = chance.choice(
            ["0 9 * * *", "0 */6 * * *", "30 1 10 * *", "@at 2026-07-01T09:00:00", "15 8-18 * * 1-5"]
        )
        write_zone(tmp_path, ZONE, 2)
        with zones_of(tmp_path):
            slot = parse_schedule(text, ZONE).next_after(DAY + hours(chance.uniform(0, 900)), DAY)
        if slot is None:
            continue
        start = chance.choice([None, None, slot - hours(chance.uniform(0, 60))])
        end = chance.choice([None, None, slot + hours(chance.uniform(0, 3))])
        jobs = [
            job(
                text,
                slot,
                last_slot=chance.choice([None, slot - hours(chance.uniform(0.01, 80))]),
                anchor=slot - hours(chance.uniform(0.01, 80)),
                updated_at=slot - hours(chance.uniform(0.01, 80)),
                start_at=start,
                end_at=end,
            )
            for _ in range(4)
        ]
        counted = min(
            max(
                one.last_slot or one.updated_at,
                one.updated_at,
                one.anchor if start is None else one.updated_at,
            )
            for one in jobs
        )
        write_zone(tmp_path, ZONE, 2, [(slot + hours(chance.uniform(-200, 20)), chance.choice([1, 2, 3]))])
        with zones_of(tmp_path):
            right = all_right(ZonedGroup(text, ZONE, slot, start, end, counted, [1, 2, 3, 4]))
            moves = [one for one in jobs if times_by_present_rules(one) is not None]
        assert not (right and moves)
        outcomes.add((right, bool(moves)))
    assert outcomes >= {(True, False), (False, True)}


@pytest.mark.parametrize(
    ("rules", "applied", "older"),
    [
        ("2026a", None, False), (None, None, False), ("2026a", "2026a", False), ("2026b", "2026a", False),
        ("2026a", "2025z", False), ("2025za", "2025z", False), ("2025z", "2025za", True), ("2025b", "2026a", True),
        (None, "2026a", True), ("2026a", "a hand's", False),
    ],
)  # fmt: skip
def test_versions_of_rules_have_an_order_and_unknown_ones_come_first(rules, applied, older):
    assert is_older(rules, applied) is older


def test_the_version_is_that_of_the_files_which_are_read(tmp_path):
    with zones_of(tmp_path / "nothing"):
        packaged = rules_version()  # of the package tzdata
    assert packaged is not None
    system = tmp_path / "system"
    system.mkdir()
    (system / "UTC").write_bytes(b"")
    with zones_of(system):
        assert rules_version() == packaged  # a lone UTC, as in minimal images
    write_zone(system, ZONE, 1)
    with zones_of(system):
        assert rules_version() is None  # zones of nobody knows when
    (system / "+VERSION").write_text("2026c\n")
    with zones_of(system):
        assert rules_version() == "2026c"
    write_version(system, "2026d-rearguard")
    with zones_of(system):
        assert rules_version() == "2026d"

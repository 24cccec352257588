"""New rules of time zones meet stored slots: real rows, and zone files that the test makes."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from jobsched import log
from jobsched.db import zoned
from jobsched.db.connection import Link, open_pool
from jobsched.db.jobs import Jobs
from jobsched.db.migrate import expected
from jobsched.domain.spec import JobSpec
from jobsched.poller import zones
from jobsched.poller.fire import Fire
from jobsched.poller.zones import ZoneRules
from tests.integration.factories import make_job
from tests.zone_files import hours, write_version, write_zone, zones_of

ZONE = "Europe/Berlin"
SOON = timedelta(days=10)


@pytest.fixture
def now():
    return datetime.now(UTC).replace(second=0, microsecond=0)


@pytest.fixture
def trees(now, tmp_path):
    """Zone files before and after: at +2 hours for ever, and at +1 from tomorrow on."""
    before, after = tmp_path / "before", tmp_path / "after"
    write_zone(before, ZONE, 2)
    write_version(before, "2026a")
    write_zone(after, ZONE, 2, [(now + hours(24), 1)])
    write_version(after, "2026b")
    return before, after


@pytest.fixture
def jobs(database_url):
    pool = open_pool(database_url, "test", 2)
    yield Jobs(pool)
    pool.close_all()


def start(database_url, rounds=10_000, wake=lambda: None):
    """What a poller does at its start, to the end or for some rounds."""
    link = Link(database_url, "test-zones")
    rules = ZoneRules(link, wake)
    for _ in range(rounds):
        if rules.run_once() > 60:
            break
    link.close()
    return rules


def create(jobs, schedule, timezone=ZONE, **fields):
    known = {"api": "http://127.0.0.1:1/", "is_recurring": True}
    return jobs.create(1, JobSpec(schedule=schedule, timezone=timezone, **(known | fields))).job


def wall(instant, offset=2):
    """Minute, hour, day and month on a clock, as the fields of a cron expression."""
    shown = instant + hours(offset)
    return f"{shown.minute} {shown.hour} {shown.day} {shown.month} *"


def times(link):
    return dict(link.execute("SELECT job_id, next_slot FROM job_schedule ORDER BY job_id"))


def applied(link):
    return link.execute("SELECT zone_rules FROM instance")[0][0]


def test_new_rules_move_what_the_wall_clock_decides_and_nothing_else(
    now, link, jobs, database_url, trees, capsys
):
    log.configure(json=True)
    before, after = trees
    day = (now + SOON + hours(2)).day
    with zones_of(before):
        start(database_url)
        monthly = create(jobs, f"0 9 {day} * *").id
        once = create(jobs, f"@at {now + SOON + hours(2):%Y-%m-%dT%H:%M:%S}", is_recurring=False).id
        jittered = create(jobs, wall(now + SOON), jitter_seconds=60.0).id
        create(jobs, "@every 7h")
        create(jobs, f"0 9 {day} * *", "UTC")
        create(jobs, wall(now + hours(12)))
        paused = create(jobs, wall(now + SOON))
        jobs.pause(1, paused.id)
    known = times(link)
    due = link.execute("SELECT next_execution_time FROM job_schedule WHERE job_id = %s", (jittered,))
    assert applied(link) == "2026a"
    woken = []
    with zones_of(after):
        start(database_url, wake=lambda: woken.append(True))
    assert times(link) == known | {each: known[each] + hours(1) for each in (monthly, once, jittered)}
    [(slot, moved)] = link.execute(
        "SELECT next_slot, next_execution_time FROM job_schedule WHERE job_id = %s", (jittered,)
    )
    assert timedelta() < moved - slot < timedelta(minutes=1)
    assert moved != due[0][0]
    assert (applied(link), woken) == ("2026b", [True])
    said = capsys.readouterr().err
    assert f'"moved": 3, "job_ids": [{monthly}, {once}, {jittered}]' in said
    with zones_of(after):
        start(database_url)
    assert times(link) == known | {each: known[each] + hours(1) for each in (monthly, once, jittered)}
    with zones_of(after):
        jobs.resume(1, paused.id)
    assert times(link)[paused.id] == now + SOON + hours(1)


def test_older_and_unknown_rules_change_nothing(now, link, jobs, database_url, trees, capsys):
    log.configure(json=True)
    before, after = trees
    with zones_of(after):
        create(jobs, wall(now + SOON))
        start(database_url)
    known = times(link)
    with zones_of(before):
        start(database_url)
    assert "zone_rules_older" in capsys.readouterr().err
    (before / "tzdata.zi").unlink()
    with zones_of(before):
        start(database_url)
    assert (times(link), applied(link)) == (known, "2026b")


def test_a_slot_that_an_old_process_has_stored_since_is_put_right_by_the_next_start(
    now, link, jobs, database_url, trees
):
    before, after = trees
    with zones_of(after):
        start(database_url)
    with zones_of(before):
        job = create(jobs, wall(now + SOON))
    with zones_of(after):
        start(database_url)
    assert times(link) == {job.id: now + SOON + hours(1)}


def test_a_slot_that_fired_is_not_fired_again_at_its_time_by_the_new_rules(
    now, link, database_url, broker, tmp_path
):
    """The zone has left +2 a week ago, but the rules come only now: 9:00 is an hour later than it was run."""
    write_zone(tmp_path / "before", ZONE, 2)
    write_zone(tmp_path / "after", ZONE, 2, [(now - timedelta(days=7), 1)])
    write_version(tmp_path / "after", "2026b")
    shown = now + hours(2)
    with zones_of(tmp_path / "before"):
        job = make_job(
            link,
            schedule=f"{shown.minute} {shown.hour} * * *",
            timezone=ZONE,
            due=f"'{now.isoformat()}'",
            updated_at=now - timedelta(days=9),
        )
        assert Fire(link, broker, 100).run_once().executions == 1
    assert times(link) == {job: now + hours(24)}
    with zones_of(tmp_path / "after"):
        start(database_url)
    assert times(link) == {job: now + hours(25)}
    assert link.execute("SELECT last_slot, runs FROM job_schedule") == [(now, 1)]


@pytest.mark.parametrize(("policy", "fired", "skipped"), [("fire_once", 1, 0), ("skip", 0, 1)])
def test_a_slot_that_has_moved_into_the_past_follows_the_misfire_policy(
    now, link, jobs, database_url, broker, tmp_path, policy, fired, skipped
):
    write_zone(tmp_path / "before", ZONE, 2)
    write_zone(tmp_path / "after", ZONE, 2, [(now - hours(12), 3)])
    write_version(tmp_path / "after", "2026b")
    with zones_of(tmp_path / "before"):
        job = create(jobs, wall(now + hours(0.5)), misfire_policy=policy)
    link.execute("UPDATE job SET updated_at = updated_at - interval '9 days'")
    link.execute("UPDATE job_schedule SET anchor = anchor - interval '9 days'")
    with zones_of(tmp_path / "after"):
        start(database_url)
        assert times(link) == {job.id: now - hours(0.5)}
        done = Fire(link, broker, 100).run_once()
    assert (done.executions, done.skipped) == (fired, skipped)
    assert times(link)[job.id] > now + timedelta(days=300)


def test_what_is_due_already_stays_as_it_is(link, database_url, trees):
    job = make_job(link, schedule="0 9 * * *", timezone=ZONE, due="clock_timestamp() - interval '1 minute'")
    known = times(link)
    with zones_of(trees[1]):
        start(database_url)
    assert times(link) == known
    assert job in known


def test_a_start_that_was_killed_in_the_middle_is_made_up_for_by_the_next(
    now, link, jobs, database_url, trees, monkeypatch
):
    monkeypatch.setattr(zones, "BATCH", 2)
    before, after = trees
    with zones_of(before):
        made = [create(jobs, wall(now + SOON)).id for _ in range(5)]
    with zones_of(after):
        start(database_url, rounds=2)
        assert (len(set(times(link).values())), applied(link)) == (2, None)
        start(database_url)
    assert (times(link), applied(link)) == (dict.fromkeys(made, now + SOON + hours(1)), "2026b")


def test_jobs_that_share_a_right_slot_are_not_read_one_by_one(
    now, link, jobs, database_url, trees, monkeypatch
):
    class Counting(Link):
        transactions = 0

        def transaction(self):
            self.transactions += 1
            return super().transaction()

    monkeypatch.setattr(zones, "PAGE", 4)
    before, after = trees
    with zones_of(before):
        stay = [create(jobs, wall(now + hours(12))).id for _ in range(3)]
        move = [create(jobs, wall(now + SOON)).id for _ in range(3)]
        own = Counting(database_url, "test-zones")
        rules = ZoneRules(own)
        while rules.run_once() < 60:
            pass
    assert own.transactions == 0
    with zones_of(after):
        start(database_url)
    assert times(link) == dict.fromkeys(stay, now + hours(12)) | dict.fromkeys(move, now + SOON + hours(1))


def test_a_row_that_somebody_holds_comes_later_and_one_that_an_edit_has_changed_is_left(
    now, link, jobs, database_url, trees
):
    before, after = trees
    with zones_of(before):
        made = [create(jobs, wall(now + SOON)).id for _ in range(3)]
    own = Link(database_url, "test-zones")
    with zones_of(after):
        rules = ZoneRules(own)
        with link.transaction() as cursor:
            cursor.execute("SELECT FROM job_schedule WHERE job_id = %s FOR UPDATE", (made[1],))
            rules.run_once()
            rules.run_once()
            cursor.execute("UPDATE job_schedule SET next_slot = NULL, next_execution_time = NULL "
                           "WHERE job_id = %s", (made[1],))  # fmt: skip
            assert applied(own) is None
        while rules.run_once() < 60:
            pass
    moved = now + SOON + hours(1)
    assert (times(link), applied(link)) == ({made[0]: moved, made[1]: None, made[2]: moved}, "2026b")
    own.close()


def test_one_poller_computes_at_a_time(now, link, jobs, database_url, trees):
    before, after = trees
    with zones_of(before):
        job = create(jobs, wall(now + SOON))
    own = Link(database_url, "test-zones")
    with zones_of(after):
        assert zoned.claim_turn(link, zones._LOCK)
        rules = ZoneRules(own)
        assert rules.run_once() > 1
        assert times(link) == {job.id: now + SOON}
        link.execute("SELECT pg_advisory_unlock(%s)", (zones._LOCK,))
        while rules.run_once() < 60:
            pass
    assert times(link) == {job.id: now + SOON + hours(1)}
    own.close()


@pytest.mark.parametrize(
    "damage", ["anchor = 'infinity'", "last_slot = '0044-03-15 BC'", "next_slot = 'infinity'"]
)
def test_a_damaged_row_holds_up_no_other(now, link, jobs, database_url, trees, damage):
    before, after = trees
    with zones_of(before):
        made = [create(jobs, wall(now + SOON)).id for _ in range(5)]
        unreadable = create(jobs, wall(now + SOON)).id
    link.execute(f"UPDATE job_schedule SET {damage} WHERE job_id = %s", (made[2],))
    link.execute("UPDATE job SET schedule = 'x' WHERE id = %s", (unreadable,))
    with zones_of(after):
        start(database_url)
    moved = link.execute(
        "SELECT job_id FROM job_schedule WHERE next_slot = %s ORDER BY 1", (now + SOON + hours(1),)
    )
    assert [each for (each,) in moved] == [made[0], made[1], made[3], made[4]]
    assert applied(link) == "2026b"


def test_the_column_is_new_and_says_at_first_that_nothing_is_known(fresh_database_url):
    with closing(Link(fresh_database_url, "test")) as link:
        assert (expected()[-1], applied(link)) == ("0007_spans", None)

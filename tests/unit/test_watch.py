import uuid

from jobsched.db.recovery import PastDeadline
from jobsched.db.workers import Pulse
from jobsched.poller.watch import DEAD_AFTER, Overdue, Watch

ONE = uuid.uuid4()


def pulse(beat):
    return Pulse(ONE, "worker", "w", beat)


def look(watch, times, beat=7):
    return [bool(watch.look([pulse(beat)], now)) for now in times]


def test_a_process_is_dead_after_twenty_seconds_of_silence_seen_without_a_gap():
    assert look(Watch(), range(0, 23, 2)) == [False] * 10 + [True] * 2


def test_a_beat_starts_the_watch_again():
    watch = Watch()
    look(watch, range(0, 19, 2))
    assert look(watch, range(20, 39, 2), beat=8) == [False] * 10
    assert look(watch, [40], beat=8) == [True]


def test_a_gap_in_the_reads_starts_every_watch_again():
    watch = Watch()
    look(watch, range(0, 19, 2))
    assert look(watch, [60.0]) == [False], "the watcher itself was away for 42 s"
    assert look(watch, [62.0, 64.0]) == [False, False]


def test_a_failed_read_starts_every_watch_again():
    watch = Watch()
    look(watch, range(0, 19, 2))
    watch.interrupted()
    assert look(watch, [DEAD_AFTER, DEAD_AFTER + 2]) == [False, False]


def test_what_is_past_its_deadline_is_watched_for_as_long_again():
    overdue = Overdue()
    late = [PastDeadline(1, 1, 150.0), PastDeadline(2, 1, 30.0)]
    assert overdue.look(late, 1000.0) == [], "a clock that was set forward makes all of them late at once"
    assert overdue.look(late, 1029.9) == []
    assert overdue.look(late, 1030.0) == [2]
    assert overdue.look(late, 1150.0) == [1, 2]


def test_another_attempt_or_a_deadline_that_was_kept_after_all_starts_the_watch_again():
    overdue = Overdue()
    assert overdue.look([PastDeadline(1, 1, 30.0)], 0.0) == []
    assert overdue.look([], 20.0) == []
    assert overdue.look([PastDeadline(1, 1, 30.0)], 40.0) == []
    assert overdue.look([PastDeadline(1, 2, 30.0)], 75.0) == []

import uuid

from jobsched.db.workers import Pulse
from jobsched.poller.watch import DEAD_AFTER, Watch

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

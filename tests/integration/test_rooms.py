"""The high-water mark: what is queued is counted when it matters, and only then."""

from collections import Counter

from jobsched.db import firing
from jobsched.poller import rooms as module
from jobsched.poller.fire import Fire
from jobsched.poller.rooms import Rooms
from tests.integration.factories import make_execution, make_job


def looks(monkeypatch):
    """The queues of each count."""
    counted, count = [], firing.rooms

    def rooms(cursor, queues, high_water):
        counted.append(list(queues))
        return count(cursor, queues, high_water)

    monkeypatch.setattr(firing, "rooms", rooms)
    return counted


def look(link, rooms, *queues):
    """What a look shows, taking nothing."""
    return take(link, rooms, dict.fromkeys(queues, 0))


def take(link, rooms, counts, promised=None):
    promised = Counter() if promised is None else promised
    with link.transaction() as cursor, rooms.look(cursor, counts, promised) as found:
        seen = dict(found)
        for queue, count in counts.items():
            found[queue] -= count
    return seen


def test_each_queue_has_room_for_what_is_missing_to_the_mark(link):
    job = make_job(link, due=None)
    for queue, count in (("a", 3), ("b.high", 1)):
        for _ in range(count):
            make_execution(link, job, queue=f"'{queue}'")
    make_execution(link, job, "pending", queue="'a'")
    with link.transaction() as cursor:
        assert firing.rooms(cursor, ["a", "b.high", "c"], 3) == {"a": 0, "b.high": 2, "c": 3}


def test_a_count_is_carried_forward_while_half_of_the_mark_is_left_and_it_is_fresh(link, monkeypatch):
    counted, now = looks(monkeypatch), [0.0]
    monkeypatch.setattr(module.clock, "monotonic", lambda: now[0])
    rooms = Rooms(10_000)
    assert look(link, rooms, "a", "b") == {"a": 10_000, "b": 10_000}
    promised = Counter()
    take(link, rooms, {"a": 5000, "b": 5001}, promised)
    assert promised == {"a": 5000, "b": 5001}
    rooms.settle(promised)
    assert look(link, rooms, "a", "b") == {"a": 5000, "b": 10_000}
    assert counted == [["a", "b"], ["b"]]
    now[0] = 0.049
    assert look(link, rooms, "a") == {"a": 5000}
    now[0] = 0.051
    assert look(link, rooms, "a") == {"a": 10_000}
    assert counted[2:] == [["a"]]


def test_what_an_open_transaction_is_about_to_queue_takes_room_before_it_can_be_counted(link):
    rooms, promised = Rooms(100), Counter()
    take(link, rooms, {"a": 70}, promised)
    assert look(link, rooms, "a") == {"a": 30}  # counted anew, and found empty
    assert look(link, rooms, "a") == {"a": 30}
    rooms.settle(promised)
    assert look(link, rooms, "a") == {"a": 100}


def test_a_mark_is_never_passed_by_what_one_poller_fires(link, broker):
    for _ in range(50):
        make_job(link)
    fire = Fire(link, broker, 20)
    while fire.run_once(batch=7).more:
        pass
    assert link.execute("SELECT state, count(*) FROM execution GROUP BY 1 ORDER BY 1") == [
        ("pending", 30), ("queued", 20)
    ]  # fmt: skip

"""How the transport behaves as a loop: many calls, aborts, wake-ups, connections, and what it never repeats."""

import gc
import os
import resource
import select
import socket
import threading

import pytest

from jobsched.callback import Resolver
from jobsched.callback.loop import EpollWatch, PortableWatch
from jobsched.clock import monotonic, utc_now
from jobsched.domain.outcome import Ending, Policy, judge
from tests.integration.transports import call, drain, open_transport, run, send

pytestmark = pytest.mark.usefixtures("both_carriers")


def test_many_calls_at_once_each_get_their_own_answer(transport, target):
    calls = [call(f"{target.url}/echo/{n}", body=b"%d" % n) for n in range(300)]
    results = run(transport, calls)
    assert [result.status for result in results] == [200] * 300
    assert all(f'"/echo/{n}"'.encode() in result.body for n, result in enumerate(results))
    assert sorted(arrival.body for arrival in target.arrivals) == sorted(each.body for each in calls)
    assert transport.in_flight == 0


def test_slow_calls_run_side_by_side(transport, target):
    begin = monotonic()
    calls = [call(target.url + "/slow/300") for _ in range(100)]
    assert {result.status for result in run(transport, calls)} == {200}
    assert monotonic() - begin < 2


def test_hanging_calls_do_not_slow_down_the_others(transport, target):
    hanging = [call(target.url + "/hang", timeout_seconds=60) for _ in range(200)]
    for each in hanging:
        transport.start(each)
    begin = monotonic()
    fast = [call(target.url + "/ok") for _ in range(300)]
    assert {result.status for result in run(transport, fast)} == {200}
    assert monotonic() - begin < 5
    assert transport.in_flight == 200


def test_waiting_costs_no_cpu(transport, target):
    transport.start(call(target.url + "/hang", timeout_seconds=60))
    transport.turn(0.2)
    transport.turn(0.2)
    before = resource.getrusage(resource.RUSAGE_THREAD)
    turns = 0
    end = monotonic() + 1
    while monotonic() < end:
        assert transport.turn(0.5) == []
        turns += 1
    after = resource.getrusage(resource.RUSAGE_THREAD)
    assert turns < 20
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.2


def test_an_abort_ends_the_call_in_the_next_turn_with_the_reason_given(transport, target):
    hanging, other = call(target.url + "/hang"), call(target.url + "/slow/300")
    transport.start(hanging)
    transport.start(other)
    transport.turn(0.05)
    target.wait_for(2)
    assert transport.abort(hanging.execution_id, "cancelled", "Cancelled by a user.")
    begin = monotonic()
    (result,) = transport.turn(5.0)
    assert monotonic() - begin < 0.2
    assert (result.call, result.status, result.sent) == (hanging, None, True)
    assert (result.error_code, result.error_message) == ("cancelled", "Cancelled by a user.")
    assert not transport.abort(hanging.execution_id, "cancelled", "Twice.")
    assert [result.status for result in drain(transport, 1)] == [200]


def test_a_call_aborted_before_its_connection_has_sent_nothing(transport, target):
    early = call(target.url + "/ok")
    transport.start(early)
    assert transport.abort(early.execution_id, "interrupted", "The worker stops.")
    (result,) = transport.turn(0)
    assert (result.error_code, result.sent) == ("interrupted", False)
    transport.turn(0.1)
    assert target.count == 0


def test_one_execution_has_one_call_in_flight(transport, target):
    first = call(target.url + "/hang")
    transport.start(first)
    with pytest.raises(ValueError, match="already in flight"):
        transport.start(first)
    transport.abort(first.execution_id, "cancelled", "Enough.")
    transport.turn(0)
    assert transport.in_flight == 0


def test_a_wake_from_another_thread_ends_the_wait(transport):
    for _ in range(3):
        threading.Timer(0.1, transport.wake).start()
        begin = monotonic()
        assert transport.turn(5.0) == []
        assert 0.05 < monotonic() - begin < 2


def test_a_wake_before_the_wait_is_not_lost_and_counts_once(transport):
    for _ in range(100_000):
        transport.wake()
    begin = monotonic()
    transport.turn(5.0)
    assert monotonic() - begin < 2
    transport.turn(0.2)
    assert 0.2 <= monotonic() - begin < 4


def test_a_wake_after_close_does_nothing(target):
    transport = open_transport()
    transport.close()
    transport.wake()


def test_a_post_is_sent_once_when_the_target_closes_kept_connections(transport, target):
    """Without care libcurl repeats it by itself, up to six times inside one attempt."""
    for _ in range(20):
        assert send(transport, target.url + "/last-answer").status == 200
        made = target.connections_made
        result = send(transport, target.url + "/ok", body=b'{"n":1}')
        assert target.connections_made == made, "the connection was to be used again"
        assert (result.error_code, result.sent) == ("protocol_error", True)
    assert target.count == 40


@pytest.mark.parametrize(
    ("method", "body", "given"),
    [
        ("POST", b"{}", {"fresh_connection": True}),
        ("GET", None, {}),
        ("HEAD", None, {}),
        ("DELETE", None, {}),
        ("POST", None, {}),
        ("POST", b"", {}),
    ],
)
def test_what_libcurl_would_repeat_gets_a_connection_of_its_own(transport, target, method, body, given):
    kept = [call(target.url + "/last-answer") for _ in range(5)]
    assert {result.status for result in run(transport, kept)} == {200}
    for n in range(1, 11):
        assert send(transport, target.url + "/ok", method, body, **given).status == 200
        assert target.count == len(kept) + n


def test_connections_are_kept_between_calls_but_not_when_idle_for_long(transport, target):
    made = target.connections_made
    for _ in range(10):
        assert send(transport, target.url + "/ok").status == 200
    assert target.connections_made == made + 1
    end = monotonic() + 2.2
    while monotonic() < end:
        transport.turn(0.5)
    assert send(transport, target.url + "/ok").status == 200
    assert target.connections_made == made + 2


def test_a_call_whose_name_hangs_ends_in_time_and_its_late_answer_is_ignored(target):
    release = threading.Event()

    def lookup(host, port, **kinds):
        release.wait(5)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    resolver = Resolver(threads=1, lookup=lookup)
    transport = open_transport(resolver=resolver)
    slow = call(f"http://slow.example:{target.port}/ok", timeout_seconds=0.3)
    (result,) = run(transport, [slow])
    assert (result.error_code, result.sent) == ("timeout", False)
    assert 300 <= result.phases.total_ms < 800
    assert result.phases.dns_ms == pytest.approx(result.phases.total_ms, abs=50)
    # The same handle carries another call when the answer for the first one comes.
    transport.start(call(target.url + "/slow/200"))
    release.set()
    assert [result.call.url for result in drain(transport, 1)] == [target.url + "/slow/200"]
    transport.turn(0.1)
    assert [arrival.path for arrival in target.arrivals] == ["/slow/200"]
    transport.close()
    resolver.close()


def test_the_time_of_the_lookup_is_part_of_the_timeout(target):
    def lookup(host, port, **kinds):
        threading.Event().wait(0.4)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    transport = open_transport(resolver=Resolver(threads=1, lookup=lookup))
    result = send(transport, f"http://slow.example:{target.port}/hang", timeout_seconds=0.7)
    assert (result.error_code, result.sent) == ("timeout", True)
    assert 700 <= result.phases.total_ms < 1050
    assert 400 <= result.phases.dns_ms < 700
    transport.close()


def test_a_call_waiting_for_its_name_can_be_aborted(target):
    release = threading.Event()
    resolver = Resolver(threads=1, lookup=lambda *_, **__: release.wait(5) and [])
    transport = open_transport(resolver=resolver)
    waiting = call("http://slow.example/")
    transport.start(waiting)
    transport.turn(0.05)
    assert transport.abort(waiting.execution_id, "cancelled", "Enough.")
    assert [(each.error_code, each.sent) for each in transport.turn(0)] == [("cancelled", False)]
    release.set()
    transport.close()
    resolver.close()


def test_thousands_of_results_leave_no_memory_and_no_descriptors_behind(transport, target):
    for _ in range(3):
        run(transport, [call(target.url + "/ok", fresh_connection=True) for _ in range(50)])
    gc.collect()
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        run(transport, [call(target.url + "/ok", fresh_connection=True) for _ in range(50)])
    # The target's side of these connections lives in this process too.
    assert len(os.listdir("/proc/self/fd")) <= open_before + 250


@pytest.mark.parametrize("watch", [EpollWatch, PortableWatch])
def test_every_watch_serves_the_loop(target, monkeypatch, watch):
    monkeypatch.setattr("jobsched.callback.transport.best_watch", watch)
    transport = open_transport()
    calls = [call(f"{target.url}/slow/50", fresh_connection=n % 2 == 0) for n in range(100)]
    assert {result.status for result in run(transport, calls)} == {200}
    assert send(transport, "http://127.0.0.1:1/").error_code == "connect_failed"
    transport.close()


def test_a_worker_without_descriptors_says_so_and_goes_on(transport, target):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        result = send(transport, target.url + "/ok")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (result.error_code, result.sent, result.unfit) == ("interrupted", False, True)
    assert "no file descriptors" in result.error_message
    assert send(transport, target.url + "/ok").status == 200


def test_a_worker_without_descriptors_for_the_next_hop_ends_as_one_that_has_called(transport):
    """The first hop is called again with each attempt, so it must not come back at once and without end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        transport.start(call(url, follow_redirects=True))
        while not select.select([server], [], [], 0)[0]:
            assert transport.turn(0.1) == []
        connection, _ = server.accept()
        with connection:
            while not select.select([connection], [], [], 0)[0]:
                assert transport.turn(0.1) == []
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
            )
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                [result] = drain(transport, 1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (result.error_code, result.sent, result.unfit) == ("connect_failed", True, True)
    assert "no file descriptors" in result.error_message
    ending = Ending(error_code=result.error_code, sent=result.sent)
    again = judge(ending, Policy(), 0, utc_now(), 0.5)
    assert (again.state, again.spends, again.delay_seconds > 0) == ("retrying", True, True)
    once = judge(ending, Policy(at_most_once=True), 0, utc_now(), 0.5)
    assert (once.state, once.error_code) == ("failed", "connect_failed")


def test_a_wake_up_heard_just_before_the_wait_ends_that_wait_too(transport, target):
    # With something to send, the sockets are looked at once before the wait; that look silenced the wake-up.
    send(transport, f"{target.url}/ok")
    transport.start(call(f"{target.url}/slow/1500"))
    transport.wake()
    began = monotonic()
    assert transport.turn(5.0) == []
    assert monotonic() - began < 1.0
    assert [result.status for result in drain(transport, 1)] == [200]

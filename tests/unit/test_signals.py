"""Signals act on a whole process, so most of these run one of their own."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from jobsched.runtime.signals import StopSignal
from tests.conftest import eventually

PROGRAM = """
    import os, signal, sys, time
    from jobsched.runtime.signals import StopSignal
    stop = StopSignal(lambda: print("forced", flush=True))
    stop.install((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    print("ready", flush=True)
"""


def started(body: str, *prefix: str) -> "subprocess.Popen[str]":
    program = textwrap.dedent(PROGRAM) + textwrap.dedent(body)
    process = subprocess.Popen([*prefix, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    # Not communicate(): it reads past what readline() has already taken into the buffer.
    assert process.stdout is not None
    with process.stdout as stdout:
        output = stdout.read()
    return process.wait(10), output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_sets_the_event(number: signal.Signals) -> None:
    process = started("stop.event.wait(10); print('stopping', stop.requested, flush=True)")
    process.send_signal(number)
    assert ended(process) == (0, "stopping True\n")


def test_signals_less_than_a_second_apart_count_as_one() -> None:
    process = started("""
        stop.event.wait(10)
        print("first", flush=True)
        time.sleep(0.3)
        print("done", flush=True)
    """)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, "done\n")


def test_a_second_signal_later_ends_the_process_at_once_with_130() -> None:
    process = started("""
        stop.event.wait(10)
        time.sleep(1.1)
        print("slow", flush=True)
        while True:
            time.sleep(10)
    """)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "slow\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (130, "forced\n")


def test_signals_that_pour_in_while_the_main_thread_waits_on_the_event_never_hang_it() -> None:
    process = started("""
        while not stop.requested:
            stop.event.wait(0.0001)
        print("stopping", flush=True)
        os._exit(0)  # an interpreter that winds down gives the signals back, and the flood goes on
    """)
    for _ in range(50):
        process.send_signal(signal.SIGINT)
        if process.poll() is not None:
            break
    assert ended(process) == (0, "stopping\n")


def test_an_ignored_hangup_stays_ignored() -> None:
    process = started("stop.event.wait(10); print('stopping', flush=True)", "nohup")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "stopping\n")


def test_other_signals_do_not_stop() -> None:
    process = started("""
        signal.signal(signal.SIGUSR1, lambda *_: print("seen", flush=True))
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        print(stop.requested, flush=True)
    """)
    assert ended(process) == (0, "seen\nFalse\n")


def test_uninstalling_gives_the_signals_back_and_ends_the_watching_thread() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    descriptors = len(os.listdir("/dev/fd"))
    stop = StopSignal()
    stop.install()
    stop.uninstall()
    assert {number: signal.getsignal(number) for number in before} == before

    def gone() -> None:
        assert [thread.name for thread in threading.enumerate() if thread.name == "signals"] == []
        assert len(os.listdir("/dev/fd")) == descriptors

    eventually(gone)


def test_a_request_from_inside_is_a_first_signal() -> None:
    stop = StopSignal()
    assert not stop.requested
    stop.request()
    assert stop.requested
    assert stop.event.is_set()

import contextlib
import json
import logging
import os
import socket
import sys
import threading

import pytest
import structlog

from jobsched import log

early = log.get_logger(part="made at import")


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_logger_made_at_import_follows_the_configuration_in_every_thread(capsys):
    log.configure(json=True, level="info", process="worker")
    thread = threading.Thread(target=lambda: (early.debug("quiet"), early.info("loud")))
    thread.start()
    thread.join()
    [line] = lines(capsys)
    assert (line["event"], line["process"], line["level"], line["part"]) == (
        "loud",
        "worker",
        "info",
        "made at import",
    )


def test_secrets_never_reach_a_line(capsys):
    log.configure(json=True, level="info")
    early.info(
        "asked",
        api_key="jsk_1",
        authorization="x",
        url="postgres://me:hunter2@db/x",
        error="sent Bearer jsk_2 in vain",
    )
    text = json.dumps(lines(capsys))
    assert not [secret for secret in ("jsk_1", "hunter2", "jsk_2") if secret in text]
    assert "postgres://me:***@db/x" in text


def test_what_is_filtered_can_be_asked_for_before_it_is_made():
    log.configure(json=True, level="info")
    assert (log.enabled("debug"), log.enabled("info")) == (False, True)
    log.configure(json=True, level="debug")
    assert log.enabled("debug")
    log.configure(json=True, level="warning")
    assert not log.enabled("info")


@pytest.mark.parametrize("broken", ["full disk", "reader gone", "closed", "none"])
def test_a_log_that_cannot_be_written_breaks_nobody_and_is_told_once_it_can_be(broken, monkeypatch, capsys):
    log.configure(json=True, level="info", process="worker")
    stream = {
        "full disk": lambda: os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"),
        "none": lambda: None,
    }.get(broken)
    if stream is not None:
        bad = stream()
    else:
        reader, writer = os.pipe()
        bad = os.fdopen(writer, "w")
        os.close(reader)
        if broken == "closed":
            bad.close()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", bad)
        early.info("one")
        early.error("two")
        logging.getLogger("redis").warning("three")
    if bad is not None:
        bad.close()  # nothing is left in it to be written
    early.info("four")
    told, four = lines(capsys)
    assert (told["event"], told["lines"], told["level"], told["process"]) == (
        "log_lines_lost",
        3,
        "warning",
        "worker",
    )
    assert four["event"] == "four"
    early.info("five")
    assert [line["event"] for line in lines(capsys)] == ["five"]


def test_text_that_is_no_utf_8_is_written_all_the_same(capfd):
    log.configure(json=False, level="info")
    early.info("said", text="\ud800")
    logging.getLogger("redis").warning("\udcff")
    assert "\\udcff" in capfd.readouterr().err


def in_time(act):
    """Whether ``act`` comes back within two seconds, on a thread of its own."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(2.0)
    return not thread.is_alive()


def drained(descriptor):
    """All that stands there to be read."""
    os.set_blocking(descriptor, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            data += os.read(descriptor, 65536)
    return data.decode()


@pytest.fixture(params=["pipe", "socket"])
def ends(request):
    """A pipe or a socket: the end that reads, and a stream to write to."""
    if request.param == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    stream = os.fdopen(writer, "w")
    yield reader, stream
    assert os.get_blocking(writer), "other processes write there too"
    os.close(reader)
    stream.close()


def test_a_reader_that_stalls_stops_no_thread_and_what_was_lost_is_told(ends, monkeypatch):
    stalled, stream = ends
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(json=True, level="info")

    def talk():
        for number in range(400):
            early.info("said", number=number, text="x" * 1000)

    second = threading.Thread(target=talk, daemon=True)
    second.start()
    assert in_time(talk)
    second.join(2.0)
    assert not second.is_alive()
    text = drained(stalled)
    early.info("again")
    text += drained(stalled)
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
    counted = [one["event"] for one in events]
    told = sum(one["lines"] for one in events if one["event"] == "log_lines_lost")
    assert counted.count("said") + told == 800
    assert counted[-2:] == ["log_lines_lost", "again"]


def test_half_a_line_is_not_glued_to_the_next(ends, monkeypatch):
    stalled, stream = ends
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(json=True, level="info")
    assert in_time(lambda: early.info("huge", text="y" * 1_000_000))
    assert drained(stalled)
    early.info("whole")
    _end_of_torn, told, whole = drained(stalled).splitlines()
    assert (json.loads(told)["lines"], json.loads(whole)["event"]) == (1, "whole")


def test_a_long_word_is_masked_in_no_time():
    word = "y" * 1_000_000
    assert in_time(lambda: log.mask_text(word))
    assert log.mask_text(f"{word}://me:hunter2@db/x") == f"{word}://me:***@db/x"

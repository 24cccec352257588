import json

import pytest

from jobsched import clock, log
from jobsched.runtime.outage import Outage


@pytest.fixture
def now(monkeypatch):
    """A monotonic clock in a list, to be moved on."""
    time = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def said(capsys):
    log.configure(json=True)

    def lines():
        found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        return [{name: value for name, value in line.items() if name != "timestamp"} for line in found]

    return lines


def test_the_first_failure_is_told_at_once_and_then_one_line_in_ten_seconds(now, said):
    outage = Outage("beat_failed")
    outage.failed(error="away")
    assert said() == [{"event": "beat_failed", "level": "warning", "error": "away"}]
    for _ in range(99):
        now[0] += 0.1
        outage.failed(error="away")
    assert said() == []
    now[0] += 0.2
    outage.failed(error="still away")
    assert said() == [
        {
            "event": "beat_failed",
            "level": "warning",
            "error": "still away",
            "failures": 101,
            "for_seconds": 10.1,
        }
    ]


def test_the_end_is_told_once_with_how_long_it_lasted(now, said):
    outage = Outage("beat_failed")
    outage.over()
    outage.failed()
    now[0] += 3
    outage.failed()
    now[0] += 1
    said()
    assert outage.lasting
    outage.over()
    outage.over()
    assert said() == [
        {"event": "outage_over", "level": "warning", "of": "beat_failed", "seconds": 4.0, "failures": 2}
    ]
    assert not outage.lasting
    outage.failed()
    assert [line["event"] for line in said()] == ["beat_failed"], "the next one is another"


def test_parts_that_fail_for_one_reason_share_its_lines_and_its_end(now, said):
    outage = Outage("service_failed", level="error")
    outage.failed("dispatch", service="dispatch")
    outage.failed("heartbeat", service="heartbeat")
    now[0] += 10
    outage.failed("dispatch", service="dispatch")
    assert [(line["service"], line.get("failing"), line["level"]) for line in said()] == [
        ("dispatch", None, "error"),
        ("dispatch", ["dispatch", "heartbeat"], "error"),
    ]
    outage.over("dispatch")
    assert said() == []
    outage.over("heartbeat")
    assert [line["event"] for line in said()] == ["outage_over"]


def test_what_succeeds_by_turns_is_over_only_after_a_while_without_a_failure(now, said):
    outage = Outage("unavailable", settle=5.0)
    outage.failed()
    for _ in range(20):
        now[0] += 0.1
        outage.over()
        outage.failed()
    now[0] += 4.9
    outage.over()
    assert [line["event"] for line in said()] == ["unavailable"]
    now[0] += 0.2
    outage.over()
    assert [(line["event"], line["failures"]) for line in said()] == [("outage_over", 21)]

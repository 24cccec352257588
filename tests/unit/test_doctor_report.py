"""How the doctor's lines look."""

import json

from jobsched.doctor.finding import Check, Finding, fail, info, warn
from jobsched.doctor.report import Report, line

NAMED = Check("one", "a poller runs", lambda: Finding())


def test_lines_are_aligned_and_one_a_check_where_nobody_looks():
    found = [Finding(), info("3."), warn("late."), fail("gone."), Finding("fixed", "late.", "pushed it")]
    assert [line("a poller runs", one, None) for one in found] == [
        "ok    a poller runs",
        "info  a poller runs: 3.",
        "WARN  a poller runs: late.",
        "FAIL  a poller runs: gone.",
        "fixed a poller runs: late. Done: pushed it.",
    ]


def test_long_lines_are_wrapped_in_a_terminal_under_their_beginning():
    wrapped = line("a poller runs", fail("word " * 30), 60).splitlines()
    assert len(wrapped) > 1
    assert all(len(one) <= 60 for one in wrapped)
    assert all(one.startswith("      word") for one in wrapped[1:])


def test_no_password_reaches_a_line(capsys):
    report = Report(as_json=True)
    report.add(NAMED, fail("postgres://me:hunter2@db/x"))
    assert report.end() == 1
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert json.loads(out) == {
        "ok": False,
        "checks": [
            {
                "check": "one",
                "name": "a poller runs",
                "level": "fail",
                "message": "postgres://me:***@db/x",
                "done": None,
            }
        ],
    }


def test_information_is_no_trouble(capsys):
    report = Report(as_json=False)
    report.add(NAMED, info("12."))
    report.add(NAMED, Finding("skipped", "not looked at"))
    report.add(NAMED, Finding("fixed", "late.", "pushed it"))
    assert report.end() == 0
    assert capsys.readouterr().out.count("\n") == 3

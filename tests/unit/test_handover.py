"""How the API's first process turns into the one that watches: with which command, and with what behind it."""

import subprocess
import sys

import pytest

from jobsched.web import handover

#: Hands over once; what it turned into says what it was given, and what others can see of it.
PROGRAM = """
import os, sys
from pathlib import Path
from jobsched.web.handover import Handed, command, hand_over, taken
if (handed := taken()) is None:
    os.environ["BEFORE"] = str(os.getpid())
    print("before")
    hand_over(command(), Handed("::1", 8080, 8, 25.0, "info", True, b"2retnuh"[::-1] * 100_000))
seen = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
hidden = b"2retnuh"[::-1] not in seen
print(os.environ["BEFORE"] == str(os.getpid()), sys.argv[1:], handed[:6], len(handed.settings), hidden)
"""


def test_the_same_process_and_command_with_what_was_handed_over():
    arguments = [sys.executable, "-c", PROGRAM, "api", "--port", "80"]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "before",
        "True ['api', '--port', '80'] ('::1', 8080, 8, 25.0, 'info', True) 700000 True",
    ]


@pytest.mark.parametrize(
    ("whole", "own", "command"),
    [
        (["python", "-m", "jobsched", "api"], ["__main__.py", "api"], ["/bin/python", "-m", "jobsched", "api"]),
        (["python", "-Xdev", "jobsched", "api"], ["jobsched", "api"], ["/bin/python", "-Xdev", "jobsched", "api"]),
        (["python", "theirs.py", "serve"], ["jobsched", "api"], None),
        (["python", "theirs.py"], ["theirs.py"], None),
    ],
)  # fmt: skip
def test_the_command_is_known_where_the_arguments_are_the_programs(monkeypatch, whole, own, command):
    monkeypatch.setattr(sys, "executable", "/bin/python")
    monkeypatch.setattr(sys, "orig_argv", whole)
    monkeypatch.setattr(sys, "argv", own)
    assert handover.command() == command


@pytest.mark.parametrize("last", ["api", "--handed", "--handed=", "--handed=x", "--port=5"])
def test_other_arguments_are_no_handover(monkeypatch, last):
    monkeypatch.setattr(sys, "argv", ["jobsched", last])
    assert handover.taken() is None
    assert sys.argv == ["jobsched", last]

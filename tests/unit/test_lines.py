"""Lines without structlog: the same as with it."""

import json
import logging
import re
import sys

import pytest
import structlog

from jobsched import lines, log

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def said(capsys):
    """What is written of three records, without its times."""
    logger = logging.getLogger("gunicorn.error")
    logger.warning("Listening at: %s", "http://me:hunter2@x")
    logger.critical("Bearer jsk_1 in vain")
    try:
        raise OSError("postgres://me:hunter2@db/x")
    except OSError:
        logger.error("Unhandled exception", exc_info=True)
    logging.getLogger("other").info("routine")
    text, times = TIME.subn("TIME", capsys.readouterr().err)
    assert times == 3
    return text


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_watching_process_writes_as_all_others_do(capsys, form):
    log.configure(json=form == "json", process="api")
    others = said(capsys)
    lines.configure(json=form == "json", process="api")
    assert said(capsys) == others
    assert "Listening at" in others


def test_lines_that_were_lost_are_told_in_the_same_form(capsys, monkeypatch):
    lines.configure(json=True, process="api")
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stderr", None)
        logging.getLogger("gunicorn.error").error("lost")
    logging.getLogger("gunicorn.error").error("again")
    told, again = map(json.loads, capsys.readouterr().err.splitlines())
    assert told | {"timestamp": ""} == {
        "event": "log_lines_lost", "lines": 1, "process": "api", "level": "warning", "timestamp": ""
    }  # fmt: skip
    assert again["event"] == "again"

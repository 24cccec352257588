import json
import logging
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

"""What a process loads: each library takes megabytes from every process that has it, needed or not."""

import subprocess
import sys

import pytest

from jobsched.config import rq_key_prefix
from jobsched.errors import ConfigError

POLLER = "jobsched.wiring, jobsched.poller.process, jobsched.queue.connection"
WORKER = "jobsched.wiring, jobsched.worker.process, jobsched.db.notify"


@pytest.mark.parametrize(
    ("modules", "unneeded"),
    [
        (
            POLLER,
            {
                "rich",
                "pygments",
                "rq",
                "flask",
                "gunicorn",
                "requests",
                "pycurl",
                "click",
                "certifi",
                "sqlite3",
            },
        ),
        (WORKER, {"rich", "pygments", "flask", "gunicorn", "requests", "croniter", "sqlite3"}),
    ],
)
def test_a_process_loads_nothing_that_it_does_not_need(modules, unneeded):
    code = f"import sys, {modules}; print(*sorted({unneeded} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == []


def test_rich_can_be_loaded_after_the_log():
    code = "import jobsched.log, rich.table, structlog; print(structlog.dev.rich)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "None\n"


def test_the_prefix_of_rq_is_what_rq_reads(monkeypatch):
    code = "import rq.defaults, jobsched.queue.rq_keys as k; print(k.PREFIX, k.PREFIX == rq.defaults.RQ_KEY_PREFIX)"
    monkeypatch.setenv("RQ_KEY_PREFIX", "other{1}")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "other{1} True\n"
    monkeypatch.setenv("RQ_KEY_PREFIX", "per%cent")
    with pytest.raises(ConfigError, match="RQ_KEY_PREFIX"):
        rq_key_prefix()
    monkeypatch.delenv("RQ_KEY_PREFIX")
    assert rq_key_prefix() == "rq"

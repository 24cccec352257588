"""What the processes of the API load: each library is megabytes of both, or of one."""

import subprocess
import sys

import pytest


def loaded(modules: str, *libraries: str) -> list[str]:
    """Which of ``libraries`` a fresh interpreter has loaded after ``modules``."""
    program = f"import sys, {modules}\nprint(*[name for name in {libraries!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("process", "modules", "spared"),
    [
        (
            "the one that watches",
            "jobsched.cli, jobsched.web.handover, jobsched.cli.arbiter",
            (
                "jobsched.config",
                "pydantic",
                "structlog",
                "asyncio",
                "click",
                "psycopg",
                "peewee",
                "flask",
                "werkzeug",
                "flask_openapi3",
                "redis",
                "prometheus_client",
                "pycurl",
                "cryptography.hazmat.bindings",
            ),
        ),
        (
            "the one that serves",
            "jobsched.web.app, jobsched.callback.guard, jobsched.queue.broker, jobsched.db.notify",
            ("pycurl", "cryptography.hazmat.bindings", "rq", "requests", "sqlite3"),
        ),
    ],
    ids=["watching", "serving"],
)
def test_a_process_loads_no_library_that_it_does_not_use(
    process: str, modules: str, spared: tuple[str, ...]
) -> None:
    assert loaded(modules, *spared) == [], process

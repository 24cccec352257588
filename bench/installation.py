"""A whole installation at work on a stand: API, poller and one worker, as most parts need it."""

import subprocess
import sys

from jobsched.testing.stand import Stand

_ALIVE = "SELECT count(*) FROM worker_process WHERE state = 'alive'"


def start(stand: Stand, *worker: str, program: str = "jobsched") -> None:
    """Start ``api``, ``poller`` and ``worker``, the last with these options, and wait until all are alive.

    ``program``: the module that runs the worker.
    """
    stand.start_api()
    stand.start("poller", "poller")
    with open(stand.log_path("worker"), "ab") as output:
        stand.processes["worker"] = subprocess.Popen(
            [sys.executable, "-m", program, "worker", *worker],
            env=stand.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    await_alive(stand, 2)


def await_alive(stand: Stand, count: int) -> None:
    """Wait until so many pollers and workers, together, say that they are alive."""
    stand.wait(_ALIVE, count)

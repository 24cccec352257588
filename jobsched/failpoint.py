"""Fail points: places at which a fault test makes this process die or stand still, between two steps that matter.

``JOBSCHED_FAILPOINT=fire.committed:exit:3`` ends the process, as ``kill -9`` would, when it passes that point for
the third time. A kill from outside hits such a gap of microseconds once in a million times; recovery has to be
right every time. Unarmed, a point costs one comparison.
"""

import os
import re
import signal
import threading

from jobsched.errors import ConfigError
from jobsched.log import get_logger

#: Where a process may be ended: ``name`` → what has happened by then.
POINTS = {
    "fire.writing": "slots are written and not yet committed",
    "fire.committed": "slots are committed and not yet pushed",
    "release.committed": "executions are queued and not yet pushed",
    "worker.taken": "ids are taken from Redis and not yet claimed",
    "worker.claimed": "executions are claimed and not yet sent",
    "worker.answered": "targets have answered, and nothing is recorded yet",
    "worker.recorded": "outcomes are committed, and the worker does not know it yet",
}

_SPEC = re.compile(r"(?P<point>[a-z.]+):(?P<action>exit|stop)(:(?P<nth>[1-9][0-9]{0,8}))?")

log = get_logger()


class _Armed:
    """What this process is to do to itself. One for the process: points lie deep in code that knows no settings."""

    def __init__(self) -> None:
        self.point = ""
        self._action = ""
        self._left = 0
        self._lock = threading.Lock()

    def set(self, point: str, action: str, nth: int) -> None:
        self.point, self._action, self._left = point, action, nth

    def pass_by(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        log.warning("failpoint", point=self.point, action=self._action)
        if self._action == "exit":
            os._exit(9)
        # Of this thread, which thus stops here. Sent to the process, the signal may be taken by another thread, and
        # this one be a step further before all of them stand still.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


_armed = _Armed()


def arm(spec: str) -> None:
    """Arm one point: ``POINT:ACTION[:NTH]``, the action ``exit`` or ``stop`` (SIGSTOP). Raises ConfigError."""
    found = _SPEC.fullmatch(spec)
    if found is None or found["point"] not in POINTS:
        raise ConfigError(
            f"JOBSCHED_FAILPOINT: {spec!r} is not POINT:exit[:N] or POINT:stop[:N]; points are {', '.join(POINTS)}."
        )
    _armed.set(found["point"], found["action"], int(found["nth"] or 1))
    log.warning("failpoint_armed", point=found["point"], action=found["action"])


def passing(point: str) -> None:
    """Say that execution has come to ``point``."""
    if _armed.point == point:
        _armed.pass_by()

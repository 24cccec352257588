"""The process that watches over the API's serving one, once the settings were read: see jobsched/web/handover.py.

It loads gunicorn and next to nothing of ours; the serving process loads the rest after the fork.
"""

from typing import Any

from jobsched import lines
from jobsched.web.handover import Handed
from jobsched.web.server import serve


def watch(handed: Handed) -> int:
    """Serve until a stop is asked for. Returns the exit code."""
    lines.configure(json=handed.log_json, process="api")

    def application() -> Any:
        from jobsched.wiring import make_handed_app

        return make_handed_app(handed.settings)

    return serve(application, handed)

"""The command line. ``jobsched.cli:main`` is the console script.

Modules here import click and nothing heavy at their top: requests, rich, pydantic and the processes come in
when a command runs, so that ``--help`` and completion answer at once.
"""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from jobsched.web.handover import taken

    if (handed := taken()) is not None:
        from jobsched.cli.arbiter import watch

        sys.exit(watch(handed))
    try:
        from jobsched.cli.app import app
    except KeyboardInterrupt:
        sys.exit(130)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not an error.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    app(prog_name="jobsched")

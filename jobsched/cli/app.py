"""The root command: what there is, and how every error becomes a message and an exit code."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from jobsched import __version__
from jobsched.cli.cron import cron
from jobsched.cli.dead import dead
from jobsched.cli.errors import report
from jobsched.cli.executions import executions
from jobsched.cli.jobs import jobs
from jobsched.cli.keys import keys
from jobsched.cli.processes import COMMANDS
from jobsched.cli.signing import signing
from jobsched.cli.stats import stats

_SECTIONS = {
    "Run jobsched": ("up", "api", "poller", "worker", "migrate", "doctor", "keys"),
    "Use it": ("jobs", "executions", "dead", "stats", "cron", "signing"),
}


class App(click.Group):
    """A group that shows no traceback unless asked: all errors end here, wherever they come from."""

    show_traceback = False

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line ``args`` and exit with the code that docs/cli.md promises."""
        self.show_traceback = False
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (KeyboardInterrupt, click.Abort):
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # `jobsched jobs list | head`: the reader has gone. Python would complain again while exiting.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except Exception as error:
            if self.show_traceback:
                raise
            sys.exit(report(error))
        sys.exit(result if isinstance(result, int) else 0)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for instead of by the alphabet."""
        listed = {name for names in _SECTIONS.values() for name in names}
        rest = tuple(name for name in self.list_commands(ctx) if name not in listed)
        for title, names in {**_SECTIONS, "Other": rest}.items():
            rows = [(name, self.commands[name].get_short_help_str(70)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="jobsched %(version)s")
@click.option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _, wanted: setattr(context.command, "show_traceback", wanted),
    help="On an error, show where in the program it arose.",
)
def app() -> None:
    """A self-hosted job scheduler with HTTP callbacks.

    `jobsched up` starts everything on this machine. The other commands talk to the server that JOBSCHED_URL
    names, with the key in JOBSCHED_API_KEY, or to a local `jobsched up`.
    """


@app.command()
def version() -> None:
    """Show the version."""
    click.echo(f"jobsched {__version__}")


for _command in (*COMMANDS, keys, jobs, executions, dead, stats, cron, signing):
    app.add_command(_command)

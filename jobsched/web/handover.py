"""How the process that has read the settings turns into one that holds next to nothing and watches over the API.

Reading settings and waiting for the schema takes pydantic, psycopg and the rest: 40 MB that whoever only restarts
a serving process would hold for ever, or that the serving one would copy as it writes to them. So the process executes
its own command once more, with one argument added; what the settings were is behind a descriptor, for they may have
come from files that can be read only once, and secrets are not for the environment.
"""

import marshal
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from jobsched.config import Settings

_MARK: Final = "--handed="

#: Held back while the process turns into the other, and around each fork.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Handed(NamedTuple):
    """What the arbiter uses itself, and for the serving processes all ``settings``, pickled."""

    host: str | None
    port: int
    api_threads: int
    shutdown_grace: float
    log_level: str
    log_json: bool
    settings: bytes


def command() -> list[str] | None:
    """The command that this process was started with; None where its arguments are not those of the program.

    So it is when a program of somebody else's runs ours after having set ``sys.argv``.
    """
    arguments = sys.argv[1:]
    whole = sys.orig_argv
    if not arguments or not sys.executable or whole[-len(arguments) :] != arguments:
        return None
    return [sys.executable, *whole[1:]]


def handed(settings: "Settings") -> Handed:
    """What the one that watches and the one that serves need of ``settings``."""
    import pickle  # not in the arbiter

    return Handed(
        settings.host,
        settings.port,
        settings.api_threads,
        settings.shutdown_grace,
        settings.log_level,
        settings.log_format == "json",
        pickle.dumps(settings),
    )


def hand_over(command: list[str], handed: Handed) -> NoReturn:
    """Execute ``command`` in the place of this process, which finds ``handed`` there. OSError if that fails."""
    descriptor = _nameless()
    with open(descriptor, "wb", closefd=False) as file:
        file.write(marshal.dumps(tuple(handed)))
    os.set_inheritable(descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(command[0], [*command, f"{_MARK}{descriptor}"])


def taken() -> Handed | None:
    """What was handed over to this process, if it was; the arguments are then the user's again."""
    mark, equals, number = sys.argv[-1].partition("=")
    if mark + equals != _MARK or not number.isdecimal():
        return None
    sys.argv.pop()
    with open(int(number), "rb") as file:
        file.seek(0)
        return Handed(*marshal.load(file))


def _nameless() -> int:
    """A file in memory, or on the disk, where there is none, without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("settings")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

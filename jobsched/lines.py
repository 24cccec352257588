"""Lines on standard error, and what must not stand in them: all of a log that needs no library.

Lines       writes them and never waits for long
Plain       records of the standard library in the same form as jobsched/log.py's, for a process that has no
            megabytes for structlog: the one that watches over the API's
mask_text   takes passwords and keys out
"""

import contextlib
import json
import logging
import os
import re
import select
import stat
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from io import UnsupportedOperation

# The last letter of the scheme is enough: to look for a whole one costs the square of a long word's length.
_URL_PASSWORD = re.compile(r"(?P<head>[a-z0-9+.-]://[^/\s:@]*:)[^/\s@]+@", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[^\s\"']+", re.IGNORECASE)

MASK = "***"

#: Seconds that one line waits for room in a pipe at most; those that follow do not wait until there is some.
STALL_SECONDS = 0.05


def configure(*, json: bool, process: str) -> None:
    """Let the standard library's records out in our form. jobsched.log.configure does it for whoever logs more."""
    form = Plain(json=json, process=process)
    handler = Handler(Lines(form.lost))
    handler.setFormatter(form)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


class Plain(logging.Formatter):
    """What jobsched.log makes of a record: the same names in the same order, and never coloured."""

    def __init__(self, *, json: bool, process: str) -> None:
        super().__init__()
        self._json = json
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One event as one line, on a console followed by its traceback."""
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return self._line(record.levelname.lower(), record.getMessage(), trace)

    def lost(self, lines: int) -> str:
        """What tells that lines could not be written."""
        return self._line("warning", "log_lines_lost", lines=lines)

    def _line(self, level: str, event: str, trace: str = "", **fields: int) -> str:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if self._json:
            found = {
                "event": mask_text(event),
                **fields,
                "process": self._process,
                "level": level,
                "timestamp": now,
            }
            return json.dumps(found | ({"exception": mask_text(trace)} if trace else {}))
        said = "".join(f" {name}={value}" for name, value in (*fields.items(), ("process", self._process)))
        return f"{now} [{level:<9}] {mask_text(event)}{said}" + (f"\n{trace}" if trace else "")


class Lines:
    """Writes lines to standard error, and never fails: a full disk, a reader that has gone or stalls stops nobody.

    Lines that could not be written are counted, and told once one can be: ``tell`` renders that line.
    """

    def __init__(self, tell: Callable[[int], str]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._lost = 0
        self._output = _Output()

    def write(self, line: str) -> None:
        """Write one line, without its end."""
        with self._lock:
            if self._lost:
                if not self._output.write(self._tell(self._lost)):
                    self._lost += 1
                    return
                self._lost = 0
            self._lost += not self._output.write(line)

    msg = log = debug = info = warning = error = critical = fatal = exception = write


class Handler(logging.Handler):
    """Lets records of the standard library go where ours go."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.write(self.format(record))
        except Exception:
            self.handleError(record)


class _Output:
    """Standard error, past Python's buffer, which would try again, and fail, as the process ends.

    A pipe whose reader stalls (a log driver, a stopped ``| tee``, Ctrl-S) holds up whoever writes to it, and all
    threads behind the lock of lines. So it is written to without blocking, through a description of our own: the
    flags of the one we were given are shared with other processes. Where none can be had (sockets, other systems
    than Linux, a foreign user's pipe) each piece waits for room first. One thread at a time.
    """

    def __init__(self) -> None:
        self._own: int | None = None
        self._own_of: tuple[int, ...] = ()
        self._stalled = False
        self._torn = False

    def write(self, line: str) -> bool:
        """Whether the line went out whole."""
        stream = sys.stderr
        if stream is None:
            return False  # closed before we were started
        data = f"{line}\n".encode(errors="backslashreplace")
        try:
            descriptor = stream.fileno()
        except (UnsupportedOperation, AttributeError, ValueError):
            descriptor = None  # a test's, or another program's, that is no file
        try:
            if descriptor is None:
                stream.write(data.decode())
                stream.flush()
                return True
            return self._send(descriptor, b"\n" + data if self._torn else data)
        except (OSError, ValueError):
            return False

    def _send(self, descriptor: int, data: bytes) -> bool:
        status = os.fstat(descriptor)
        free = stat.S_ISREG(status.st_mode)  # never blocks for want of a reader
        own = None if free else self._opened(descriptor, status)
        target = descriptor if own is None else own
        piece = len(data) if free or own is not None else select.PIPE_BUF
        sent, room = 0, free or own is not None
        try:
            while sent < len(data) and (room or self._has_room(target)):
                try:
                    sent += os.write(target, data[sent : sent + piece])
                    room = free
                except BlockingIOError:
                    room = False
        finally:
            if sent:
                # What follows half a line begins one of its own.
                self._torn = not data[:sent].endswith(b"\n")
        self._stalled = sent < len(data)
        return not self._stalled

    def _has_room(self, target: int) -> bool:
        """Whether something can be written: soon, or at once where a line has waited in vain before."""
        poll = select.poll()
        poll.register(target, select.POLLOUT)
        return bool(poll.poll(0 if self._stalled else STALL_SECONDS * 1000))

    def _opened(self, descriptor: int, status: os.stat_result) -> int | None:
        """A description of our own that does not block, of the same pipe or terminal; None if there is none."""
        identity = (descriptor, status.st_dev, status.st_ino, status.st_rdev)
        if identity != self._own_of:
            if self._own is not None:
                os.close(self._own)
            self._own, self._own_of = None, identity
            with contextlib.suppress(OSError):
                self._own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return self._own


def mask_text(text: str) -> str:
    """``text`` without passwords in URLs and without bearer keys."""
    return _BEARER.sub(r"\1" + MASK, _URL_PASSWORD.sub(r"\g<head>" + MASK + "@", text))

"""Structured logs: one event a line, with a name and fields.

JSON for machines, a console form for people. Wording and level of an event live where it is logged;
redaction lives here, so that no caller can forget it.

Names of fields are the same everywhere, so that one execution can be followed through all processes:
``request_id``, ``job_id``, ``execution_id`` (``executions`` for several), ``attempt``, ``worker``.
"""

import contextlib
import logging
import os
import re
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from io import UnsupportedOperation
from typing import Any, Literal


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Inside the block ``module`` looks as if it were not installed."""
    present = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if present is not None:
            sys.modules[module] = present


# It loads rich where it finds it, for tracebacks that are switched off below: 7 MB of each process.
with _without("rich"):
    import structlog

_SECRET_FIELD = re.compile(r"(authorization|cookie|password|secret|api_?key|token)$", re.IGNORECASE)
# The last letter of the scheme is enough: to look for a whole one costs the square of a long word's length.
_URL_PASSWORD = re.compile(r"(?P<head>[a-z0-9+.-]://[^/\s:@]*:)[^/\s@]+@", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[^\s\"']+", re.IGNORECASE)

MASK = "***"

#: Seconds that one line waits for room in a pipe at most; those that follow do not wait until there is some.
STALL_SECONDS = 0.05

Logger = structlog.typing.FilteringBoundLogger

_OURS = logging.getLogger("jobsched")


def configure(*, json: bool, level: str = "info", process: str = "") -> None:
    """Set up logging for this process. ``process`` (api, poller, worker, …) is on every line.

    Records of the standard library (RQ, gunicorn, peewee) come out in the same form.
    """
    number = logging.getLevelName(level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _naming(process),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if json else _leave,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            # Where rich is installed, the default would print local variables, and secrets among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    processors = [*shared, renderer]
    lines = Lines(lambda lost: _rendered(processors, event="log_lines_lost", lines=lost))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_arguments: lines,
        cache_logger_on_first_use=False,
    )
    _OURS.setLevel(number)
    handler = _Handler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries talk at INFO about what is routine here; their warnings are news.
    root.setLevel(max(number, logging.WARNING))


def get_logger(**fields: Any) -> Logger:
    """A logger that carries ``fields`` on every line.

    It looks at the configuration when it is used, not when it is made: modules make theirs at import.
    """
    logger: Logger = structlog.get_logger(**fields)
    return logger


def enabled(level: Literal["debug", "info"]) -> bool:
    """Whether lines of ``level`` are written: to be asked, at 0.1 µs, where making one would cost a hot path.

    A call that is filtered costs 3 µs: the logger looks the configuration up each time.
    """
    return _OURS.isEnabledFor(logging.DEBUG if level == "debug" else logging.INFO)


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


class _Handler(logging.Handler):
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


def _rendered(processors: list[structlog.typing.Processor], **fields: Any) -> str:
    """One line at warning, made outside of any logger."""
    event: Any = fields
    for process in processors:
        event = process(None, "warning", event)
    return str(event)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what must never reach a log: fields named as secrets, passwords in URLs, bearer keys."""
    for name, value in event.items():
        if _SECRET_FIELD.search(name):
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = mask_text(value)
    return event


def mask_text(text: str) -> str:
    """``text`` without passwords in URLs and without bearer keys."""
    return _BEARER.sub(r"\1" + MASK, _URL_PASSWORD.sub(r"\g<head>" + MASK + "@", text))


def _naming(process: str) -> structlog.typing.Processor:
    """Puts the process's name on every line, whatever thread it comes from."""

    def name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if process:
            event["process"] = process
        return event

    return name


def _leave(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event

"""Structured logs: one event a line, with a name and fields.

JSON for machines, a console form for people. Wording and level of an event live where it is logged;
redaction lives here, so that no caller can forget it.

Names of fields are the same everywhere, so that one execution can be followed through all processes:
``request_id``, ``job_id``, ``execution_id`` (``executions`` for several), ``attempt``, ``worker``.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal

from jobsched.lines import MASK, Handler, Lines, mask_text


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
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
with without("rich"):
    import structlog

_SECRET_FIELD = re.compile(r"(authorization|cookie|password|secret|api_?key|token)$", re.IGNORECASE)

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
    handler = Handler(lines)
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


def _naming(process: str) -> structlog.typing.Processor:
    """Puts the process's name on every line, whatever thread it comes from."""

    def name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if process:
            event["process"] = process
        return event

    return name


def _leave(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event

"""Structured logs: one event a line, with a name and fields.

JSON for machines, a console form for people. Wording and level of an event live where it is logged;
redaction lives here, so that no caller can forget it.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_FIELD = re.compile(r"(authorization|cookie|password|secret|api_?key|token)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[^\s\"']+", re.IGNORECASE)

MASK = "***"

Logger = structlog.typing.FilteringBoundLogger


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
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_arguments: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
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

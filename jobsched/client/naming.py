"""Between Python's names and the API's: ``max_retry_count`` travels as ``maxRetryCount``."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Value = str | int | float | bool | datetime | None


def camel(name: str) -> str:
    """One name as the API writes it. Names that are in camelCase already stay as they are.

    >>> camel("max_retry_count"), camel("from_"), camel("isActive")
    ('maxRetryCount', 'from', 'isActive')
    """
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def body(*parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """One object out of several, later ones winning. Only its own names change, never those inside values:
    the keys of a payload are the user's."""
    return {camel(name): value for part in parts if part for name, value in part.items()}


def query(parameters: Mapping[str, Value | Iterable[str]]) -> list[tuple[str, str]]:
    """Query parameters: None is left out, several values repeat the name."""
    pairs: list[tuple[str, str]] = []
    for name, value in parameters.items():
        values = [value] if value is None or isinstance(value, str | int | float | datetime) else value
        pairs += [(camel(name), _text(one)) for one in values if one is not None]
    return pairs


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)

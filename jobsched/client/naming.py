"""Between Python's names and values and the API's: ``max_retry_count`` travels as ``maxRetryCount``."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

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


def encode(value: Any) -> bytes:
    """``value`` as JSON, datetimes as RFC 3339. Raises TypeError or ValueError for what JSON cannot hold."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def path(*parts: str | int) -> str:
    """A path out of parts, each one segment whatever it holds.

    >>> path("api", "v1", "jobs", "key", "a/b c")
    '/api/v1/jobs/key/a%2Fb%20c'

    Raises ValueError for a part that cannot be a segment: on their way, paths are shortened by ``.`` and ``..``.
    """
    for part in parts:
        if part in {"", ".", ".."}:
            raise ValueError(f"{part!r} cannot stand in an address.")
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


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


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")

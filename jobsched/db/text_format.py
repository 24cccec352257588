"""Values as Postgres writes and reads them itself, in its text format.

psycopg looks at the type of every parameter and names one to the server, so that a number's size changes the
prepared statement; and its dumper of arrays is written in Python. As text all parameters are alike, and the column
or the cast in the statement says what they are.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any


def as_text(value: Any) -> str | None:
    """``value`` in Postgres' text format: text, numbers, booleans, instants, and tuples of texts as ``text[]``."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return array(map(quoted, value))
    return repr(value)


def array(elements: Iterable[str]) -> str:
    """An array of ``elements``, which are written as an array has them: numbers as they are, texts ``quoted``."""
    return f"{{{','.join(elements)}}}"


def quoted(text: str | None) -> str:
    """``text`` as an element of an array (PostgreSQL's documentation, "Array Input and Output Syntax")."""
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

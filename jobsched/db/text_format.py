"""The values of one row, each in Postgres' text format. Columns of many rows: jobsched.db.arrays.

psycopg looks at the type of every parameter and names one to the server, so that a number's size changes the
prepared statement; and its dumper of arrays is written in Python. As text all parameters are alike, and the column
or the cast in the statement says what they are. COPY reads the same format.
"""

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
        return f"{{{','.join(map(_element, value))}}}"
    return repr(value)


def _element(text: str | None) -> str:
    """``text`` in an array (PostgreSQL's documentation, "Array Input and Output Syntax")."""
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

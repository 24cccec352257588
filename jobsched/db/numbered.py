"""Long statements whose parameters are numbered once and for all.

psycopg remembers where the parameters of a statement stand, but not of one that is longer than 4,096 characters: it
looks for them at each use. In the statement that records failures that takes 55 µs, each time. Written without any
indentation it would still have 4,700 characters.
"""

import re
from operator import itemgetter

_PARAMETER = re.compile(r"%(?:\((\w+)\)s|%)")


class Numbered(str):
    """A statement with two parameters or more, all of the form ``%(name)s``; ``Link.execute`` takes it as it is."""

    __slots__ = ("by_number", "values")

    def __init__(self, statement: str) -> None:
        names = list(dict.fromkeys(filter(None, _PARAMETER.findall(statement))))

        def number(found: re.Match[str]) -> str:
            return f"${names.index(found[1]) + 1}" if found[1] else "%"

        self.by_number = _PARAMETER.sub(number, statement).encode()
        """As Postgres knows it, with ``$1`` and so on."""
        self.values = itemgetter(*names)
        """From parameters by name to those by number."""

"""Sequences that stand behind the ids of their tables, as logical replication and loads of data alone leave them.

Ids would be given out a second time: inserts fail, or one id names two executions, of which one is in the history.
"""

from dataclasses import dataclass

from jobsched.db.connection import Link

#: Ids that are left out when a sequence is put ahead: others may take some between the look and the step.
_GAP = 1000

#: Executions share their ids with what becomes of them.
_EXECUTIONS = ("execution_id_seq", ("execution", "execution_history", "dead_letter"))

# Names come as regclass writes them: quoted where need be.
_IDENTITIES = """
SELECT pg_get_serial_sequence(quote_ident(c.relname), a.attname)::regclass::text, c.oid::regclass::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attidentity <> '' AND a.attname = 'id' AND c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Behind:
    """A sequence that will give out ids although rows of ``tables`` have them, up to ``highest``."""

    sequence: str
    tables: tuple[str, ...]
    highest: int


def behind(link: Link) -> list[Behind]:
    """Every sequence whose next id is not above all ids of its tables."""
    owned = [(sequence, (table,)) for sequence, table in link.execute(_IDENTITIES)]
    found = []
    for sequence, tables in [_EXECUTIONS, *owned]:
        highest = ", ".join(f"(SELECT max(id) FROM {table})" for table in tables)
        # Rows are seen as of the statement's begin, a sequence as of now: so ids taken meanwhile mislead nobody.
        [(top, next_id)] = link.execute(
            f"SELECT COALESCE(GREATEST({highest}), 0), (SELECT last_value + is_called::int FROM {sequence})"
        )
        if next_id <= top:
            found.append(Behind(sequence, tables, top))
    return found


def put_ahead(link: Link) -> list[Behind]:
    """Put each sequence that is behind ahead of its tables, never back. Returns what was behind."""
    found = behind(link)
    for one in found:
        link.execute(
            f"SELECT setval(%s::regclass, GREATEST(last_value, %s)) FROM {one.sequence}",
            (one.sequence, one.highest + _GAP),
        )
    return found

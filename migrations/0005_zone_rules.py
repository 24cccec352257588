"""Remembers the rules of time zones by which the next slots were computed last.

NULL: not known. Code that does not know the column neither reads nor writes it.
"""

SCHEMA = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE instance ADD COLUMN zone_rules text;
"""


def up(migrator, db):
    db.execute_sql(SCHEMA)

"""Lets a restored database be told from the one that was backed up: what it was made of is remembered in it.

NULL until the first look. Code that does not know the column neither reads nor writes it.
"""

SCHEMA = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE instance ADD COLUMN mark text;
"""


def up(migrator, db):
    db.execute_sql(SCHEMA)

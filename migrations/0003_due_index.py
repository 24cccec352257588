"""Keeps the planner from reading all that waits, queue after queue, to find what one queue has for one priority.

``execution_due`` answers when something is due next. Where most of what waits stands in one queue with one
priority, it looked like a shorter way to the due rows of every other priority too: its walk then ends only after the
last row. With the bound in its predicate it serves that one question alone.
"""

SCHEMA = """
SET LOCAL lock_timeout = '5s';
DROP INDEX execution_due;
CREATE INDEX execution_due ON execution (due_at) WHERE state IN ('pending', 'retrying') AND due_at < 'infinity';
"""


def up(migrator, db):
    db.execute_sql(SCHEMA)

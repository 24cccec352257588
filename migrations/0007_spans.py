"""Indexes for filters that few of many jobs or executions fit.

``job_span`` keeps bounds of ids by ranges of pages only (BRIN), which costs a write next to nothing: it leaves out of
the bitmap of a tag what is far from a page. Runs of a job that did not succeed get their state before their id, for
one that is skipped every minute has few failures among many runs; that index takes the place of the one without.

In steps of their own, as in 0006: building an index holds up those who write to the table, and nobody who reads.
"""

atomic = False

_NAME = "execution_history_job_state"
_WHAT = "(job_id, state, id) WHERE state <> 'succeeded'"

_WITHOUT = f"""
SELECT t.inhrelid::regclass::text, t.inhrelid FROM pg_inherits t
WHERE t.inhparent = 'execution_history'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
    WHERE i.inhparent = '{_NAME}'::regclass AND x.indrelid = t.inhrelid)
ORDER BY 1
"""


def up(migrator, db):
    _run(
        db,
        "CREATE INDEX IF NOT EXISTS job_span ON job USING brin (id) "
        "WITH (pages_per_range = 32, autosummarize = on)",
    )
    # What was added last is read through for each tag, until it is sorted in: 4 MB of it cost more than the rest.
    _run(db, "ALTER INDEX job_tags SET (gin_pending_list_limit = 256)")
    # A partition that is attached from now on gets its own by itself.
    _run(db, f"CREATE INDEX IF NOT EXISTS {_NAME} ON ONLY execution_history {_WHAT}")
    for partition, number in db.execute_sql(_WITHOUT).fetchall():
        own = f"{_NAME}_{number}"
        _run(db, f"CREATE INDEX {own} ON {partition} {_WHAT}", f"ALTER INDEX {_NAME} ATTACH PARTITION {own}")
    # After what takes its place.
    _run(db, "DROP INDEX IF EXISTS execution_history_job_unsuccessful")


def _run(db, *statements):
    with db.atomic():
        # Whoever waits for this lock makes everybody behind him wait: rather fail, and be run again.
        db.execute_sql("SET LOCAL lock_timeout = '5s'")
        for statement in statements:
            db.execute_sql(statement)

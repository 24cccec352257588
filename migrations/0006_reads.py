"""Indexes for lists whose filters leave little of much, in place of two that no query needs.

Each new one leaves out what is usual: jobs without tags, in the default pool and active, runs by schedule that
succeed. So the hot writes only look at its condition, and the index of all history by project, which they did keep, is
gone: while there is one project, the index by id has the same order. The same holds for ``job_live``. The one by slot
keeps bounds of page ranges only (BRIN), which costs a write next to nothing; "id + 0" leaves the planner no other way.

In steps of their own, each with its own short lock: building an index holds up those who write to the table, and
nobody who reads. What is there already is left, so that a run that was cut short is made up for by the next.
"""

atomic = False

_STEPS = (
    "DROP INDEX IF EXISTS job_live",
    "CREATE INDEX IF NOT EXISTS job_tags ON job USING gin (tags) WHERE deleted_at IS NULL AND tags <> '{}'",
    "CREATE INDEX IF NOT EXISTS job_pool ON job (project_id, pool, id) "
    "WHERE deleted_at IS NULL AND pool <> 'default'",
    "CREATE INDEX IF NOT EXISTS job_paused ON job (project_id, id) WHERE deleted_at IS NULL AND NOT is_active",
    "CREATE INDEX IF NOT EXISTS job_last_unsuccessful ON job_last (last_state, job_id) "
    "WHERE last_state <> 'succeeded'",
    "CREATE INDEX IF NOT EXISTS dead_letter_error ON dead_letter (project_id, error_code, id)",
)

#: Of the history, day by day: name, and what stands behind the table's.
_OF_HISTORY = {
    "execution_history_slot": "USING brin (scheduled_for, (id + 0)) WITH (pages_per_range = 64, autosummarize = on)",
    "execution_history_state": "(project_id, state, id) WHERE state <> 'succeeded'",
    "execution_history_trigger": "(project_id, trigger, id) WHERE trigger <> 'schedule'",
    "execution_history_job_unsuccessful": "(job_id, id) WHERE state <> 'succeeded'",
}

_WITHOUT = """
SELECT t.inhrelid::regclass::text, t.inhrelid FROM pg_inherits t
WHERE t.inhparent = 'execution_history'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
    WHERE i.inhparent = '{name}'::regclass AND x.indrelid = t.inhrelid)
ORDER BY 1
"""


def up(migrator, db):
    for statement in _STEPS:
        _run(db, statement)
    for name, what in _OF_HISTORY.items():
        # A partition that is attached from now on gets its own by itself.
        _run(db, f"CREATE INDEX IF NOT EXISTS {name} ON ONLY execution_history {what}")
        for partition, number in db.execute_sql(_WITHOUT.format(name=name)).fetchall():
            own = f"{name}_{number}"
            _run(
                db, f"CREATE INDEX {own} ON {partition} {what}", f"ALTER INDEX {name} ATTACH PARTITION {own}"
            )
    # After what takes the place of the second one.
    _run(db, "DROP INDEX IF EXISTS execution_history_project")
    _run(db, "DROP INDEX IF EXISTS execution_history_unsuccessful")


def _run(db, *statements):
    with db.atomic():
        # Whoever waits for this lock makes everybody behind him wait: rather fail, and be run again.
        db.execute_sql("SET LOCAL lock_timeout = '5s'")
        for statement in statements:
            db.execute_sql(statement)

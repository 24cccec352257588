"""Postgres, the truth: the only package that holds SQL, and the only one that knows Peewee and psycopg.

Definitions go through Peewee's models; every move of an execution is one statement, fenced by what its maker
knows. A worker's moves stand in ``claims``, a poller's in ``firing`` and ``recovery``, a user's in
``user_moves`` and ``cancelling``; ``executions``, ``stats`` and ``picture`` only read.
"""

from jobsched.log import without

# It loads SQLite where it finds it: half a megabyte of each process.
with without("sqlite3"):
    import peewee  # noqa: F401

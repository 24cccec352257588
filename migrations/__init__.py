"""Schema migrations, applied in numeric order by ``jobsched migrate`` (see jobsched/db/migrate.py)."""

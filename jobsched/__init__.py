"""jobsched: a self-hosted job scheduler with HTTP callbacks on Postgres and Redis."""

__version__ = "0.1.0"

"""Figures for /queue/stats and /ready."""

from dataclasses import dataclass
from datetime import datetime

from peewee import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """Counts of one queue. ``oldest_wait_seconds``: since the oldest due one that has not started was due."""

    name: str
    pool: str
    queued: int
    running: int
    pending: int
    retrying: int
    dead: int
    oldest_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One live worker process."""

    name: str
    host: str
    pid: int
    pools: list[str]
    concurrency: int
    in_flight: int
    started_at: datetime
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True)
class PollerStats:
    """``alive`` pollers and by how many seconds the poller is late; None where no poller has said yet."""

    alive: int
    lag_seconds: float | None


class Stats:
    """Figures from ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queues(self, project_id: int | None = None) -> list[QueueStats]:
        """Every queue with something in it, by name; of one project, or of all."""
        raise NotImplementedError

    def workers(self) -> list[WorkerStats]:
        """The workers that are alive, by name."""
        raise NotImplementedError

    def poller(self) -> PollerStats:
        """Whether pollers are alive, and how late they are."""
        raise NotImplementedError

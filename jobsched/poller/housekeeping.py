"""Housekeeping: work that nothing waits for, on a slow beat."""

from jobsched import clock
from jobsched.db import idempotency, picture, retention, signing
from jobsched.db.connection import Link
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker, QueuePicture

#: Seconds between two looks at the partitions, and between two rebuilds of RQ's picture.
PARTITIONS_EVERY = 3600.0
PICTURE_EVERY = 60.0

#: Seconds between two batches while there is more to delete.
PRUNE_PAUSE = 1.0

log = get_logger()


class Housekeeping:
    """Keeps partitions of the history ahead and behind, RQ's picture true, and nothing that has expired."""

    def __init__(self, link: Link, broker: Broker, history_days: int) -> None:
        self._link = link
        self._broker = broker
        self._history_days = history_days
        self._partitions_at = self._picture_at = 0.0
        self._shown: set[str] = set()

    def run_once(self) -> float:
        """Do what is due; return the seconds until the next time."""
        if clock.monotonic() >= self._partitions_at:
            retention.maintain(self._link, self._history_days)
            self._partitions_at = clock.monotonic() + PARTITIONS_EVERY
        if clock.monotonic() >= self._picture_at:
            self._picture_at = clock.monotonic() + PICTURE_EVERY
            self._rebuild_picture()
        signing.prune(self._link)
        more = idempotency.prune(self._link) == idempotency.PRUNED_AT_ONCE
        return PRUNE_PAUSE if more else PICTURE_EVERY

    def _rebuild_picture(self) -> None:
        contents = picture.read(self._link)
        # A queue that has emptied since is shown empty once more.
        names = self._shown | contents.keys()
        empty = picture.QueueContents()
        pictures = {}
        for name in names:
            one = contents.get(name, empty)
            pictures[name] = QueuePicture(one.started, one.scheduled, one.failed)
        try:
            self._broker.rebuild_picture(pictures)
        except QueueUnavailable as error:
            log.debug("picture_postponed", error=str(error))
            return
        self._shown = set(contents)

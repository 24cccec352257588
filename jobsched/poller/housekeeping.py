"""Housekeeping: work that nothing waits for, on a slow beat."""

from jobsched import clock
from jobsched.db import idempotency, picture, retention, signing
from jobsched.db.connection import Link
from jobsched.domain.queues import queues_of
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker, QueuePicture

#: Seconds between two looks at the partitions, and between two rebuilds of RQ's picture.
PARTITIONS_EVERY = 3600.0
PICTURE_EVERY = 60.0

#: Seconds until the next try where Redis did not take it.
PICTURE_AGAIN = 5.0

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
            again = PICTURE_EVERY if self._rebuild_picture() else PICTURE_AGAIN
            self._picture_at = clock.monotonic() + again
        signing.prune(self._link)
        more = idempotency.prune(self._link) == idempotency.PRUNED_AT_ONCE
        return PRUNE_PAUSE if more else max(0.0, self._picture_at - clock.monotonic())

    def _rebuild_picture(self) -> bool:
        """Show RQ's tools what Postgres knows. False if Redis does not take it."""
        contents = picture.read(self._link)
        # A queue that has emptied since is shown empty once more, also if another poller had shown what was in it.
        served = {queue for pool in picture.pools(self._link) for queue in queues_of(pool)}
        names = self._shown | served | contents.keys()
        empty = picture.QueueContents()
        pictures = {}
        for name in names:
            one = contents.get(name, empty)
            pictures[name] = QueuePicture(one.started, one.scheduled, one.failed)
        try:
            self._broker.rebuild_picture(pictures)
        except QueueUnavailable as error:
            log.debug("picture_postponed", error=str(error))
            return False
        self._shown = set(contents)
        return True

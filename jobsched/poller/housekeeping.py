"""Housekeeping: work that nothing waits for, on a slow beat."""

from jobsched import clock
from jobsched.db import picture, retention
from jobsched.db.connection import Link
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker, QueuePicture

#: Seconds between two looks at the partitions, and between two rebuilds of RQ's picture.
PARTITIONS_EVERY = 3600.0
PICTURE_EVERY = 60.0

log = get_logger()


class Housekeeping:
    """Keeps partitions of the history ahead and behind, and RQ's picture true."""

    def __init__(self, link: Link, broker: Broker, history_days: int) -> None:
        self._link = link
        self._broker = broker
        self._history_days = history_days
        self._partitions_at = 0.0
        self._shown: set[str] = set()

    def run_once(self) -> float:
        """Do what is due; return the seconds until the next time."""
        if clock.monotonic() >= self._partitions_at:
            retention.maintain(self._link, self._history_days)
            self._partitions_at = clock.monotonic() + PARTITIONS_EVERY
        self._rebuild_picture()
        return PICTURE_EVERY

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

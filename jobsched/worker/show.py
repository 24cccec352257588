"""Show: keep RQ's picture of what this worker does, without ever holding it up.

Entries wait in a short line and are sent in batches by a thread of their own. When Redis is away or slow they
are dropped: nothing decides from the picture, and a poller rebuilds it once a minute.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence

from jobsched import clock
from jobsched.db.claims import RECORDING_MARGIN, Recorded
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker, Outcome
from jobsched.worker.seats import Seat

_LINE = 10_000

#: Seconds for which entries are gathered. Most calls end before their start was shown, and need not be shown as
#: started then: half of Redis' work for the picture. What RQ's tools show is so much older, and no more.
_GATHER = 0.25

#: States of ours in the words of RQ's registries. What was cancelled is over for RQ too.
_OUTCOMES: dict[str, Outcome] = {
    "succeeded": "finished",
    "failed": "failed",
    "cancelled": "finished",
    "retrying": "scheduled",
}

log = get_logger()


class Show:
    """Sends the picture. ``started`` and ``ended`` return at once."""

    def __init__(self, broker: Broker, worker_name: str) -> None:
        self._broker = broker
        self._worker_name = worker_name
        self._line: deque[tuple[str, int, float, Outcome | None]] = deque(maxlen=_LINE)
        self._something = threading.Event()
        self._stopping = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="show", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def started(self, seats: Sequence[Seat]) -> None:
        """These executions were claimed."""
        now = clock.utc_now().timestamp()
        for seat in seats:
            deadline = now + seat.claimed.timeout_seconds + RECORDING_MARGIN
            self._line.append((seat.claimed.queue, seat.claimed.id, deadline, None))
        self._something.set()

    def ended(self, queues: Mapping[int, str], recorded: Sequence[Recorded]) -> None:
        """These attempts were recorded; ``queues`` says in which queue each execution was."""
        now = clock.utc_now().timestamp()
        for one in recorded:
            if one.id in queues:
                self._line.append((queues[one.id], one.id, now + (one.due_in or 0.0), _OUTCOMES[one.state]))
        self._something.set()

    def end(self, timeout: float) -> None:
        """Send what is left, as far as Redis takes it, and stop."""
        self._stopping = True
        self._end.set()
        self._something.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping or self._line:
            self._something.wait(1.0)
            if not self._stopping:
                self._end.wait(_GATHER)
            self._something.clear()
            while self._line:
                try:
                    self._send([self._line.popleft() for _ in range(len(self._line))])
                except QueueUnavailable as error:
                    log.debug("picture_dropped", error=str(error))
                    self._line.clear()

    def _send(self, entries: list[tuple[str, int, float, Outcome | None]]) -> None:
        # An execution may start, end, and start again within one batch. Only where it is now is shown, and a retry
        # whose time has come meanwhile is back in its queue.
        now = clock.utc_now().timestamp()
        latest = {entry[1]: entry for entry in entries}.values()
        started = [(queue, execution, at) for queue, execution, at, outcome in latest if outcome is None]
        ended: list[tuple[str, int, Outcome, float]] = [
            (queue, execution, "queued" if outcome == "scheduled" and at <= now else outcome, at)
            for queue, execution, at, outcome in latest
            if outcome is not None
        ]
        if started:
            self._broker.show_started(started, self._worker_name)
        if ended:
            self._broker.settle(ended)

"""Show: keep RQ's picture of what this worker does, without ever holding it up.

Where each execution is now is noted, and sent in batches by a thread of its own. When Redis is away or slow, notes of
what has started are dropped, and of what is over as many are kept as fit: nothing decides from the picture, and a
poller rebuilds it once a minute. But what is over and was never shown as such would keep its hash for days.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import islice

from jobsched import clock
from jobsched.db.claims import RECORDING_MARGIN, Recorded
from jobsched.errors import QueueUnavailable
from jobsched.log import get_logger
from jobsched.queue.broker import Broker, Outcome
from jobsched.worker.seats import Seat

#: Executions that may wait to be shown.
_MOST = 10_000

#: Seconds for which entries are gathered. Most calls end before their start was shown, and need not be shown as
#: started then: half of Redis' work for the picture. What RQ's tools show is so much older, and no more.
_GATHER = 0.1

#: States of ours in the words of RQ's registries. What was cancelled is over for RQ too.
_OUTCOMES: dict[str, Outcome] = {
    "succeeded": "finished",
    "failed": "failed",
    "cancelled": "finished",
    "retrying": "scheduled",
}

_Note = tuple[str, float, Outcome | None]
"""Queue, instant in Unix seconds (the deadline of what was started), and the outcome; None: it was started."""

log = get_logger()


class Show:
    """Sends the picture. ``started`` and ``ended`` return at once."""

    def __init__(self, broker: Broker, worker_name: str) -> None:
        self._broker = broker
        self._worker_name = worker_name
        self._notes: dict[int, _Note] = {}
        self._writing = threading.Lock()
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
        self._note(
            {
                claimed.id: (claimed.queue, now + claimed.timeout_seconds + RECORDING_MARGIN, None)
                for claimed, _owner in seats
            }
        )

    def ended(self, queues: Mapping[int, str], recorded: Sequence[Recorded]) -> None:
        """These attempts were recorded; ``queues`` says in which queue each execution was."""
        now = clock.utc_now().timestamp()
        self._note(
            {
                execution: (queues[execution], now + (due_in or 0.0), _OUTCOMES[state])
                for execution, state, due_in in recorded
                if execution in queues
            }
        )

    def _note(self, notes: dict[int, _Note]) -> None:
        with self._writing:
            if len(self._notes) < _MOST:
                self._notes.update(notes)
        self._something.set()

    def end(self, timeout: float) -> None:
        """Send what is left, as far as Redis takes it, and stop."""
        self._stopping = True
        self._end.set()
        self._something.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping or self._notes:
            self._something.wait(1.0)
            if not self._stopping:
                self._end.wait(_GATHER)
            self._something.clear()
            with self._writing:
                notes, self._notes = self._notes, {}
            try:
                self._send(notes)
            except QueueUnavailable as error:
                log.debug("picture_postponed", error=str(error))
                if not self._stopping:
                    self._keep_what_is_over(notes)

    def _keep_what_is_over(self, notes: dict[int, _Note]) -> None:
        # Not what waits for a retry: another worker may have ended it by then.
        over = {execution: note for execution, note in notes.items() if note[2] in ("finished", "failed")}
        with self._writing:
            room = max(0, _MOST - len(self._notes))
            # What was noted since is newer.
            self._notes = dict(islice(over.items(), room)) | self._notes

    def _send(self, notes: dict[int, _Note]) -> None:
        # A retry whose time has come meanwhile is back in its queue.
        now = clock.utc_now().timestamp()
        started = [
            (queue, execution, at) for execution, (queue, at, outcome) in notes.items() if outcome is None
        ]
        ended: list[tuple[str, int, Outcome, float]] = [
            (queue, execution, "queued" if outcome == "scheduled" and at <= now else outcome, at)
            for execution, (queue, at, outcome) in notes.items()
            if outcome is not None
        ]
        if started:
            self._broker.show_started(started, self._worker_name)
        if ended:
            self._broker.settle(ended)

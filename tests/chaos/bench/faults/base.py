"""What every fault is, and what it looks at to prove that it struck."""

import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.chaos.bench.cluster import Cluster
from tests.chaos.bench.records import Strike

#: A fault waits so many seconds for something to be in flight, before it strikes without.
PATIENCE = 3.0

#: What our processes say when Postgres, or Redis, fails them.
POSTGRES_MISSED = (
    "beat_failed",
    "claim_postponed",
    "recording_postponed",
    "signing_secrets_postponed",
    "unavailable",
    "not_ready",
    "service_failed:database_unavailable",
)
REDIS_MISSED = ("queue_away", "push_failed", "service_failed:queue_unavailable")

_IN_FLIGHT = """
SELECT e.id, e.attempt FROM execution e JOIN worker_process w ON w.id = e.worker_id
WHERE e.state = 'running' AND w.name = %s ORDER BY e.id
"""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault did: ``took`` and ``said`` as ``took_effect`` and ``effect`` of a strike."""

    took: bool
    said: str
    worker: str | None = None
    in_flight: tuple[tuple[int, int], ...] = ()


class Scene:
    """A cluster at the moment of a fault: which slots it may hit, and what is said from now on."""

    def __init__(self, cluster: Cluster, chance: random.Random, slots: dict[str, str]) -> None:
        self.cluster = cluster
        self.chance = chance
        #: The slot for each of the fault's parts that is one: ``slots["worker"]`` is ``worker2``.
        self.slots = slots
        self._sizes = {name: path.stat().st_size for name, path in cluster.logs().items()}

    def events(self, *names: str, of: str = "") -> list[dict[str, Any]]:
        """What was logged since this scene began under these names, ``event`` or ``event:code``.

        ``of`` is one process, such as ``worker2.1``, or what the names of several begin with.
        """
        found = []
        for process, path in self.cluster.logs().items():
            if process == of or (process.startswith(of) and not of[-1:].isdigit()):
                with path.open("rb") as file:
                    file.seek(self._sizes.get(process, 0))
                    found += [
                        event for event in _parsed(file) if _name(event) in names or event["event"] in names
                    ]
        return found

    def count(self, *names: str, of: str = "") -> str:
        """The same, counted, in words."""
        counts: dict[str, int] = {}
        for event in self.events(*names, of=of):
            counts[_name(event)] = counts.get(_name(event), 0) + 1
        return ", ".join(f"{count}x {name}" for name, count in sorted(counts.items())) or "nothing"

    def await_event(self, *names: str, of: str = "", seconds: float) -> bool:
        """Wait until one of these was logged; whether it was."""
        return self.until(lambda: bool(self.events(*names, of=of)), seconds)

    def until(self, condition: Any, seconds: float, every: float = 0.1) -> bool:
        """Wait until ``condition()`` is true; whether it is within ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end or self.cluster.closing.wait(every):
                return False
        return True

    def in_flight(self, worker: str, *, within: float = 10.0) -> tuple[tuple[int, int], ...]:
        """(execution, attempt) of what Postgres says that this worker process runs."""
        rows = self.cluster.ask(_IN_FLIGHT, (worker,), within=within)
        return tuple((int(id), int(attempt)) for id, attempt in rows or ())

    def await_in_flight(self, worker: str) -> bool:
        """Wait a little until this worker process has something in flight; whether it has."""
        return self.until(lambda: bool(self.in_flight(worker, within=PATIENCE)), PATIENCE, every=0.02)

    def unanswered(self, url: str) -> int:
        """Connections on which a server that stands still has requests to read; 0 where /proc does not tell."""
        port = urlsplit(url).port
        try:
            rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            return 0
        # proc(5): local address, remote address, state (01 established), tx_queue:rx_queue, all in hex.
        sockets = [row.split()[1:5] for row in rows]
        return sum(
            int(local.partition(":")[2], 16) == port
            and state == "01"
            and int(queues.partition(":")[2], 16) > 0
            for local, _remote, state, queues in sockets
        )

    def waiting_for_locks(self) -> int:
        """Sessions of jobsched's processes that wait for somebody's lock."""
        rows = self.cluster.ask(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name LIKE 'jobsched-%%' AND wait_event_type = 'Lock'",
            within=1.0,
        )
        return int(rows[0][0]) if rows else 0


class Fault(ABC):
    """One kind of fault.

    ``parts``: what it occupies, so that no other fault is there at once; ``worker``, ``poller`` and ``api`` mean
    one slot of that kind, ``pollers`` all of them. ``lasts``: within so many seconds it is healed, as a rule;
    beside other faults it may take longer, and the next one at its part waits.
    """

    kind: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    lasts: ClassVar[float]

    def strike(self, cluster: Cluster, chance: random.Random) -> Strike:
        """Strike, and return once all is healed. What the bench could not do raises."""
        with cluster.occupying(self.parts, chance) as slots:
            began = time.time()
            effect = self.hit(Scene(cluster, chance, slots))
            return Strike(
                kind=self.kind,
                began=began,
                ended=time.time(),
                took_effect=effect.took,
                effect=effect.said,
                worker=effect.worker,
                in_flight=effect.in_flight,
            )

    @abstractmethod
    def hit(self, scene: Scene) -> Effect:
        """Do it, prove it, undo it."""


def _name(event: dict[str, Any]) -> str:
    return f"{event['event']}:{event['code']}" if "code" in event else str(event["event"])


def _parsed(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # half a line, or what a library printed
        if isinstance(event, dict) and "event" in event:
            yield event

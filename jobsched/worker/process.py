"""The worker process: many calls at once, each recorded, none held up by another.

Threads: deliver (all calls, and the strands take, claim, send and record), show (RQ's picture), and the services
liveness and presence. Stopping: take nothing more, let calls end until the grace is nearly over, then hand back what
was not sent and abort the rest, record that, and leave.
"""

import os
import resource
import socket
import uuid
from collections.abc import Callable, Sequence

import redis

from jobsched import clock, metrics
from jobsched.callback.guard import Guard
from jobsched.callback.model import Call, Result
from jobsched.callback.resolver import Resolver
from jobsched.callback.transport import Transport
from jobsched.config import Settings
from jobsched.db.connection import Link
from jobsched.db.vault import Vault
from jobsched.errors import ConfigError, DatabaseError
from jobsched.log import get_logger
from jobsched.queue.broker import Broker, Waker
from jobsched.runtime.outage import Outage
from jobsched.runtime.service import Service
from jobsched.worker.deliver import Carrier, Deliver
from jobsched.worker.identity import Identity
from jobsched.worker.intake import Intake
from jobsched.worker.liveness import Liveness
from jobsched.worker.record import Recorder
from jobsched.worker.rq_worker import RqPresence
from jobsched.worker.seats import Seats
from jobsched.worker.show import Show
from jobsched.worker.strands import Strands
from jobsched.worker.taking import Taking

#: Of the grace, the seconds kept for recording what was aborted.
RECORDING_TIME = 5.0

#: Seconds between two signs of life for RQ's tools.
_PRESENCE_EVERY = 5.0

#: Seconds for which a worker without descriptors takes nothing.
_UNFIT_PAUSE = 2.0

log = get_logger()


def raise_descriptor_limit(concurrency: int) -> None:
    """Raise the soft limit of open files to the hard one; refuse a concurrency that it cannot carry.

    A call needs up to two descriptors, the process itself up to 200. Raises ConfigError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    most = (soft - 200) // 2
    if soft != resource.RLIM_INFINITY and concurrency > most:
        raise ConfigError(
            f"A concurrency of {concurrency} needs {2 * concurrency + 200} open files, but the limit is {soft}. "
            f"Raise it (ulimit -n, LimitNOFILE) or use at most {most}."
        )


def default_name() -> str:
    """A name that tells workers apart, also those of containers whose process ids are all 1."""
    return f"worker-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}"


def make_transport(settings: Settings, concurrency: int) -> Transport:
    """The transport of this process. Call it after any fork."""
    return Transport(
        concurrency=concurrency,
        guard=Guard(settings.allow_targets),
        resolver=Resolver(),
        capture_bytes=settings.response_capture_bytes,
        proxy=settings.proxy,
        ca_bundle=str(settings.ca_bundle) if settings.ca_bundle else None,
    )


class Worker:
    """One worker process, wired and ready to be begun."""

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], redis.Redis],
        waker: Waker,
        *,
        name: str,
        on_retry: Callable[[float], None],
        on_shutdown: Callable[[], None],
    ) -> None:
        url = settings.need_database_url()
        self.name = name
        self._grace = settings.shutdown_grace
        self._starts_nothing = False
        self._seats = Seats(settings.concurrency)
        metrics.seats.set(settings.concurrency)
        metrics.seats_used.set_function(lambda: len(self._seats))
        self._identity = Identity()
        strands = Strands()
        self._record_link = Link(url, "worker-record", waits=strands, by_index=True)
        self._beat_link = Link(url, "worker-beat")
        self._presence = RqPresence(
            name=name, pools=settings.pools, client=connect(), on_shutdown=on_shutdown
        )
        self._show = Show(Broker(connect()), name)
        self._recorder = Recorder(
            self._record_link, Broker(connect()), self._seats, self._show, name, on_retry, strands
        )
        self._liveness = Liveness(
            self._beat_link,
            Broker(connect()),
            self._seats,
            self._identity,
            lambda: self._deliver,
            lambda: self._intake,
            name=name,
            pools=settings.pools,
        )

        def make_carrier() -> Carrier:
            return make_transport(settings, settings.concurrency)

        self._unfit = Outage("descriptors_exhausted", level="error")
        self._deliver = Deliver(make_carrier, self._on_end, self._may_start, strands)
        self._taking = Taking(
            Broker(connect(), metrics.foreign_messages.inc),
            waker,
            settings.pools,
            self._seats,
            self._identity,
            self._presence,
            strands,
        )
        self._intake = Intake(
            url,
            self._taking,
            self._seats,
            self._identity,
            self._deliver,
            self._recorder,
            self._show,
            Vault(settings.secret_key),
            strands,
        )
        self.services: Sequence[Service] = (
            Service("liveness", self._liveness.run_once),
            Service("presence", self._show_presence),
        )

    def begin(self) -> None:
        """Start working."""
        self._presence.appear()
        self._show.begin()
        self._deliver.begin()
        self._recorder.begin()
        self._intake.begin()
        self._taking.begin()

    def broken(self) -> str | None:
        """The thread that has ended without being told to; the process must end too and be started again."""
        alive = {
            "deliver": self._deliver.alive,
            "record": self._recorder.alive,
            "take": self._taking.alive,
            "intake": self._intake.alive,
            **{service.name: service.alive for service in self.services},
        }
        return next((name for name, runs in alive.items() if not runs), None)

    def finish(self) -> bool:
        """Stop working, within the grace. Returns whether every outcome was recorded."""
        began = clock.monotonic()
        log.info("worker_stopping", in_flight=len(self._seats), grace_seconds=self._grace)
        self._taking.end(timeout=RECORDING_TIME)
        if not self._all_over(began + self._grace - RECORDING_TIME):
            self._starts_nothing = True
            if ids := [seat.claimed.id for seat in self._seats.all()]:
                log.warning("calls_interrupted", count=len(ids))
            metrics.interrupted.inc(len(ids))
            self._deliver.abort(ids, "interrupted", "The worker was stopped before the target had answered.")
        now = clock.monotonic()
        clean = self._all_over(max(now + RECORDING_TIME - 1.0, began + self._grace - 1.0))
        log.info("worker_stopped", clean=clean, seconds=round(clock.monotonic() - began, 2))
        return clean

    def _all_over(self, until: float) -> bool:
        """Wait until all that was taken is claimed, and all that was claimed is recorded; whether it is.

        The claim comes first: one that waits for a lock while no seat is taken would find the worker gone.
        """
        return self._intake.end(timeout=until - clock.monotonic()) and self._seats.wait_until_empty(
            max(0.0, until - clock.monotonic())
        )

    def close(self, *, clean: bool) -> None:
        """Give everything back, after the services have stopped."""
        self._recorder.end(1.0)
        self._deliver.end(1.0)
        self._show.end(1.0)
        self._presence.vanish()
        try:
            if clean:
                self._liveness.leave()
        except DatabaseError as error:
            log.warning("row_left_behind", error=str(error))
        self._record_link.close()
        self._beat_link.close()

    def _on_end(self, results: Sequence[Result], ended_at: float) -> None:
        unfit = sum(result.unfit for result in results)
        if unfit:
            # What could not be called goes back to its queue, and comes back at once if nobody else takes it.
            self._taking.rest(_UNFIT_PAUSE)
            self._unfit.failed(calls=unfit, in_flight=len(self._seats))
        elif self._unfit.lasting and any(result.sent for result in results):
            self._unfit.over()
        self._recorder.results(results, ended_at)

    def _may_start(self, call: Call) -> bool:
        if self._starts_nothing:
            return False
        seat = self._seats.get(call.execution_id)
        return seat is not None and seat.owner == self._identity.for_new_calls()

    def _show_presence(self) -> float:
        self._presence.beat(
            busy=len(self._seats) > 0,
            succeeded=self._recorder.succeeded,
            failed=self._recorder.failed,
            in_flight=len(self._seats),
        )
        return _PRESENCE_EVERY

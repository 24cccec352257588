"""What RQ's tools see of our worker: RQ's BaseWorker in all but the work loop.

It registers its birth and death, beats, obeys ``rq suspend`` and the shutdown command, and so stands in
``rq info`` as any worker does. It never runs RQ's loop: RQ takes one job at a time, loses jobs that it pops
from several queues, and its maintenance would call our long calls abandoned.

Nothing here matters to a delivery. Redis may be away or wiped at any moment; no method raises for it.
This is the only module that leans on the inside of RQ's worker; test_rq_contract.py holds it against the RQ
that is installed.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import worker_registration
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from jobsched.domain.queues import queues_of
from jobsched.log import get_logger

WORKER_TTL = 30
"""Seconds; RQ keeps a silent worker for 60 more. Its default of 420 would show the dead for 8 minutes."""

_LISTEN_SECONDS = 1.0
_PAUSE_AFTER_ERROR = 2.0

# They speak to one job of a worker that has one job. The message says what to use instead.
_COMMANDS_FOR_ONE_JOB = frozenset({"kill-horse", "stop-job", "stop-execution"})


class RqPresence:
    """Our worker as RQ's tools know it. All methods return quietly when Redis is away.

    ``name`` must be unique among living workers; an entry left by a dead one of that name is taken over.
    ``on_shutdown`` is called on a thread of ours when RQ's shutdown command arrives: let it set a flag.
    Make it after any fork. ``client`` may be shared; its timeouts stay as they are.
    """

    def __init__(
        self, *, name: str, pools: Sequence[str], client: Redis, on_shutdown: Callable[[], None]
    ) -> None:
        self._client = client
        self._log = get_logger(part="rq_worker")
        self._suspended = False
        queues = [queue for pool in pools for queue in queues_of(pool)]
        self._worker = _Worker(
            queues,
            name=name,
            connection=client,
            worker_ttl=WORKER_TTL,
            serializer=JSONSerializer,
            disable_default_exception_handler=True,
        )
        self._worker.birth_date = self._worker.last_heartbeat = now()
        self._worker.on_command = _Commands(on_shutdown, self._log).handle

    def appear(self) -> None:
        """Register with RQ, sweep what dead workers left under our queues, and listen for commands."""
        with self._quietly("note address"):
            self._worker.note_address()
        with self._quietly("appear"):
            for queue in self._worker.queues:
                worker_registration.clean_worker_registry(queue)
            self._register()
        self._listen()

    def beat(self, *, busy: bool, succeeded: int, failed: int, in_flight: int) -> None:
        """Say that we live, what we do and what we have done (``rq info -W``). Call it every few seconds.

        ``succeeded`` and ``failed`` count callbacks since the start. Writes the whole entry each time, so
        that a wiped Redis shows us again after one beat, and listens anew where the subscription died.
        """
        worker = self._worker
        with self._quietly("beat"), self._client.pipeline() as pipeline:
            # The heartbeat's time goes into the entry as well; it also moves the expiry.
            worker.heartbeat(pipeline=pipeline)
            entry = worker.serialize() | {
                "state": self._state(busy),
                "successful_job_count": succeeded,
                "failed_job_count": failed,
                "in_flight": in_flight,
            }
            pipeline.hset(worker.key, mapping=entry)
            pipeline.hdel(worker.key, "death")
            pipeline.expire(worker.key, WORKER_TTL + 60)
            worker_registration.register(worker, pipeline)
            pipeline.execute()
        self._listen()

    def suspended(self) -> bool:
        """Whether ``rq suspend`` asks all workers to take nothing. False when Redis is away."""
        self._suspended = False
        with self._quietly("suspended"):
            self._suspended = bool(is_suspended(self._client))
        return self._suspended

    def vanish(self) -> None:
        """Stop listening and register our death. The entry stays for a minute, dead and in no list."""
        self._worker.stop_listening()
        with self._quietly("vanish"):
            self._worker.register_death()

    def _register(self) -> None:
        try:
            self._worker.register_birth()
        except ValueError:
            # An entry of our name that never died: a predecessor was killed. RQ would refuse for 90 s.
            self._client.delete(self._worker.key)
            self._worker.register_birth()

    def _listen(self) -> None:
        if not self._worker.listens():
            with self._quietly("listen"):
                self._worker.subscribe()

    def _state(self, busy: bool) -> str:
        if busy:
            return str(WorkerStatus.BUSY.value)
        return str((WorkerStatus.SUSPENDED if self._suspended else WorkerStatus.IDLE).value)

    @contextmanager
    def _quietly(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            self._log.debug("rq_presence_failed", doing=doing, error=str(error))


class _Commands:
    """What to do when RQ's tools speak to this worker (``rq.command``)."""

    def __init__(self, on_shutdown: Callable[[], None], log: Any) -> None:
        self._on_shutdown = on_shutdown
        self._log = log

    def handle(self, message: dict[str, Any]) -> None:
        """Obey ``shutdown``; refuse the rest in words. Anybody who reaches Redis can send anything."""
        command = _command_in(message)
        if command == "shutdown":
            self._log.info("rq_shutdown_command")
            self._on_shutdown()
        elif command in _COMMANDS_FOR_ONE_JOB:
            hint = "cancel the execution instead: jobsched executions cancel ID"
            self._log.warning("rq_command_ignored", command=command, hint=hint)
        else:
            self._log.warning("rq_command_not_understood")


def _command_in(message: dict[str, Any]) -> str | None:
    try:
        command = json.loads(message["data"])["command"]
    except (ValueError, TypeError, KeyError):
        return None
    return command if isinstance(command, str) else None


class _Worker(BaseWorker):  # type: ignore[misc]  # RQ carries no types here
    """BaseWorker without its loop, its maintenance, and its grip on the connection."""

    on_command: Callable[[dict[str, Any]], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stopping = threading.Event()
        super().__init__(*args, **kwargs)

    # RQ raises the socket timeout of the whole pool to fit its blocking pop (415 s). We never block.
    def _set_connection(self, connection: Redis) -> Redis:
        return connection

    # RQ asks the server while it constructs; ours may be away.
    def _set_ip_address(self, connection: Redis) -> None:
        self.ip_address = "unknown"

    def note_address(self) -> None:
        """Ask the server under which address it sees us. Raises redis-py's errors."""
        self.ip_address = str(self.connection.client_info().get("addr", "unknown"))

    @property
    def should_run_maintenance_tasks(self) -> bool:
        return False

    def run_maintenance_tasks(self) -> None:
        """Nothing: RQ would fail whatever it thinks abandoned. Ours is recovered from Postgres."""

    def clean_registries(self) -> None:
        """Nothing, for the same reason; this one covers intermediate queues as well."""

    def clean_group_registries(self) -> None:
        """Nothing: we have no groups."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Refused: a strand of ours takes, many at a time."""
        raise NotImplementedError("jobsched's worker has a loop of its own; see jobsched.worker.taking")

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Called on the listening thread with each message on our channel."""
        self.on_command(message)

    def subscribe(self) -> None:
        """Listen for commands on a thread. Raises redis-py's errors when the server is away."""
        self._drop_subscription()
        pubsub = self.connection.pubsub()
        pubsub.subscribe(**{self.pubsub_channel_name: self.handle_payload})
        self.pubsub = pubsub
        self.pubsub_thread = pubsub.run_in_thread(
            sleep_time=_LISTEN_SECONDS, daemon=True, exception_handler=self._pubsub_exception_handler
        )

    def listens(self) -> bool:
        """Whether the listening thread is alive; it reconnects by itself."""
        return self.pubsub_thread is not None and self.pubsub_thread.is_alive()

    def stop_listening(self) -> None:
        """End the listening thread, waiting for at most one of its turns."""
        self._stopping.set()
        if self.listens():
            self.pubsub_thread.stop()
            with suppress(RedisError, OSError):
                self.pubsub.unsubscribe()  # its confirmation ends the turn
            self.pubsub_thread.join(timeout=_LISTEN_SECONDS + 0.5)
        self._drop_subscription()

    def _drop_subscription(self) -> None:
        self.pubsub = self.pubsub_thread = None

    def _pubsub_exception_handler(self, exc: BaseException, pubsub: Any, pubsub_thread: Any) -> None:
        """Called on the listening thread: pause, let redis-py reconnect and subscribe again.

        RQ gives up on anything but a lost connection, and its worker is deaf from then on.
        """
        if not isinstance(exc, Exception):
            raise exc
        if not isinstance(exc, (RedisError, OSError)):
            get_logger(part="rq_worker").exception("rq_command_failed", exc_info=exc)
        self._stopping.wait(_PAUSE_AFTER_ERROR)

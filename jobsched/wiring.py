"""The only place that knows every concrete class: builds each process from the settings and runs it.

Imports stand inside the functions, so that a process loads what it uses: the API no libcurl, the poller no
Flask.
"""

import gc
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobsched import log
from jobsched.config import Settings
from jobsched.errors import JobschedError, NotFound
from jobsched.runtime.service import ServiceDied, run, wait_for
from jobsched.runtime.signals import StopSignal

if TYPE_CHECKING:
    from flask import Flask

    from jobsched.db.keys import Keys, Role
    from jobsched.metrics import Registry

T = TypeVar("T")

#: Seconds that a starting process waits for its servers and the schema.
WAIT_SECONDS = 60.0

#: What is said of a target that is refused.
_ONLY_PUBLIC = (
    "Callbacks reach public addresses only; an operator can allow others with JOBSCHED_ALLOW_TARGETS."
)

#: The one project there is until projects can be made.
PROJECT = 1


def run_api(settings: Settings) -> int:
    """Serve the HTTP API until a stop is asked for. Returns the exit code."""
    _configure_log(settings, "api")
    settings.need_redis_url()
    stop = StopSignal()
    stop.install()
    if not _wait_for_schema(settings, stop, "api"):
        return 0
    from jobsched.web import handover

    # gunicorn brings signal handlers of its own, and lets through what comes until they are there.
    signal.pthread_sigmask(signal.SIG_BLOCK, handover.STOP_SIGNALS)
    stop.uninstall()
    if stop.requested:
        return 0
    if (command := handover.command()) is not None:
        handover.hand_over(command, handover.handed(settings))
    from jobsched.web.server import serve

    return serve(lambda: make_app(settings), settings)


def make_handed_app(settings: bytes) -> "Flask":
    """The WSGI application with the settings that the process was handed over."""
    known: Settings = pickle.loads(settings)
    _configure_log(known, "api")
    return make_app(known)


def make_app(settings: Settings) -> "Flask":
    """The WSGI application with everything it stands on. Call it after any fork."""
    from jobsched.callback.guard import Guard
    from jobsched.db.bulk import BulkJobs
    from jobsched.db.connection import Link, open_pool
    from jobsched.db.executions import Executions
    from jobsched.db.idempotency import IdempotencyKeys
    from jobsched.db.jobs import Jobs
    from jobsched.db.keys import Keys
    from jobsched.db.migrate import check_schema
    from jobsched.db.notify import Notifier
    from jobsched.db.signing import SigningSecrets
    from jobsched.db.stats import Stats
    from jobsched.db.user_moves import UserMoves
    from jobsched.db.vault import Vault
    from jobsched.domain.targets import check_url, literal_address, parse_url
    from jobsched.errors import QueueUnavailable
    from jobsched.queue.broker import Broker
    from jobsched.queue.connection import connect
    from jobsched.web.app import create_app
    from jobsched.web.services import Services

    url = settings.need_database_url()
    # Two are left for probes.
    enough = settings.db_pool >= settings.api_threads + 2
    database = open_pool(url, "api", settings.db_pool, may_keep=enough)
    broker = Broker(connect(settings.need_redis_url(), tls_verify=settings.redis_tls_verify))
    schema_link, schema_lock = Link(url, "api-ready", statement_timeout=2.0), threading.Lock()
    guard = Guard(settings.allow_targets)

    def check_target(target: str) -> str | None:
        if (reason := check_url(target)) is not None:
            return reason
        address = literal_address(parse_url(target).host)
        reason = guard.check_address(str(address)) if address is not None else None
        return reason and f"{reason} {_ONLY_PUBLIC}"

    def check_current_schema() -> None:
        with schema_lock, schema_link.transaction() as cursor:
            check_schema(cursor)

    def rq_counts(queues: Any) -> Any:
        try:
            return broker.counts(list(queues))
        except QueueUnavailable:
            return None

    def redis_fault() -> str | None:
        try:
            broker.epoch()
        except QueueUnavailable:
            return "Redis does not answer."
        return None

    return create_app(
        Services(
            settings=settings,
            jobs=Jobs(database, settings.poll_interval),
            bulk=BulkJobs(database, settings.poll_interval),
            executions=Executions(database),
            moves=UserMoves(database),
            keys=Keys(database),
            stats=Stats(database),
            idempotency=IdempotencyKeys(database),
            signing=SigningSecrets(database, Vault(settings.secret_key)),
            check_target=check_target,
            check_schema=check_current_schema,
            wake=Notifier(url).wake,
            rq_counts=rq_counts,
            redis_fault=redis_fault,
            connection=database.connection_context,
            kept_connection=database.kept,
        )
    )


def run_poller(settings: Settings) -> int:
    """Fire, release and reconcile until a stop is asked for. Returns the exit code."""
    from jobsched import metrics
    from jobsched.poller.process import Poller
    from jobsched.queue.broker import Broker
    from jobsched.queue.connection import check_eviction_policy, connect

    _configure_log(settings, "poller")
    _arm_failpoint(settings)
    url, redis_url = settings.need_database_url(), settings.need_redis_url()
    _serve_metrics(settings, metrics.POLLER)
    stop = StopSignal()
    stop.install()
    if not _wait_for_schema(settings, stop, "poller"):
        return 0
    client = connect(redis_url, tls_verify=settings.redis_tls_verify)
    broker = Broker(client, metrics.foreign_messages.inc)
    if not wait_for(broker.epoch, WAIT_SECONDS, stop, "Redis"):
        return 0
    if (fault := check_eviction_policy(client)) is not None:
        raise JobschedError(fault)
    poller = Poller(
        url,
        broker,
        high_water=settings.queue_high_water,
        poll_interval=settings.poll_interval,
        history_days=settings.history_days,
    )
    log.get_logger().info("poller_started", poll_interval=settings.poll_interval)
    _keep_what_is_loaded()
    try:
        run(poller.services, stop)
    finally:
        poller.close()
    return 0


def run_worker(settings: Settings, name: str | None) -> int:
    """Deliver callbacks until a stop is asked for. Returns the exit code."""
    import redis

    from jobsched import metrics
    from jobsched.db.notify import Notifier
    from jobsched.queue.broker import Broker, Waker
    from jobsched.queue.connection import connect
    from jobsched.worker.process import Worker, default_name, raise_descriptor_limit

    _configure_log(settings, "worker")
    _arm_failpoint(settings)
    url, redis_url = settings.need_database_url(), settings.need_redis_url()
    raise_descriptor_limit(settings.concurrency)
    _serve_metrics(settings, metrics.WORKER)
    stop = StopSignal()
    stop.install()

    def connection() -> redis.Redis:
        return connect(redis_url, tls_verify=settings.redis_tls_verify)

    if not _wait_for_schema(settings, stop, "worker"):
        return 0
    if not wait_for(Broker(connection()).epoch, WAIT_SECONDS, stop, "Redis"):
        return 0
    notifier = Notifier(url)

    def on_retry(due_in: float) -> None:
        if due_in < settings.poll_interval:
            notifier.wake()

    check_signing_secrets(settings)
    name = name or default_name()
    waker = Waker(redis_url, settings.pools, tls_verify=settings.redis_tls_verify)
    worker = Worker(settings, connection, waker, name=name, on_retry=on_retry, on_shutdown=stop.request)
    logger = log.get_logger(worker=name)
    _keep_what_is_loaded()
    worker.begin()
    for service in worker.services:
        service.start()
    logger.info("worker_started", pools=list(settings.pools), concurrency=settings.concurrency)
    broken = None
    while not stop.event.wait(0.5):
        if (broken := worker.broken()) is not None:
            logger.error("worker_broken", thread=broken)
            break
    clean = worker.finish()
    for service in worker.services:
        service.stop(5.0)
    worker.close(clean=clean)
    waker.close()
    notifier.close()
    if broken is not None:
        raise ServiceDied(f"The thread {broken} of worker {name} has ended by itself.")
    return 0


def check_signing_secrets(settings: Settings) -> None:
    """Raise SecretsUnreadable if this process could not sign: unsigned calls are never sent."""
    from jobsched.db.connection import Link
    from jobsched.db.signing import check_readable
    from jobsched.db.vault import Vault

    link = Link(settings.need_database_url(), "worker")
    try:
        check_readable(link, Vault(settings.secret_key))
    finally:
        link.close()


def run_migrate(settings: Settings, *, restored: bool = False) -> int:
    """Bring the schema up to date; make the key that JOBSCHED_ADMIN_KEY names. Returns the exit code.

    ``restored``: the database was put back from a copy of its files, which nothing in it can tell.
    """
    from jobsched.db.connection import open_pool
    from jobsched.db.keys import ensure_admin_key
    from jobsched.db.migrate import migrate

    _configure_log(settings, "migrate")
    url = settings.need_database_url()
    stop = StopSignal()
    stop.install()
    if not wait_for(lambda: _ping(url), WAIT_SECONDS, stop, "Postgres"):
        return 0
    stop.uninstall()
    applied = migrate(url, settings.history_days, restored=restored)
    made = False
    if settings.admin_key is not None:
        database = open_pool(url, "migrate", 1)
        try:
            made = ensure_admin_key(database, settings.admin_key.get_secret_value(), PROJECT)
        finally:
            database.close_all()
    log.get_logger().info("migrated", applied=applied, admin_key_made=made)
    return 0


def run_doctor(settings: Settings, *, fix: bool, as_json: bool) -> int:
    """Look at everything this installation stands on and say what is wrong; mend it. 0 if nothing is left."""
    from jobsched.doctor import examine

    _configure_log(settings, "doctor")
    return examine(settings, fix=fix, as_json=as_json)


def run_up(
    settings: Settings,
    *,
    host: str,
    port: int,
    data_dir: Path | None,
    workers: int,
    concurrency: int | None,
) -> int:
    """Run everything on one machine, with embedded servers where no address is given."""
    from jobsched.embedded import up

    return up.run_up(
        settings, host=host, port=port, data_dir=data_dir, workers=workers, concurrency=concurrency
    )


def keys_create(settings: Settings, name: str, role: "Role") -> tuple[int, str]:
    """Make an API key straight in the database. Returns its id and the key, which is shown this once."""
    return _with_keys(settings, lambda keys: keys.create(PROJECT, name, role))


def keys_list(settings: Settings) -> list[dict[str, Any]]:
    """All keys, newest first, without their secrets."""
    from dataclasses import asdict

    return [asdict(key) for key in _with_keys(settings, lambda keys: keys.list(PROJECT))]


def keys_revoke(settings: Settings, key_id: int) -> bool:
    """Make a key worthless. False if there is none of that id."""
    try:
        _with_keys(settings, lambda keys: keys.revoke(PROJECT, key_id))
    except NotFound:
        return False
    return True


def _with_keys(settings: Settings, act: "Callable[[Keys], T]") -> T:
    from jobsched.db.connection import open_pool
    from jobsched.db.keys import Keys

    database = open_pool(settings.need_database_url(), "keys", 1)
    try:
        return act(Keys(database))
    finally:
        database.close_all()


def _wait_for_schema(settings: Settings, stop: StopSignal, process: str) -> bool:
    """Wait for Postgres and the schema of this version. False if a stop came first."""
    from jobsched.db.connection import Link
    from jobsched.db.migrate import check_schema

    link = Link(settings.need_database_url(), process)

    def check() -> None:
        with link.transaction() as cursor:
            check_schema(cursor)

    try:
        return wait_for(check, WAIT_SECONDS, stop, "Postgres and its schema")
    finally:
        link.close()


def _ping(url: str) -> None:
    from jobsched.db.connection import Link

    link = Link(url, "migrate")
    try:
        link.execute("SELECT 1")
    finally:
        link.close()


def _arm_failpoint(settings: Settings) -> None:
    if settings.failpoint is not None:
        from jobsched import failpoint

        failpoint.arm(settings.failpoint)


def _keep_what_is_loaded() -> None:
    """Let the collector never look again at what is there by now: modules, for the most part.

    Each full collection stops all threads, for 30 ms with them and for less than 1 ms without.
    """
    gc.collect()
    gc.freeze()


def _serve_metrics(settings: Settings, registry: "Registry") -> None:
    """From now to the end of the process: also while it waits for its servers, and while it stops."""
    if settings.metrics_port is not None:
        from jobsched.metrics.endpoint import Endpoint

        Endpoint(registry, settings.host, settings.metrics_port)


def _configure_log(settings: Settings, process: str) -> None:
    log.configure(json=settings.log_format == "json", level=settings.log_level, process=process)

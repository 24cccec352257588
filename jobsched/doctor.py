"""``jobsched doctor``: look at everything an installation stands on and say what is wrong and what to do."""

from collections.abc import Callable

from jobsched.config import Settings
from jobsched.db import retention
from jobsched.db.connection import Link
from jobsched.db.migrate import check_schema
from jobsched.db.signing import check_readable
from jobsched.db.vault import Vault
from jobsched.errors import JobschedError
from jobsched.queue.broker import Broker
from jobsched.queue.connection import check_eviction_policy, connect

#: An answer for a line of the report: None where all is well, else what is wrong.
Finding = str | None


def examine(settings: Settings) -> int:
    """Print one line a check. Returns 0 if all is well, else 1."""
    link = Link(settings.need_database_url(), "doctor")
    client = connect(settings.need_redis_url(), tls_verify=settings.redis_tls_verify)
    broker = Broker(client)

    def schema() -> Finding:
        with link.transaction() as cursor:
            check_schema(cursor)
        return None

    def partitions() -> Finding:
        if retention.rows_in_default(link):
            return (
                "History lies in the default partition: for some day none was made. "
                "See that a poller runs; then move the rows or wait until retention would drop them."
            )
        return None

    def redis() -> Finding:
        broker.epoch()
        return check_eviction_policy(client)

    def poller() -> Finding:
        return _living(link, "poller", "Nothing fires. Start `jobsched poller`.")

    def worker() -> Finding:
        return _living(link, "worker", "Nothing is delivered. Start `jobsched worker`.")

    def overdue() -> Finding:
        [(seconds,)] = link.execute(
            "SELECT extract(epoch FROM clock_timestamp() - min(next_execution_time))::float8 FROM job_schedule"
        )
        late = seconds or 0.0
        return f"The longest overdue schedule has waited {late:.0f} s." if late > 60 else None

    def faults() -> Finding:
        rows = link.execute(
            "SELECT job_id, fault FROM job_schedule WHERE fault IS NOT NULL ORDER BY job_id LIMIT 5"
        )
        return "; ".join(f"job {job} was set aside: {fault}" for job, fault in rows) or None

    def secrets() -> Finding:
        check_readable(link, Vault(settings.secret_key))
        return None

    checks: dict[str, Callable[[], Finding]] = {
        "Postgres and its schema": schema,
        "partitions of the history": partitions,
        "Redis": redis,
        "a poller runs": poller,
        "a worker runs": worker,
        "schedules are on time": overdue,
        "no schedule was set aside": faults,
        "signing secrets can be read": secrets,
    }
    failed = 0
    for name, check in checks.items():
        try:
            finding = check()
        except JobschedError as error:
            finding = str(error)
        failed += finding is not None
        print(f"{'ok  ' if finding is None else 'FAIL'}  {name}" + (f": {finding}" if finding else ""))
    link.close()
    return 1 if failed else 0


def _living(link: Link, kind: str, advice: str) -> Finding:
    rows = link.execute(
        "SELECT 1 FROM worker_process WHERE kind = %s AND state = 'alive' "
        "AND heartbeat_at > clock_timestamp() - interval '30 s' LIMIT 1",
        (kind,),
    )
    return None if rows else advice

"""What ``jobsched doctor`` finds, each fault made for real, and what ``--fix`` does about it."""

import contextlib
import json
import shutil
import threading
from collections import namedtuple
from datetime import timedelta

import psycopg
import pytest
from pydantic import SecretStr

from jobsched import clock
from jobsched.config import Settings
from jobsched.db import instance, mending, recovery, retention, workers
from jobsched.db.connection import Link, open_pool
from jobsched.db.signing import SigningSecrets
from jobsched.db.vault import Vault
from jobsched.doctor import examine
from jobsched.doctor.finding import Limits
from jobsched.doctor.watch import Watch
from jobsched.doctor.work import Work
from jobsched.errors import DatabaseUnavailable
from jobsched.queue.broker import Broker
from jobsched.queue.connection import connect
from jobsched.queue.health import Health
from tests.conftest import with_database
from tests.integration.factories import make_execution, make_job, make_worker

EPOCH = "e" * 16

#: Far below the real ones, so that nobody waits; what is judged by its age is back-dated.
QUICK = {"watch": 0.6, "settle": 0.3, "open": 1e6, "idle": 1e6}


class Rig:
    """An installation whose processes are rows that a thread lets beat."""

    def __init__(self, database_url, redis_url):
        self.settings = Settings(database_url=database_url, redis_url=redis_url)
        self.link = Link(database_url, "test")
        self.client = connect(redis_url)
        self.client.flushall()
        self.broker = Broker(self.client)
        self._beating = Link(database_url, "beating")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._living = []

    def lives(self, *kinds):
        """Let a process of each kind beat from now on."""
        for kind in kinds:
            id = make_worker(self.link, f"{kind}-{len(self._living)}")
            self.link.execute("UPDATE worker_process SET kind = %s WHERE id = %s", (kind, id))
            self._living.append(id)
        self._thread.start()

    def _beat(self):
        while not self._stop.wait(0.05):
            for id in self._living:
                workers.beat(self._beating, id)

    def mark(self):
        """Redis is the one that was filled."""
        self.broker.set_epoch(EPOCH)
        with self.link.transaction() as cursor:
            instance.write_epoch(cursor, EPOCH)

    def close(self):
        self._stop.set()
        if self._thread.ident:
            self._thread.join()
        for link in (self.link, self._beating):
            link.close()
        self.client.close()


@pytest.fixture
def rig(database_url, redis_url):
    rig = Rig(database_url, redis_url)
    yield rig
    rig.close()


@pytest.fixture
def look(rig, capsys):
    """Examine, and give the exit code and the findings by key."""

    def look(settings=None, *, fix=False, **limits):
        code = examine(settings or rig.settings, fix=fix, as_json=True, limits=Limits(**(QUICK | limits)))
        said = capsys.readouterr().out
        checks = json.loads(said[said.index("{\n") :])["checks"]  # after what is logged here, in tests
        return code, {one["check"]: one for one in checks}

    return look


def levels(found):
    return {key: one["level"] for key, one in found.items()}


def pending(rig, state="pending", **fields):
    return make_execution(rig.link, make_job(rig.link, due=None), state, **fields)


def test_a_healthy_installation_needs_nobody(rig, look):
    rig.lives("poller", "worker")
    rig.mark()
    code, found = look()
    assert code == 0
    assert set(levels(found).values()) <= {"ok", "info"}, found


# ------------------------------------------------------------------------------------------------ servers


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda url: url.replace("@127.0.0.1:", "@127.0.0.1:1#").partition("#")[0] + "/x",
            "connection refused",
        ),
        (lambda url: "postgresql://u:hunter2@no-such-host.invalid:5432/x", "name of the host is not known"),
        (lambda url: url.replace("jobsched:", "jobsched:hunter2"), "refuses the user or the password"),
        (lambda url: with_database(url, "no_such_database"), "no such database"),
        (lambda url: url + "?sslmode=require", "TLS fails"),
    ],
)
def test_why_postgres_cannot_be_reached_is_told_once_and_without_its_password(
    rig, look, database_url, change, reason
):
    url = change(database_url)
    code, found = look(Settings(database_url=url, redis_url=rig.settings.redis_url))
    assert code == 1
    assert reason in found["postgres"]["message"]
    assert "hunter2" not in json.dumps(found)
    by_level = levels(found)
    assert [key for key, level in by_level.items() if level == "fail"] == ["postgres"]
    assert by_level["schema"] == by_level["poller"] == by_level["step"] == "skipped"
    assert by_level["redis"] == "ok"


def test_the_address_that_cannot_be_reached_is_named(rig, look):
    _code, found = look(
        Settings(
            database_url="postgresql://u:hunter2@127.0.0.1:1/data", redis_url="redis://:hunter2@127.0.0.1:1/3"
        )
    )
    assert "127.0.0.1:1/data" in found["postgres"]["message"]
    assert "127.0.0.1:1/3" in found["redis"]["message"]
    assert "connection refused" in found["redis"]["message"]
    assert "hunter2" not in json.dumps(found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("redis://", "redis://:hunter2@"), "password"),
        (lambda url: "redis://:hunter2@no-such-host.invalid:6379/0", "host"),
        (lambda url: url.replace("redis://", "rediss://"), "TLS"),
        (lambda url: url.removesuffix("/0") + "/99999", "no such database number"),
    ],
)
def test_why_redis_cannot_be_reached_is_told_once_and_without_its_password(
    rig, look, redis_url, change, reason
):
    rig.lives("poller", "worker")
    code, found = look(Settings(database_url=rig.settings.database_url, redis_url=change(redis_url)))
    assert code == 1
    assert reason in found["redis"]["message"]
    assert "hunter2" not in json.dumps(found)
    by_level = levels(found)
    assert [key for key, level in by_level.items() if level == "fail"] == ["redis"]
    assert by_level["memory"] == by_level["step"] == "skipped"
    assert by_level["poller"] == "ok"


def test_a_schema_that_is_older_or_newer_is_told(rig, look, fresh_database_url):
    settings = Settings(database_url=fresh_database_url, redis_url=rig.settings.redis_url)
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO schema_migration SELECT (s).* FROM (SELECT jsonb_populate_record(m, "
            """'{"id": 9999, "name": "9999_of_tomorrow"}') AS s FROM schema_migration m LIMIT 1) AS t"""
        )
        _code, found = look(settings)
        assert found["schema"]["level"] == "warn"
        assert "9999_of_tomorrow" in found["schema"]["message"]
        connection.execute("DELETE FROM schema_migration WHERE name LIKE '0003%%' OR name LIKE '9999%%'")
        code, found = look(settings)
    assert (code, found["schema"]["level"], found["poller"]["level"]) == (1, "fail", "skipped")
    assert "jobsched migrate" in found["schema"]["message"]


def test_a_database_that_takes_no_writes_is_told(rig, look):
    url = rig.settings.database_url
    with psycopg.connect(url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            _code, found = look()
        finally:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert found["postgres"]["level"] == "fail"
    assert "takes no writes" in found["postgres"]["message"]


def test_connections_near_their_limit_are_told(rig, look):
    assert look(nearly=0.0)[1]["connections"]["level"] == "warn"
    assert look(nearly=0.0, full=0.0)[1]["connections"]["level"] == "fail"


def test_who_holds_a_transaction_open_is_named(rig, look):
    with psycopg.connect(rig.settings.database_url, application_name="someone's report") as reader:
        reader.execute("SELECT 1")
        _code, found = look(idle=0.0)
        pid = reader.info.backend_pid
    assert found["sessions"]["level"] == "warn"
    assert f"someone's report (pid {pid}) idle in a transaction since" in found["sessions"]["message"]
    with psycopg.connect(rig.settings.database_url, application_name="long") as reader:
        reader.execute("SELECT 1")
        assert "long" in look(open=0.0)[1]["sessions"]["message"]


@contextlib.contextmanager
def configured(client, **settings):
    before = {name: client.config_get(name)[name] for name in settings}
    for name, value in settings.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


def test_a_redis_that_forgets_or_is_full_is_told(rig, look):
    with configured(rig.client, **{"maxmemory-policy": "allkeys-lru"}):
        assert look()[1]["eviction"]["level"] == "fail"
    used = rig.client.info("memory")["used_memory"]
    with configured(rig.client, maxmemory=int(used * 1.1)):
        found = look()[1]["memory"]
    assert found["level"] in {"warn", "fail"}
    assert "of its maxmemory" in found["message"]


def test_a_redis_that_is_a_replica_is_told(rig, look):
    rig.client.replicaof("127.0.0.1", 1)
    try:
        _code, found = look()
    finally:
        rig.client.replicaof("NO", "ONE")
    assert found["redis"]["level"] == "fail"
    assert "replica" in found["redis"]["message"]


def test_a_clock_that_is_off_is_told_for_both_servers(rig, look, monkeypatch):
    true = clock.utc_now
    monkeypatch.setattr(clock, "utc_now", lambda: true() - timedelta(seconds=40))
    _code, found = look()
    assert "40 s behind Postgres" in found["clock"]["message"]
    assert "40 s behind Redis" in found["redis_clock"]["message"]
    assert (found["clock"]["level"], found["redis_clock"]["level"]) == ("warn", "warn")


def test_a_disk_that_is_nearly_full_is_told_and_one_elsewhere_is_not_guessed(
    rig, look, monkeypatch, tmp_path
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(100 * 2**30, 99 * 2**30, 2**30))
    (tmp_path / "database-url").write_text(f"{rig.settings.database_url}\n")
    ours = rig.settings.model_copy(update={"data_dir": tmp_path})
    found = look(ours)[1]["disk"]
    assert found["level"] == "fail"
    assert str(tmp_path) in found["message"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(100 * 2**30, 92 * 2**30, 8 * 2**30))
    assert look(ours)[1]["disk"]["level"] == "warn"

    found = look(Settings(database_url="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1/0"))[1][
        "disk"
    ]
    assert found["level"] == "info"
    assert "Not known from here" in found["message"]


def test_secrets_that_cannot_be_read_are_told(rig, look, database_url):
    pool = open_pool(database_url, "test", 1)
    try:
        SigningSecrets(pool, Vault(SecretStr("k" * 32))).active(1)
    finally:
        pool.close_all()
    found = look()[1]["secrets"]
    assert found["level"] == "fail"
    assert "JOBSCHED_SECRET_KEY" in found["message"]


# --------------------------------------------------------------------------------------------------- work


def test_nobody_at_work_is_told(rig, look):
    code, found = look()
    assert (code, found["poller"]["level"], found["worker"]["level"]) == (1, "fail", "fail")
    assert "Nothing fires" in found["poller"]["message"]
    assert "Nothing is delivered" in found["worker"]["message"]


def test_a_process_whose_counter_stands_still_is_told_by_name(rig, look):
    make_worker(rig.link, "frozen-worker")
    frozen = make_worker(rig.link, "frozen-poller")
    rig.link.execute("UPDATE worker_process SET kind = 'poller' WHERE id = %s", (frozen,))
    rig.lives("worker")
    _code, found = look()
    assert found["worker"]["level"] == "warn"
    assert "frozen-worker" in found["worker"]["message"]
    assert found["poller"]["level"] == "fail"
    assert "frozen-poller" in found["poller"]["message"]


def test_a_poller_that_beats_and_does_not_fire_is_told(rig, look):
    rig.lives("poller", "worker")
    job = make_job(rig.link, due="clock_timestamp() - interval '45 s'")
    code, found = look()
    assert (code, found["on_time"]["level"], found["poller"]["level"]) == (1, "fail", "ok")
    assert f"Job {job} has been due for 45 s" in found["on_time"]["message"]


def test_work_in_a_pool_without_worker_is_told(rig, look):
    rig.lives("poller", "worker")
    old = "clock_timestamp() - interval '20 s'"
    pending(rig, pool="'eu'", queue="'eu.high'", due_at=old)
    pending(rig, due_at=old)
    found = look()[1]["pools"]
    assert found["level"] == "fail"
    assert "eu (1 execution for 20 s)" in found["message"]
    assert "jobsched worker --pool eu" in found["message"]
    assert "default" not in found["message"]


def test_what_waits_for_long_is_told(rig, look):
    pending(rig, due_at="clock_timestamp() - interval '190 s'")
    found = look()[1]["waits"]
    assert found["level"] == "warn"
    assert "1 execution due in pool default and not started, the oldest for 3 min" in found["message"]


def test_dead_letters_and_rows_of_dead_processes_are_no_trouble_and_rows_are_buried(rig, look):
    rig.lives("poller", "worker")
    rig.mark()
    job = make_job(rig.link, due=None)
    rig.link.execute(
        "INSERT INTO dead_letter (id, project_id, job_id, trigger, scheduled_for, attempt, retry_count, queue, "
        "failed_at) VALUES (1, 1, %s, 'manual', now(), 1, 0, 'default', '2026-01-02')",
        (job,),
    )
    dead, busy = make_worker(rig.link, "dead"), make_worker(rig.link, "dead-but-owning")
    rig.link.execute("UPDATE worker_process SET state = 'dead' WHERE id = ANY(%s)", ([dead, busy],))
    make_execution(rig.link, job, "running", worker_id=f"'{busy}'")
    code, found = look()
    assert code == 0
    assert (found["dead_letters"]["level"], found["dead_processes"]["level"]) == ("info", "info")
    assert found["dead_letters"]["message"].startswith("1, the oldest of 2026-01-02")
    code, found = look(fix=True)
    assert (found["dead_processes"]["level"], found["dead_processes"]["done"]) == ("fixed", "removed 1 row")
    assert rig.link.execute("SELECT name FROM worker_process WHERE state = 'dead'") == [("dead-but-owning",)]


def test_a_job_that_was_set_aside_is_told_and_tried_again(rig, look):
    job = make_job(rig.link, due="clock_timestamp() + interval '50 min'", slot="clock_timestamp()")
    paused = make_job(rig.link, due=None)
    rig.link.execute(
        "UPDATE job_schedule SET fault = 'no such zone' WHERE job_id = ANY(%s)", ([job, paused],)
    )
    found = look()[1]["jobs_aside"]
    assert found["level"] == "warn"
    assert f"job {job}: no such zone" in found["message"]
    assert str(paused) not in found["message"]
    found = look(fix=True)[1]["jobs_aside"]
    assert found["done"] == "asked the pollers to try 1 job again now"
    due = "SELECT job_id FROM job_schedule WHERE next_execution_time <= clock_timestamp()"
    assert rig.link.execute(due) == [(job,)]
    assert rig.link.execute("SELECT count(*) FROM execution") == [(0,)]


def test_an_execution_that_was_set_aside_is_told_and_tried_again(rig, look):
    later = "clock_timestamp() + interval '50 min'"
    aside = pending(rig, due_at=later)
    retrying = pending(rig, "retrying", due_at=later)
    spread = pending(rig, due_at=later, trigger="'redrive'")
    found = look()[1]["aside"]
    assert found["level"] == "warn"
    assert str(aside) in found["message"]
    found = look(fix=True)[1]["aside"]
    assert (found["level"], found["done"]) == ("fixed", "asked the pollers to look at 1 execution again now")
    assert rig.link.execute("SELECT id FROM execution WHERE due_at > clock_timestamp() ORDER BY id") == [
        (retrying,),
        (spread,),
    ]


# --------------------------------------------------------------------------------------- queue and database


def test_messages_that_are_lost_are_told_and_pushed_again_and_those_on_their_way_are_not(rig, look):
    rig.lives("poller", "worker")
    rig.mark()
    old = "clock_timestamp() - interval '30 s'"
    there = pending(rig, "queued", queued_at=old)
    lost = pending(rig, "queued", queued_at=old)
    young = pending(rig, "queued")
    rig.broker.push([("default", there)])
    code, found = look()
    assert (code, found["step"]["level"]) == (1, "warn")
    assert f"1 execution is queued and not in Redis: {lost}." in found["step"]["message"]
    code, found = look(fix=True)
    assert (code, found["step"]["level"], found["step"]["done"]) == (0, "fixed", "pushed 1 execution again")
    assert rig.broker.take(["default"], 10) == [there, lost]
    states = rig.link.execute(
        "SELECT id, state, queued_at > clock_timestamp() - interval '9 s' FROM execution"
    )
    assert sorted(states) == [(there, "queued", False), (lost, "queued", True), (young, "queued", True)]


def test_a_message_that_arrives_while_the_doctor_watches_is_not_called_lost(rig, look):
    rig.mark()
    late = pending(rig, "queued", queued_at="clock_timestamp() - interval '30 s'")
    make_worker(rig.link, "still")  # so that the doctor watches to the end
    pushing = threading.Timer(0.2, lambda: rig.broker.push([("default", late)]))
    pushing.start()
    found = look()[1]["step"]
    pushing.join()
    assert found["level"] == "ok"


def test_entries_that_no_execution_knows_are_told_and_removed_and_neighbours_of_other_programs_left_alone(
    rig, look
):
    rig.lives("poller", "worker")
    rig.mark()
    queued = pending(rig, "queued")
    running = make_execution(
        rig.link, make_job(rig.link, due=None), "running", worker_id=f"'{make_worker(rig.link)}'"
    )
    rig.broker.push([("default", running), ("default", queued), ("default", 10**12)])
    rig.client.rpush("rq:queue:default", "b7f0-foreign", b"\xff\x00", "0", "9" * 5000)
    rig.client.rpush("rq:queue:of-another-program", "b7f0-foreign")
    found = look()[1]["step"]
    assert found["level"] == "warn"
    assert "6 entries in default no execution knows" in found["message"]
    found = look(fix=True)[1]["step"]
    assert (found["level"], found["done"]) == ("fixed", "removed 6 of the entries")
    assert rig.client.lrange("rq:queue:default", 0, -1) == [str(queued).encode()]
    assert rig.client.llen("rq:queue:of-another-program") == 1
    assert rig.link.execute("SELECT state FROM execution WHERE id = %s", (running,)) == [("running",)]


def test_another_redis_than_the_one_that_was_filled_is_told(rig, look):
    rig.mark()
    rig.broker.set_epoch("f" * 16)
    found = look()[1]["step"]
    assert found["level"] == "warn"
    assert "emptied or replaced" in found["message"]


def test_what_the_doctor_pushes_again_is_claimed_once(rig, look):
    rig.mark()
    lost = pending(rig, "queued", queued_at="clock_timestamp() - interval '30 s'")
    look(fix=True)
    # A poller that finds it too pushes the same id; the row is what counts.
    rig.link.execute("UPDATE execution SET queued_at = queued_at - interval '30 s'")
    rig.broker.push([("default", i) for i in recovery.requeue_lost(rig.link, "default", None)])
    assert rig.broker.take(["default"], 10) == [lost, lost]
    assert rig.link.execute("SELECT count(*) FROM execution") == [(1,)]


def test_nothing_is_judged_by_one_look_where_the_first_has_failed(rig):
    queue = Health(rig.client)
    make_worker(rig.link, "still")
    watch = Watch(rig.link, rig.broker, queue, 0.5, 20.0)
    rig.link.execute("ALTER TABLE worker_process RENAME TO elsewhere")
    watch.begin()
    rig.link.execute("ALTER TABLE elsewhere RENAME TO worker_process")
    rig.broker.push([("default", 10**12)])
    taking = threading.Timer(0.2, lambda: rig.broker.take(["default"], 10))
    taking.start()
    assert watch.out_of_step().unknown == {}
    taking.join()
    watch.wait()
    assert [one.name for one in watch.still] == ["still"]


def test_an_id_that_was_queued_elsewhere_meanwhile_is_pushed_to_the_queue_of_its_row(rig):
    queue = Health(rig.client)
    watch = Watch(rig.link, rig.broker, queue, 0.0, 20.0)
    work = Work(rig.link, rig.broker, queue, watch, Limits(), 30)
    [step] = [check for check in work.checks() if check.key == "step"]
    id = pending(rig)
    rig.broker.push([("default", id)])
    assert step.look().level == "warn"
    rig.link.execute("UPDATE execution SET state = 'queued', queued_at = now(), queue = 'default.high'")
    step.fix()
    assert (queue.entries("default"), queue.entries("default.high")) == ([], [str(id)])


def test_what_is_removed_from_a_long_list_never_holds_redis_up_for_long(rig):
    key, length = "rq:queue:default", 300_000
    rig.client.rpush(key, *range(1, length + 1))
    rig.client.config_resetstat()
    unknown = [str(length - n) for n in range(9)]
    before = rig.client.info("commandstats")
    assert Health(rig.client).drop("default", unknown) == 9
    stats = rig.client.info("commandstats")
    assert "cmdstat_llen" not in before
    assert (stats["cmdstat_lrem"]["calls"], stats["cmdstat_llen"]["calls"]) == (9, 3)
    assert rig.client.llen(key) == length - 9


def test_sequences_behind_their_tables_are_told_and_put_ahead(rig, look):
    job = make_job(rig.link, due=None)
    rig.link.execute("SELECT setval(pg_get_serial_sequence('job', 'id'), 1, false)")
    finished(rig.link, "2026-01-02", 5000)
    rig.link.execute("SELECT setval('execution_id_seq', 5000, false)")
    found = look()[1]["sequences"]
    assert found["level"] == "fail"
    assert "execution_id_seq (ids up to 5000 are taken)" in found["message"]
    assert f"job_id_seq (ids up to {job} are taken)" in found["message"]
    found = look(fix=True)[1]["sequences"]
    assert (found["level"], found["done"]) == ("fixed", "put execution_id_seq, job_id_seq ahead")
    assert make_execution(rig.link, make_job(rig.link, due=None), "pending") > 5000
    rig.link.execute("SELECT setval('execution_id_seq', 900000)")
    assert look(fix=True)[1]["sequences"]["level"] == "ok"
    assert rig.link.execute("SELECT nextval('execution_id_seq')") == [(900001,)]


# ------------------------------------------------------------------------------------------------ history


def finished(link, at, id):
    link.execute(
        "INSERT INTO execution_history (id, project_id, job_id, trigger, scheduled_for, state, attempt, retry_count, "
        "max_retry_count, attempts, finished_at) VALUES (%s, 1, 1, 'manual', now(), 'succeeded', 1, 0, 0, '[]', %s)",
        (id, at),
    )


@pytest.fixture
def own(rig, fresh_database_url):
    """Settings and a link of a database whose schema this test may change."""
    link = Link(fresh_database_url, "test")
    yield Settings(database_url=fresh_database_url, redis_url=rig.settings.redis_url), link
    link.close()


def test_history_in_the_default_partition_is_told_and_moved_in_batches(own, look, monkeypatch):
    monkeypatch.setattr(mending, "BATCH", 3)
    settings, link = own
    for n in range(10):
        finished(link, f"2026-01-0{1 + n % 2} 1{n}:00Z", 100 + n)
    finished(link, "2026-01-02T00:00Z", 110)
    rows = link.execute("SELECT * FROM execution_history ORDER BY id")
    found = look(settings)[1]["default"]
    assert found["level"] == "warn"
    assert found["message"].startswith("11 rows of 2026-01-01, 2026-01-02")
    found = look(settings, fix=True)[1]["default"]
    assert (found["level"], found["done"]) == (
        "fixed",
        "moved 11 rows to partitions of 2026-01-01, 2026-01-02",
    )
    assert link.execute("SELECT * FROM execution_history ORDER BY id") == rows
    assert link.execute("SELECT count(*) FROM execution_history_default") == [(0,)]
    assert link.execute("SELECT count(*) FROM execution_history_20260102_20260103") == [(6,)]
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = %s"
    like = link.execute(indexes, ("execution_history_default",))
    assert link.execute(indexes, ("execution_history_20260101_20260102",)) == like
    # Retention knows them as its own.
    assert retention.maintain(link, history_days=30) == (0, 2)


def test_rows_that_come_while_history_is_moved_are_not_lost(own, monkeypatch):
    _settings, link = own
    for n in range(5):
        finished(link, "2026-01-01T12:00Z", 100 + n)
    attach = mending._attach
    late = Link(_settings.database_url, "late")

    def attach_later(*arguments):
        finished(late, "2026-01-01T12:00Z", 50)
        return attach(*arguments)

    monkeypatch.setattr(mending, "_attach", attach_later)
    assert mending.move_out_of_default(link, clock.utc_now().replace(year=2026, month=1, day=1).date()) == 6
    late.close()
    assert link.execute("SELECT count(*), count(DISTINCT id) FROM execution_history_20260101_20260102") == [
        (6, 6)
    ]


def test_moving_that_was_cut_off_is_begun_again_and_one_that_cannot_have_its_lock_changes_nothing(own):
    from jobsched.db import mending

    settings, link = own
    day = clock.utc_now().replace(year=2026, month=1, day=1).date()
    finished(link, "2026-01-01T12:00Z", 100)
    mending._prepare(link)
    mending._copy_batch(link, day, 0)
    with psycopg.connect(settings.database_url) as reader:
        reader.execute("LOCK TABLE execution_history_default IN SHARE MODE")
        with pytest.raises(DatabaseUnavailable, match="try again later"):
            mending.move_out_of_default(link, day)
    assert link.execute("SELECT id FROM execution_history") == [(100,)]
    assert mending.move_out_of_default(link, day) == 1
    assert link.execute("SELECT id FROM execution_history") == [(100,)]


def test_partitions_that_are_missing_are_told_and_made(own, look):
    settings, link = own
    [(name,)] = link.execute(
        "SELECT relname FROM pg_class WHERE relname ~ '^execution_history_[0-9]{8}_' AND relkind = 'r' "
        "ORDER BY relname DESC LIMIT 1"
    )
    link.execute(f"DROP TABLE {name}")
    [(today,)] = link.execute(
        "SELECT 'execution_history_' || to_char(current_date, 'YYYYMMDD_') || to_char(current_date + 1, 'YYYYMMDD')"
    )
    link.execute(f"DROP TABLE {today}")
    finished(link, clock.utc_now(), 7)
    _code, found = look(settings)
    assert (found["partitions"]["level"], found["default"]["level"]) == ("warn", "warn")
    assert found["partitions"]["message"].startswith("2 partitions")
    _code, found = look(settings, fix=True)
    # The rows first: a partition cannot be made while they are in its way.
    assert found["default"]["done"].startswith("moved 1 row")
    assert (found["partitions"]["level"], found["partitions"]["done"]) == ("fixed", "made 1 partition")
    assert look(settings)[1]["partitions"]["level"] == "ok"

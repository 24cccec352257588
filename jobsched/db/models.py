"""The tables as Peewee models: columns only.

The API's reads and writes of definitions go through these; every move of an execution is SQL in
jobsched/db/claims.py and its neighbours. The models are bound to a database by jobsched/db/connection.py.
"""

from typing import Any

from peewee import (
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    DoubleField,
    Field,
    FloatField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
    UUIDField,
    Value,
)
from psycopg.types.json import Json

from jobsched.domain.json_text import compact

__all__ = [
    "MODELS",
    "ApiKey",
    "DeadLetter",
    "Execution",
    "History",
    "Job",
    "JobLast",
    "JobSchedule",
    "WorkerProcess",
]


class TimestampField(Field):
    """``timestamptz``: an aware datetime, in UTC."""

    field_type = "TIMESTAMPTZ"


class JsonField(Field):
    """``json`` or ``jsonb``: written as JSON text, read as the value. The order of keys stays."""

    field_type = "JSON"

    def db_value(self, value: Any) -> Any:
        return value if value is None else Json(value, dumps=compact)


class TextArrayField(Field):
    """``text[]``: a list of strings."""

    field_type = "TEXT[]"

    def db_value(self, value: Any) -> Any:
        return value if value is None else Value(list(value), unpack=False)


class Job(Model):
    """What a user registered. A run never changes it; ``version`` counts edits."""

    id = BigAutoField()
    project_id = BigIntegerField()
    key = TextField(null=True)
    name = TextField(null=True)
    description = TextField(null=True)
    schedule = TextField()
    timezone = TextField()
    is_recurring = BooleanField()
    is_active = BooleanField()
    api = TextField()
    method = TextField()
    headers = JsonField()
    secret_headers = TextArrayField()
    payload = JsonField(null=True)
    type = TextField()
    max_retry_count = IntegerField()
    min_backoff_seconds = DoubleField()
    max_backoff_seconds = DoubleField()
    backoff_factor = DoubleField()
    backoff_jitter = DoubleField()
    timeout_seconds = DoubleField()
    success_status = TextArrayField()
    no_retry_status = TextArrayField()
    follow_redirects = BooleanField()
    misfire_policy = TextField()
    misfire_grace_seconds = DoubleField()
    overlap_policy = TextField()
    priority = SmallIntegerField()
    pool = TextField()
    tags = TextArrayField()
    start_at = TimestampField(null=True)
    end_at = TimestampField(null=True)
    max_runs = IntegerField(null=True)
    jitter_seconds = DoubleField()
    version = IntegerField()
    created_at = TimestampField()
    updated_at = TimestampField()
    deleted_at = TimestampField(null=True)


class JobSchedule(Model):
    """When a job is due; also the job's lock (taken first by everything that decides about the job)."""

    job_id = BigIntegerField(primary_key=True)
    next_slot = TimestampField(null=True)
    next_execution_time = TimestampField(null=True)
    last_slot = TimestampField(null=True)
    anchor = TimestampField()
    runs = IntegerField()
    fault = TextField(null=True)

    class Meta:
        table_name = "job_schedule"


class JobLast(Model):
    """How a job's newest finished execution ended."""

    job_id = BigIntegerField(primary_key=True)
    last_execution_time = TimestampField()
    last_state = TextField()

    class Meta:
        table_name = "job_last"


class Execution(Model):
    """A live execution."""

    id = BigAutoField()
    project_id = BigIntegerField()
    job_id = BigIntegerField()
    trigger = TextField()
    scheduled_for = TimestampField()
    due_at = TimestampField()
    state = TextField()
    attempt = IntegerField()
    retry_count = IntegerField()
    lost = IntegerField()
    priority = SmallIntegerField()
    pool = TextField()
    queue = TextField()
    force = BooleanField()
    payload = JsonField(null=True)
    worker_id = UUIDField(null=True)
    queued_at = TimestampField(null=True)
    started_at = TimestampField(null=True)
    deadline_at = TimestampField(null=True)
    type = TextField(null=True)
    job_version = IntegerField(null=True)
    cancel_requested_at = TimestampField(null=True)
    redrive_of = BigIntegerField(null=True)
    redrive_id = BigIntegerField(null=True)
    attempts = JsonField()


class History(Model):
    """A finished execution. Partitioned by day of ``finished_at``; bodies are bytes as they came."""

    id = BigIntegerField()
    project_id = BigIntegerField()
    job_id = BigIntegerField()
    trigger = TextField()
    scheduled_for = TimestampField()
    due_at = TimestampField(null=True)
    queued_at = TimestampField(null=True)
    started_at = TimestampField(null=True)
    finished_at = TimestampField()
    state = TextField()
    attempt = IntegerField()
    retry_count = IntegerField()
    max_retry_count = IntegerField()
    duration_ms = FloatField(null=True)
    worker = TextField(null=True)
    response_status = IntegerField(null=True)
    response_headers = JsonField(null=True)
    response_body = BlobField(null=True)
    response_truncated = BooleanField()
    error_code = TextField(null=True)
    error_message = TextField(null=True)
    phases = JsonField(null=True)
    attempts = JsonField()
    job_version = IntegerField(null=True)
    skipped_count = IntegerField(null=True)
    redrive_of = BigIntegerField(null=True)

    class Meta:
        table_name = "execution_history"
        primary_key = CompositeKey("id", "finished_at")


class DeadLetter(Model):
    """An execution that failed for good, with all that a redrive needs. ``id`` is the execution's."""

    id = BigIntegerField(primary_key=True)
    project_id = BigIntegerField()
    job_id = BigIntegerField()
    trigger = TextField()
    scheduled_for = TimestampField()
    payload = JsonField(null=True)
    attempt = IntegerField()
    retry_count = IntegerField()
    response_status = IntegerField(null=True)
    error_code = TextField(null=True)
    error_message = TextField(null=True)
    last_attempt = JsonField(null=True)
    queue = TextField()
    failed_at = TimestampField()

    class Meta:
        table_name = "dead_letter"


class ApiKey(Model):
    """An API key. Only the hash of its secret is kept."""

    id = BigAutoField()
    project_id = BigIntegerField()
    name = CharField()
    role = CharField()
    secret_hash = BlobField()
    created_at = TimestampField()
    last_used_at = TimestampField(null=True)
    revoked_at = TimestampField(null=True)

    class Meta:
        table_name = "api_key"


class WorkerProcess(Model):
    """A worker or poller process that is or was alive."""

    id = UUIDField(primary_key=True)
    kind = TextField()
    name = TextField()
    host = TextField()
    pid = IntegerField()
    pools = TextArrayField()
    concurrency = IntegerField()
    in_flight = IntegerField()
    beat = BigIntegerField()
    state = TextField()
    lag_seconds = DoubleField(null=True)
    started_at = TimestampField()
    heartbeat_at = TimestampField()

    class Meta:
        table_name = "worker_process"


MODELS = (Job, JobSchedule, JobLast, Execution, History, DeadLetter, ApiKey, WorkerProcess)

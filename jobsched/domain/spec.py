"""What a job is, and how the JSON of a request becomes one.

``JobSpec`` is the definition as everything inside jobsched uses it. The functions here read a request's JSON
strictly (no ``"5"`` for 5, no unknown field), collect every fault with its RFC 6901 pointer and raise
``InvalidInput`` with all of them. Fields and ranges are in jobsched/domain/spec_fields.py, the other rules in
jobsched/domain/spec_rules.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from jobsched.clock import rfc3339
from jobsched.domain import spec_rules as rules
from jobsched.domain.json_text import compact, pointer
from jobsched.domain.schedule import Schedule, is_zone, parse_schedule
from jobsched.domain.spec_fields import JobCreate, JobPatch
from jobsched.domain.spec_rules import MASK, is_secret
from jobsched.domain.targets import check_url
from jobsched.domain.validation import checked_object, faults_of, field_names
from jobsched.errors import Fault, InvalidInput, InvalidSchedule

__all__ = [
    "DEFINITION",
    "MASK",
    "READ_ONLY",
    "CheckTarget",
    "JobCreate",
    "JobPatch",
    "JobSpec",
    "apply_merge",
    "apply_replace",
    "definition_json",
    "is_secret",
    "parse_job_create",
    "read_with_key",
    "spec_json",
]

#: Why a URL's literal address is refused, or None. Needs the configured allow list, so it is passed in.
CheckTarget = Callable[[str], str | None]

#: Fields of a job that only the server writes.
READ_ONLY = (
    "id",
    "nextExecutionTime",
    "lastExecutionTime",
    "lastState",
    "createdAt",
    "updatedAt",
    "version",
)

_KNOWN = (*field_names(JobCreate), *READ_ONLY)
#: The fields of JobSpec in the order in which answers show them.
DEFINITION = tuple(JobCreate.model_fields)
_SHOWN_NAMES = tuple(field.alias or name for name, field in JobCreate.model_fields.items())
_VALUES = attrgetter(*DEFINITION)
# Stand in for required fields that are faulty, so that the others are looked at all the same.
_PLACEHOLDERS = {"schedule": "@daily", "api": "http://placeholder.invalid/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The definition of a job, checked. Instants are aware, in UTC; ``payload`` None means no body."""

    schedule: str
    api: str
    is_recurring: bool
    key: str | None = None
    name: str | None = None
    description: str | None = None
    timezone: str = "UTC"
    is_active: bool = True
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: tuple[str, ...] = ()
    payload: Any = None
    type: str = "AT_LEAST_ONCE"
    max_retry_count: int = 3
    min_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 3600.0
    backoff_factor: float = 2.0
    backoff_jitter: float = 0.1
    timeout_seconds: float = 30.0
    success_status: tuple[str, ...] = ("200-299",)
    no_retry_status: tuple[str, ...] = ()
    follow_redirects: bool = False
    misfire_policy: str = "fire_once"
    misfire_grace_seconds: float = 60.0
    overlap_policy: str = "allow"
    priority: int = 5
    pool: str = "default"
    tags: tuple[str, ...] = ()
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    jitter_seconds: float = 0.0


def _shown_names(kind: object) -> tuple[str, ...]:
    """The names in JSON of JobSpec's fields of a type."""
    fields = JobSpec.__dataclass_fields__
    return tuple(
        shown for name, shown in zip(DEFINITION, _SHOWN_NAMES, strict=True) if fields[name].type == kind
    )


# What JSON shows otherwise than it is; of the others there are three times as many.
_NUMBERS = _shown_names(float)
_INSTANTS = _shown_names(datetime | None)
_ARRAYS = _shown_names(tuple[str, ...])


def parse_job_create(body: object, *, check_target: CheckTarget, suggest: bool = True) -> JobSpec:
    """The job that a POST describes. Raises InvalidInput with every fault found.

    Without ``suggest`` no near name is looked for where a field or a time zone is unknown, which takes up to 3 ms.
    """
    document = checked_object(body)
    faults = [Fault(pointer(name), "is set by the server") for name in READ_ONLY if name in document]
    return _read(_without_read_only(document), faults, None, check_target, _KNOWN if suggest else ())


def apply_replace(
    current: JobSpec, read_only: Mapping[str, Any], body: object, *, check_target: CheckTarget
) -> JobSpec:
    """The job that a PUT describes: what the body leaves out becomes the default.

    ``read_only`` holds the present values of READ_ONLY as answers show them; a body may repeat them.
    A secret header sent as ``"***"`` keeps its stored value. Raises InvalidInput.
    """
    document = checked_object(body)
    faults = _changed_read_only(document, read_only)
    return _read(_without_read_only(document), faults, current, check_target)


def read_with_key(body: object, key: str, read: Callable[[object], JobSpec]) -> JobSpec:
    """What ``read`` makes of ``body`` with ``key``, which the body may leave out or null. Raises InvalidInput."""
    if not isinstance(body, dict):
        return read(body)
    if body.get("key") in (None, key):
        return read({**body, "key": key})
    fault = Fault("/key", f"must be left out or {key!r}, the key in the path")
    try:
        read({**body, "key": key})
    except InvalidInput as error:
        raise InvalidInput([fault, *error.faults], str(error.args[0])) from None
    raise InvalidInput([fault], "The job is not valid.")


def apply_merge(
    current: JobSpec, read_only: Mapping[str, Any], patch: object, *, check_target: CheckTarget
) -> JobSpec:
    """``current`` with a PATCH applied (RFC 7396; ``payload`` and ``headers`` are replaced whole).

    ``read_only`` as for ``apply_replace``. A patch that changes the kind of schedule and leaves ``isRecurring``
    out gets what the new schedule does by itself. Raises InvalidInput.
    """
    changes = checked_object(patch)
    faults = _changed_read_only(changes, read_only)
    merged = spec_json(current)
    if "schedule" in changes and "isRecurring" not in changes:
        # What the user once asked for holds only between schedules that can recur.
        if _recurs(current.schedule, current.timezone) and _recurs(changes["schedule"], current.timezone):
            merged["isRecurring"] = current.is_recurring
        else:
            del merged["isRecurring"]
    for name, value in _without_read_only(changes).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return _read(merged, faults, current, check_target)


def spec_json(spec: JobSpec) -> dict[str, Any]:
    """The definition as answers show it: camelCase, instants as RFC 3339, secret headers as ``"***"``."""
    return definition_json(_VALUES(spec))


def definition_json(values: Iterable[Any]) -> dict[str, Any]:
    """As ``spec_json``, of the values of DEFINITION. Arrays may be lists, and instants the text already."""
    shown = dict(zip(_SHOWN_NAMES, values, strict=True))
    for name in _NUMBERS:
        if (value := shown[name]).is_integer():
            shown[name] = int(value)
    for name in _INSTANTS:
        if isinstance(value := shown[name], datetime):
            shown[name] = rfc3339(value)
    for name in _ARRAYS:
        shown[name] = list(shown[name])
    if shown["headers"]:
        shown["headers"] = {
            name: MASK if is_secret(name, shown["secretHeaders"]) else value
            for name, value in shown["headers"].items()
        }
    return shown


def _without_read_only(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in READ_ONLY}


def _changed_read_only(document: Mapping[str, Any], present: Mapping[str, Any]) -> list[Fault]:
    return [
        Fault(
            pointer(name),
            f"is set by the server; leave it out or send its present value, {compact(present.get(name))}",
        )
        for name in READ_ONLY
        if name in document and not _same(document[name], present.get(name))
    ]


def _same(sent: Any, present: Any) -> bool:
    return type(sent) is type(present) and bool(sent == present)


def _recurs(schedule: Any, timezone: str) -> bool:
    try:
        return isinstance(schedule, str) and parse_schedule(schedule, timezone).recurring
    except InvalidSchedule:
        return True


def _read(
    document: Mapping[str, Any],
    faults: list[Fault],
    current: JobSpec | None,
    check_target: CheckTarget,
    known: Sequence[str] = _KNOWN,
) -> JobSpec:
    job, bad = _fields(document, faults, known)
    schedule = _schedule(job, bad, faults, suggest=bool(known))
    recurring = schedule.recurring if schedule else True
    if schedule and "isRecurring" not in bad:
        recurring, found = rules.recurrence(job.is_recurring, schedule)
        faults += found
    if schedule and "jitterSeconds" not in bad:
        faults += rules.jitter_faults(job.jitter_seconds, schedule)
    if "api" not in bad:
        faults += _target_faults(job.api, current, check_target)
    headers = job.headers
    if not bad & {"headers", "secretHeaders"}:
        stored = (current.headers, current.secret_headers) if current else ({}, ())
        headers, found = rules.unmask(job.headers, job.secret_headers, *stored)
        faults += found
        faults += rules.header_faults(headers)
    if not bad & {"payload", "method"}:
        faults += rules.payload_faults(job)
    start_at = rules.read_bound("startAt", job.start_at, job.timezone, faults)
    end_at = rules.read_bound("endAt", job.end_at, job.timezone, faults)
    if start_at and end_at and end_at < start_at:
        faults.append(Fault("/endAt", "is before startAt"))
    if faults:
        raise InvalidInput(faults, "The job is not valid.")
    values = job.__dict__ | {
        "headers": headers,
        "is_recurring": recurring,
        "start_at": start_at,
        "end_at": end_at,
    }
    for name in ("secret_headers", "success_status", "no_retry_status", "tags"):
        values[name] = tuple(values[name])
    return JobSpec(**values)


def _fields(
    document: Mapping[str, Any], faults: list[Fault], known: Sequence[str]
) -> tuple[JobCreate, set[str]]:
    """The fields, and the names of those that are faulty and stand at a placeholder or their default."""
    try:
        return JobCreate.model_validate(document), set()
    except ValidationError as error:
        faults += faults_of(error, known)
        bad = {str(detail["loc"][0]) for detail in error.errors(include_url=False, include_input=False)}
    good = {name: value for name, value in document.items() if name not in bad}
    return JobCreate.model_validate(_PLACEHOLDERS | good), bad


def _schedule(job: JobCreate, bad: set[str], faults: list[Fault], *, suggest: bool) -> Schedule | None:
    if "timezone" in bad:
        return None
    if not suggest and not is_zone(job.timezone):
        faults.append(Fault("/timezone", "is not a known time zone"))
        return None
    try:
        # With a placeholder for the schedule this still tells whether the zone is known.
        schedule = parse_schedule(job.schedule, job.timezone)
    except InvalidSchedule as error:
        faults += error.faults
        return None
    return None if "schedule" in bad else schedule


def _target_faults(api: str, current: JobSpec | None, check_target: CheckTarget) -> list[Fault]:
    if reason := check_url(api):
        return [Fault("/api", reason)]
    # What is stored was checked when it was; an allow list that shrank since is enforced at the call.
    if (current is None or api != current.api) and (reason := check_target(api)):
        return [Fault("/api", reason)]
    return []

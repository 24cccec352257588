"""Many jobs at once: each by the rules of a single one, most of them without asking every rule anew.

In a bulk, jobs mostly differ in a few fields (``OWN``) and share the rest, their policies. The shared part is read
once by the usual way, under its text as the name; then only the own fields are looked at, by checks that let through
a part of what the rules allow. What they do not let through goes the usual way, which alone finds faults.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from jobsched.domain import spec_rules as rules
from jobsched.domain.json_text import MAX_DEPTH, compact
from jobsched.domain.schedule import is_zone, parse_schedule
from jobsched.domain.spec import CheckTarget, JobCreate, JobSpec, parse_job_create
from jobsched.domain.spec_fields import MAX_PAYLOAD_BYTES
from jobsched.domain.targets import check_url
from jobsched.domain.validation import MAX_FAULTS
from jobsched.errors import Fault, InvalidInput, InvalidSchedule

MAX_JOBS: Final = 10_000
MAX_BULK_BYTES: Final = 64 * 1024 * 1024

#: Fields that each job of a bulk has for itself.
OWN: Final = (
    "key", "name", "description", "api", "schedule", "timezone", "is_recurring", "headers", "tags", "payload",
)  # fmt: skip
#: Fields whose rules look at schedule and time zone: with any of these, those two count as shared.
_TIMED: Final = frozenset({"isRecurring", "startAt", "endAt", "jitterSeconds"})

#: In JSON text: what may stand for NUL or half a surrogate pair.
_SUSPECT: Final = re.compile(r"\\u(?:0000|[dD][89abAB]|[dD][c-fC-F])")
#: Its origin is the group: up to the path, the query or the fragment, whichever is first.
_PRINTABLE_URL: Final = re.compile(r"""([!"$-.0->@-\[\]-~]{1,10}//[!"$-.0->@-\[\]-~]+)[!-\[\]-~]*""")
#: So many shared parts and origins are remembered; a bulk that has more goes the usual way for the rest.
_REMEMBERED: Final = 2048
_PLACEHOLDERS: Final = {"schedule": "@daily", "api": "http://placeholder.invalid/"}


class NewJob(NamedTuple):
    """A job to create. ``shared`` holds all fields but OWN, and may belong to many jobs.

    ``payload`` is compact JSON, None for no body. ``plain``: there is no backslash, line end or tab in any text of it.
    """

    shared: JobSpec
    key: str | None
    name: str | None
    description: str | None
    api: str
    schedule: str
    timezone: str
    is_recurring: bool
    headers: Mapping[str, str]
    tags: tuple[str, ...]
    payload: bytes | None
    plain: bool


@dataclass(frozen=True, slots=True)
class ItemFaults:
    """What is wrong with the item at ``index``; pointers are relative to the item."""

    index: int
    faults: tuple[Fault, ...]


class NotAtOnce(Exception):
    """Jobs cannot be written as they are read: one is faulty, or its key exists. All are to be read first."""


class BulkReader:
    """Reads the items of one bulk, one after another, and keeps count of what is wrong.

    ``jobs`` are the good ones that were kept, with their indexes in order, ``faulty`` the others. ``faulty`` takes
    a fault of every bad item; beyond MAX_FAULTS in all, an item's further ones are left out.
    """

    def __init__(self, check_target: CheckTarget) -> None:
        self.jobs: list[NewJob] = []
        self.indexes: list[int] = []
        self.faulty: list[ItemFaults] = []
        self.count = 0
        self.faults = 0
        self._check_target = check_target
        self._shared: dict[str, JobSpec | None] = {}
        self._origins: set[str] = set()
        self._keys: dict[str, int] = {}

    def add(self, document: Any, text: str, fault: str | None = None) -> None:
        """``read``, and keep the job."""
        index = self.count
        job = self.read(document, text, fault)
        if job is not None:
            self.jobs.append(job)
            self.indexes.append(index)

    def read(self, document: Any, text: str, fault: str | None = None) -> NewJob | None:
        """The next item: its value, the JSON text of it, and why it is no JSON, if it is not. None: it is faulty."""
        index, self.count = self.count, self.count + 1
        if fault is not None:
            self._refuse(index, [Fault("", fault)])
            return None
        try:
            job = self._read(document, text)
        except InvalidInput as error:
            self._refuse(index, error.faults)
            return None
        if job.key is not None and (first := self._keys.setdefault(job.key, index)) != index:
            self._refuse(index, [Fault("/key", f"is the key of item {first} as well")])
            return None
        return job

    def refuse_keys(self, taken: frozenset[str]) -> None:
        """Make faults of the jobs whose keys exist already."""
        if not taken:
            return
        kept = []
        for index, job in zip(self.indexes, self.jobs, strict=True):
            if job.key is not None and job.key in taken:
                self._refuse(index, [Fault("/key", f"a job with the key {job.key!r} exists already")])
            else:
                kept.append((index, job))
        self.indexes, self.jobs = [index for index, _ in kept], [job for _, job in kept]
        self.faulty.sort(key=lambda item: item.index)

    def pointed_faults(self) -> list[Fault]:
        """The faults with their places in the whole body: ``/71/priority``."""
        return [
            Fault(f"/{item.index}{fault.pointer}", fault.message)
            for item in self.faulty
            for fault in item.faults
        ]

    def _refuse(self, index: int, faults: "list[Fault] | tuple[Fault, ...]") -> None:
        listed = tuple(faults[: max(1, MAX_FAULTS - self.faults)])
        self.faults += len(listed)
        self.faulty.append(ItemFaults(index, listed))

    def _read(self, document: Any, text: str) -> NewJob:
        """The job, by the quick way where it is plainly right. Raises InvalidInput."""
        # In JSON text what a row would have to escape cannot stand without a backslash.
        plain = "\\" not in text
        if (
            type(document) is not dict
            or text.count("{") + text.count("[") > MAX_DEPTH
            or not (plain or _SUSPECT.search(text) is None)
        ):
            return self._whole(document, plain)
        shared = document.copy()
        take = shared.pop
        key, name, description = take("key", None), take("name", None), take("description", None)
        api, payload = take("api", None), take("payload", None)
        headers, tags = take("headers", _NO_HEADERS), take("tags", _NO_TAGS)
        schedule, timezone, recurring = shared.get("schedule"), shared.get("timezone", "UTC"), None
        try:
            body = None if payload is None else compact(payload).encode()
        except ValueError:  # an infinite number
            return self._whole(document, plain)
        if not (
            (body is None or len(body) <= MAX_PAYLOAD_BYTES)
            and (key is None or _fits(key, _KEY))
            and (name is None or _fits(name, _NAME))
            and (description is None or _fits(description, _DESCRIPTION))
            and (headers is _NO_HEADERS or _are_headers(headers))
            and (tags is _NO_TAGS or _are_tags(tags))
            and type(schedule) is str
            and self._is_target(api)
        ):
            return self._whole(document, plain)
        if _TIMED.isdisjoint(shared):
            recurring = _recurs(schedule, timezone)
            if recurring is None:
                return self._whole(document, plain)
            del shared["schedule"]
            take("timezone", None)
        spec = self._spec_of(shared)
        if spec is None or (body is not None and any(rules.method_faults(payload, spec.method))):
            return self._whole(document, plain)
        return NewJob(
            spec, key, name, description, api, schedule, timezone,
            spec.is_recurring if recurring is None else recurring, headers, tuple(tags), body, plain,
        )  # fmt: skip

    def _whole(self, document: Any, plain: bool) -> NewJob:
        """The job by the usual way, which knows all rules."""
        spec = parse_job_create(document, check_target=self._check_target, suggest=self.faults < MAX_FAULTS)
        payload = None if spec.payload is None else compact(spec.payload).encode()
        # As an object a payload takes ten times as much memory, and all jobs are held until they are stored.
        return NewJob(
            replace(spec, payload=None), spec.key, spec.name, spec.description, spec.api, spec.schedule,
            spec.timezone, spec.is_recurring, spec.headers, spec.tags, payload, plain,
        )  # fmt: skip

    def _spec_of(self, shared: Mapping[str, Any]) -> JobSpec | None:
        """The shared part as some job, remembered by its text; None if it has faults or there are too many."""
        named = repr(shared)  # tells 1, 1.0 and true apart, as the rules do
        if named not in self._shared:
            if len(self._shared) >= _REMEMBERED:
                return None
            try:
                # URL and schedule are checked by themselves where they are not shared; no other rule looks at them.
                self._shared[named] = parse_job_create(
                    {**_PLACEHOLDERS, **shared}, check_target=lambda _: None, suggest=False
                )
            except InvalidInput:
                self._shared[named] = None
        return self._shared[named]

    def _is_target(self, api: Any) -> bool:
        """Whether ``api`` is a URL of an origin that was looked at before, or is now."""
        if not (type(api) is str and len(api) <= _API[1]):
            return False
        found = _PRINTABLE_URL.fullmatch(api)
        if found is None:
            return False
        if (origin := found[1]) not in self._origins:
            # Behind the origin every printable character of ASCII may stand, so it speaks for its siblings.
            if len(self._origins) >= _REMEMBERED or check_url(api) or self._check_target(api):
                return False
            self._origins.add(origin)
        return True


def _are_headers(value: Any) -> bool:
    """Whether these headers may be set, and hold no stored value's mask."""
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        return False
    return not value or (rules.MASK not in value.values() and not any(rules.header_faults(value)))


def _are_tags(value: Any) -> bool:
    if type(value) is not list or len(value) > _SHAPES["tags"]["maxItems"]:
        return False
    return all(type(tag) is str and _TAG[0] <= len(tag) <= _TAG[1] for tag in value)


def _bounds(field: str) -> tuple[int, int]:
    """The shortest and the longest text that a field takes."""
    shape = _SHAPES[field]
    shape = next((kind for kind in shape.get("anyOf", ()) if kind["type"] == "string"), shape)
    return shape.get("minLength", 0), shape["maxLength"]


def _fits(value: Any, bounds: tuple[int, int]) -> bool:
    return type(value) is str and bounds[0] <= len(value) <= bounds[1]


def _recurs(schedule: str, timezone: Any) -> bool | None:
    """Whether this schedule goes on for ever; None if it is none."""
    if not (type(timezone) is str and is_zone(timezone)):
        return None
    try:
        return parse_schedule(schedule, timezone).recurring
    except InvalidSchedule:
        return None


_NO_HEADERS: Final[dict[str, str]] = {}
_NO_TAGS: Final[list[str]] = []
_SHAPES: Final = JobCreate.model_json_schema()["properties"]
_KEY: Final = _bounds("key")
_NAME: Final = _bounds("name")
_DESCRIPTION: Final = _bounds("description")
_API: Final = _bounds("api")
_TAG: Final = (_SHAPES["tags"]["items"]["minLength"], _SHAPES["tags"]["items"]["maxLength"])

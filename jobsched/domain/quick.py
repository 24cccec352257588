"""Jobs by the rules of jobsched/domain/spec.py, most of them without asking every rule anew.

Jobs mostly differ in a few fields (``OWN``) and share the rest, their policies. The shared part is read once by the
usual way, under its text as the name; then only the own fields are looked at, by checks that let through a part of
what the rules allow. What they do not let through goes the usual way, which alone finds faults.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from jobsched.domain import spec_rules as rules
from jobsched.domain.json_text import MAX_DEPTH, compact
from jobsched.domain.schedule import is_zone, parse_schedule
from jobsched.domain.spec import CheckTarget, JobCreate, JobSpec, parse_job_create
from jobsched.domain.spec_fields import MAX_PAYLOAD_BYTES
from jobsched.domain.targets import check_url
from jobsched.errors import Fault, InvalidInput, InvalidSchedule

#: Fields that each job has for itself.
OWN: Final = (
    "key", "name", "description", "api", "schedule", "timezone", "is_recurring", "headers", "tags", "payload",
)  # fmt: skip
#: The others.
SHARED: Final = tuple(name for name in JobSpec.__dataclass_fields__ if name not in OWN)
#: Fields whose rules look at schedule and time zone: with any of these, those two count as shared.
_TIMED: Final = frozenset({"isRecurring", "startAt", "endAt", "jitterSeconds"})

#: In JSON text: what may stand for NUL or half a surrogate pair.
_SUSPECT: Final = re.compile(r"\\u(?:0000|[dD][89abAB]|[dD][c-fC-F])")
#: Its origin is the group: up to the path, the query or the fragment, whichever is first.
_PRINTABLE_URL: Final = re.compile(r"""([!"$-.0->@-\[\]-~]{1,10}//[!"$-.0->@-\[\]-~]+)[!-\[\]-~]*""")
#: So many shared parts, origins and sets of headers are remembered; then the memory begins anew.
_REMEMBERED: Final = 2048
#: Only what has no more characters than this.
_LONGEST: Final = 500
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


#: Reads the JSON text of a job by all rules: its value, or why it is none. May raise.
Strictly = Callable[[str], tuple[Any, str | None]]


class QuickReader:
    """Reads jobs, and remembers what they share. Safe to share between threads.

    ``strictly``: the values that are given may come from a reader that does not see a name that stands twice in an
    object; this one does.
    """

    def __init__(self, check_target: CheckTarget, strictly: Strictly | None = None) -> None:
        self._check_target = check_target
        self._strictly = strictly
        # Beside each: how many quotes its values have as JSON.
        self._shared: dict[str, tuple[JobSpec, int] | None] = {}
        self._origins: set[str] = set()
        self._headers: set[tuple[tuple[str, str], ...]] = set()

    def read(self, document: Any, text: str, *, suggest: bool = True) -> NewJob:
        """The job that ``document`` describes, the value of the JSON ``text``. Raises InvalidInput with every fault.

        ``suggest`` as for parse_job_create.
        """
        document, job = self._try(document, text)
        if job is not None:
            return job
        spec = parse_job_create(document, check_target=self._check_target, suggest=suggest)
        payload = None if spec.payload is None else compact(spec.payload).encode()
        # As an object a payload takes ten times as much memory, and many jobs may be held until they are stored.
        return NewJob(
            replace(spec, payload=None), spec.key, spec.name, spec.description, spec.api, spec.schedule,
            spec.timezone, spec.is_recurring, spec.headers, spec.tags, payload, "\\" not in text,
        )  # fmt: skip

    def read_spec(self, document: Any, text: str) -> JobSpec:
        """As ``read``, with the payload as it is."""
        document, job = self._try(document, text)
        if job is None:
            return parse_job_create(document, check_target=self._check_target)
        values = {name: getattr(job.shared, name) for name in SHARED}
        return JobSpec(
            key=job.key, name=job.name, description=job.description, api=job.api, schedule=job.schedule,
            timezone=job.timezone, is_recurring=job.is_recurring, headers=job.headers, tags=job.tags,
            payload=document.get("payload"), **values,
        )  # fmt: skip

    def _try(self, document: Any, text: str) -> tuple[Any, NewJob | None]:
        """The job, by the quick way, where it is plainly right; else the document by all rules of JSON.

        Without backslashes each string of JSON has two quotes, and no other character than quotes would have to be
        written otherwise, in JSON or in a row. So a text that has more quotes than its value has strings was read
        with the loss of a name.
        """
        if "\\" in text:
            document = self._reread(document, text)
            quick = _SUSPECT.search(text) is None and type(document) is dict
            return document, self._quick(document, text, plain=False) if quick else None
        job = self._quick(document, text, plain=True) if type(document) is dict else None
        return (document if job is not None else self._reread(document, text)), job

    def _reread(self, document: Any, text: str) -> Any:
        """The value of ``text`` by all rules of JSON. Raises InvalidInput."""
        if self._strictly is None:
            return document
        value, fault = self._strictly(text)
        if fault is not None:
            raise InvalidInput([Fault("", fault)])
        return value

    def _quick(self, document: dict[str, Any], text: str, *, plain: bool) -> NewJob | None:
        shared = document.copy()
        take = shared.pop
        key, name, description = take("key", None), take("name", None), take("description", None)
        api, payload = take("api", None), take("payload", None)
        headers, tags = take("headers", _NO_HEADERS), take("tags", _NO_TAGS)
        schedule, timezone = shared.get("schedule"), shared.get("timezone", "UTC")
        # Of all names, and of the URL.
        quotes = 2 * len(document) + 2
        if key is not None:
            quotes += 2
            if not (type(key) is str and _KEY[0] <= len(key) <= _KEY[1]):
                return None
        if name is not None:
            quotes += 2
            if not (type(name) is str and len(name) <= _NAME[1]):
                return None
        if description is not None:
            quotes += 2
            if not (type(description) is str and len(description) <= _DESCRIPTION[1]):
                return None
        body = None
        if payload is not None:
            try:
                body = compact(payload).encode()
            except ValueError:  # an infinite number
                return None
            quotes += body.count(b'"')
            if len(body) > MAX_PAYLOAD_BYTES or body.count(b"{") + body.count(b"[") >= MAX_DEPTH:
                return None
        if headers is not _NO_HEADERS:
            if not self._are_headers(headers):
                return None
            quotes += 4 * len(headers)
        if tags is not _NO_TAGS:
            if not _are_tags(tags):
                return None
            quotes += 2 * len(tags)
        if type(schedule) is not str or not self._is_target(api):
            return None
        recurring = None
        if not shared or _TIMED.isdisjoint(shared):
            recurring = _recurs(schedule, timezone)
            if recurring is None:
                return None
            del shared["schedule"]
            quotes += 2 if take("timezone", None) is None else 4
        known = self._spec_of(shared)
        if known is None:
            return None
        spec, its_quotes = known
        if plain and text.count('"') != quotes + its_quotes:
            return None
        if body is not None and spec.method in rules.WITHOUT_BODY:
            return None
        return NewJob(
            spec, key, name, description, api, schedule, timezone,
            spec.is_recurring if recurring is None else recurring, headers, tuple(tags), body, plain,
        )  # fmt: skip

    def _spec_of(self, shared: Mapping[str, Any]) -> tuple[JobSpec, int] | None:
        """The shared part as some job and the quotes of its values, remembered by its text.

        None if it has faults or is too long.
        """
        named = repr(shared) if shared else ""  # tells 1, 1.0 and true apart, as the rules do
        try:
            return self._shared[named]
        except KeyError:
            pass
        if len(named) > _LONGEST:
            return None
        if len(self._shared) >= _REMEMBERED:
            self._shared.clear()
        try:
            # URL and schedule are checked by themselves where they are not shared; no other rule looks at them.
            spec = parse_job_create({**_PLACEHOLDERS, **shared}, check_target=lambda _: None, suggest=False)
        except InvalidInput:
            known = None
        else:
            known = spec, compact(shared).count('"') - 2 * len(shared)
        self._shared[named] = known
        return known

    def _is_target(self, api: Any) -> bool:
        """Whether ``api`` is a URL of an origin that was looked at before, or is now."""
        if not (type(api) is str and len(api) <= _API[1]):
            return False
        # The usual form: an origin that is known, and a path behind it.
        if (
            (end := api.find("/", 8)) > 0
            and api[:end] in self._origins
            and api.isascii()
            and api.isprintable()
            and " " not in api
            and "\\" not in api
        ):
            return True
        found = _PRINTABLE_URL.fullmatch(api)
        if found is None:
            return False
        if (origin := found[1]) not in self._origins:
            # Behind the origin every printable character of ASCII may stand, so it speaks for its siblings.
            if check_url(api) or self._check_target(api):
                return False
            if len(self._origins) >= _REMEMBERED:
                self._origins.clear()
            self._origins.add(origin)
        return True

    def _are_headers(self, value: Any) -> bool:
        """Whether these headers may be set, and hold no stored value's mask."""
        if type(value) is not dict:
            return False
        named = tuple(value.items())
        try:
            if named in self._headers:
                return True
        except TypeError:  # one is an object
            return False
        if not all(type(text) is str for text in value.values()):
            return False
        if rules.MASK in value.values() or any(rules.header_faults(value)):
            return False
        if sum(len(name) + len(text) for name, text in named) <= _LONGEST:
            if len(self._headers) >= _REMEMBERED:
                self._headers.clear()
            self._headers.add(named)
        return True


def _are_tags(value: Any) -> bool:
    if type(value) is not list or len(value) > _SHAPES["tags"]["maxItems"]:
        return False
    return all(type(tag) is str and _TAG[0] <= len(tag) <= _TAG[1] for tag in value)


def _bounds(field: str) -> tuple[int, int]:
    """The shortest and the longest text that a field takes."""
    shape = _SHAPES[field]
    shape = next((kind for kind in shape.get("anyOf", ()) if kind["type"] == "string"), shape)
    return shape.get("minLength", 0), shape["maxLength"]


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

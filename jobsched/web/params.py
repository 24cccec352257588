"""Parameters of requests: paths, query strings, cursors, If-Match."""

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar, get_origin

from flask import request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter

from jobsched.domain.durations import parse_duration
from jobsched.domain.json_text import unstorable
from jobsched.domain.preview import MAX_RUNS
from jobsched.domain.spec_fields import INSTANT_PATTERN, NO_NUL
from jobsched.domain.states import State, Trigger
from jobsched.domain.validation import nearest_name
from jobsched.errors import Fault, InvalidInput, InvalidSchedule, PreconditionFailed

LARGEST_ID: Final = 2**63 - 1

List = Literal["jobs", "executions", "dead-letters"]
Query = TypeVar("Query", bound=BaseModel)

_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?P<offset>[Zz]|[+-]\d\d:\d\d)?", re.ASCII
)
# An offset's plus that was not percent-encoded arrives as a space.
_LOST_PLUS = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:\d\d)$", re.ASCII)


def _up_to(largest: str) -> str:
    """A pattern of the whole numbers from 1 to ``largest``, without leading zeros."""
    shorter = [f"[1-9][0-9]{{0,{len(largest) - 2}}}"]
    # As long as the largest: the same up to some digit, that one smaller, the rest as it likes.
    smaller = [
        f"{largest[:place]}[{0 if place else 1}-{int(digit) - 1}][0-9]{{{len(largest) - place - 1}}}"
        for place, digit in enumerate(largest)
        if int(digit) > (0 if place else 1)
    ]
    return f"(?:{'|'.join([*shorter, *smaller, largest])})"


class IdConverter(BaseConverter):
    """A positive 64-bit integer in a path; anything else matches no route, which is a 404."""

    # The bound stands in the pattern: for what ``to_python`` refuses, werkzeug answers 405 where another method
    # was looked at before.
    regex = _up_to(str(LARGEST_ID))

    def to_python(self, value: str) -> int:
        """The id."""
        return int(value)


class KeyConverter(BaseConverter):
    """A job's key at the end of a path: any text, slashes and line ends included."""

    regex = r"[\s\S]+"
    part_isolating = False


class KeyPath(BaseModel):
    """The path of a job by its key."""

    key: str = Field(
        min_length=1,
        max_length=200,
        description="The job's key, percent-encoded; a slash in it is %2F.",
        examples=["nightly-report"],
        json_schema_extra={"pattern": NO_NUL},
    )


class IfNoneMatch(BaseModel):
    """The question whether the caller's copy is still good."""

    if_none_match: str | None = Field(
        None,
        alias="If-None-Match",
        description="An ETag; 304 if the job's definition is still that version.",
        examples=['"3"'],
    )


class Conditions(BaseModel):
    """The guards of a call that creates or edits."""

    if_match: str | None = Field(
        None,
        alias="If-Match",
        description="The job's ETag; 412 if it is another by now or there is no job.",
        examples=['"3"'],
    )
    if_none_match: str | None = Field(
        None,
        alias="If-None-Match",
        description="`*`: create only; 412 if there is such a job.",
        json_schema_extra={"enum": ["*"]},
    )


def _digits(value: Any) -> Any:
    if not re.fullmatch(r"[0-9]{1,19}", value, re.ASCII):
        raise ValueError("must be a whole number")
    return int(value)


def _true_or_false(value: Any) -> Any:
    if value not in {"true", "false"}:
        raise ValueError("must be true or false")
    return value == "true"


def _instant(value: Any) -> Any:
    text = _LOST_PLUS.sub(r"\1+\2", value)
    matched = _INSTANT.fullmatch(text)
    try:
        if matched is None:
            raise ValueError
        instant = datetime.fromisoformat(text.upper())
        return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be an RFC 3339 instant, such as 2026-12-01T09:00:00Z") from None


def _seconds(value: Any) -> Any:
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII):
        return float(value)
    try:
        return parse_duration(value, timedelta(0)).total_seconds()
    except InvalidSchedule:
        raise ValueError("must be seconds, such as 3600, or a duration, such as 24h or 1h30m") from None


Boolean = Annotated[bool, BeforeValidator(_true_or_false)]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "instant", "pattern": INSTANT_PATTERN}),
]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID), BeforeValidator(_digits)]
Limit = Annotated[int, Field(ge=1, le=500), BeforeValidator(_digits)]
Text = Annotated[str, Field(json_schema_extra={"pattern": NO_NUL})]


def cursor_of(kind: List, next_before: int | None) -> str | None:
    """The opaque cursor of the page that starts before the id ``next_before``; None stays None."""
    if next_before is None:
        return None
    return base64.urlsafe_b64encode(f"{kind}:{next_before}".encode()).decode().rstrip("=")


def _cursor(kind: List) -> Any:
    return Field(
        None,
        description="`nextCursor` of the page before.",
        examples=[cursor_of(kind, 42)],
        json_schema_extra={"format": f"{kind}-cursor", "pattern": "^[A-Za-z0-9_-]+$"},
    )


class NoQuery(BaseModel):
    """A call that takes no parameters."""

    model_config = ConfigDict(extra="forbid")


class ListQuery(NoQuery):
    """What every list takes."""

    limit: Limit = Field(50, description="Items a page.")
    cursor: str | None = None


class JobsQuery(ListQuery):
    """Filters of the list of jobs."""

    cursor: str | None = _cursor("jobs")
    q: Annotated[
        Text | None, Field(max_length=2000, description="Text in name, key, description or api.")
    ] = None
    isActive: Annotated[Boolean | None, Field(description="Active or paused ones only.")] = None
    pool: Annotated[Text | None, Field(max_length=50, description="Jobs of one pool.")] = None
    tag: Annotated[list[Text], Field(max_length=50, description="May repeat: any of them.")] = []
    state: Annotated[
        list[State], Field(max_length=50, description="`lastState`; may repeat: any of them.")
    ] = []


class JobExecutionsQuery(ListQuery):
    """Filters of the executions of one job."""

    cursor: str | None = _cursor("executions")
    state: Annotated[list[State], Field(max_length=50, description="May repeat: any of them.")] = []
    trigger: Annotated[Trigger | None, Field(description="What started it.")] = None
    from_: Annotated[
        Instant | None, Field(alias="from", description="`scheduledFor` at or after this instant.")
    ] = None
    to: Annotated[Instant | None, Field(description="`scheduledFor` before this instant.")] = None


class ExecutionsQuery(JobExecutionsQuery):
    """Filters of the list of executions."""

    jobId: Annotated[Id | None, Field(description="Executions of one job.")] = None


class DeadLettersQuery(ListQuery):
    """Filters of the list of dead letters."""

    cursor: str | None = _cursor("dead-letters")
    jobId: Annotated[Id | None, Field(description="Dead letters of one job.")] = None
    errorCode: Annotated[Text | None, Field(max_length=50, description="How the last attempt ended.")] = None
    from_: Annotated[
        Instant | None, Field(alias="from", description="`scheduledFor` at or after this instant.")
    ] = None
    to: Annotated[Instant | None, Field(description="`scheduledFor` before this instant.")] = None


class RunQuery(NoQuery):
    """Parameters of run-now."""

    force: Annotated[Boolean, Field(description="Run even if the overlap policy would not.")] = False


class RotateQuery(NoQuery):
    """Parameters of a rotation of signing secrets."""

    grace: Annotated[
        float,
        Field(
            ge=0,
            le=604_800,
            description="How long the older secrets stay valid, at most 7 days: seconds, or a duration such as "
            "`24h`.",
            examples=["3600", "24h"],
            json_schema_extra={"default": "24h"},
        ),
        BeforeValidator(_seconds),
        WithJsonSchema(
            {
                "type": "string",
                "format": "seconds-or-duration",
                "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?|\+?(([0-9]+\.?[0-9]*|\.[0-9]+)(h|m|s|ms))+)$",
            }
        ),
    ] = 86_400


class BulkQuery(NoQuery):
    """Parameters of a bulk."""

    partial: Annotated[
        Boolean, Field(description="Create the good jobs even if others have faults; by default all or none.")
    ] = False


class NextQuery(NoQuery):
    """Parameters of a job's next runs."""

    n: Annotated[int, Field(ge=1, le=MAX_RUNS, description="How many."), BeforeValidator(_digits)] = 10


def read_query(model: type[Query], args: MultiDict[str, str] | None = None) -> Query:
    """The query string as ``model``. Raises InvalidInput with every parameter that is wrong or not known."""
    args = request.args if args is None else args
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    values: dict[str, Any] = {}
    faults = []
    for name, given in args.lists():
        field = fields.get(name)
        if field is None:
            meant = nearest_name(name, fields)
            hint = f"; did you mean {meant}?" if meant else ""
            faults.append(Fault(name, f"is not a parameter of this call{hint}", parameter=True))
        elif any("\x00" in value for value in given):
            faults.append(Fault(name, "must not hold the character NUL (U+0000)", parameter=True))
        elif get_origin(field.annotation) is list:
            values[name] = given
        elif len(given) > 1:
            faults.append(Fault(name, "is given more than once", parameter=True))
        else:
            values[name] = given[0]
    query = None
    try:
        query = model.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            message = (
                fault["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should", "must", 1)
            )
            faults.append(Fault(str(fault["loc"][0]), message, parameter=True))
    if faults or query is None:
        raise InvalidInput(faults, "The query string is not valid.")
    return query


def before_id(kind: List, cursor: str | None) -> int | None:
    """The id that a cursor of ``cursor_of`` stands for. Raises InvalidInput for any other string."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
        matched = re.fullmatch(rf"{kind}:([1-9][0-9]{{0,18}})", text, re.ASCII)
        if matched and int(matched[1]) <= LARGEST_ID and cursor_of(kind, int(matched[1])) == cursor:
            return int(matched[1])
    except ValueError:
        pass
    fault = Fault("cursor", "is not a nextCursor of this list", parameter=True)
    raise InvalidInput([fault], "The query string is not valid.")


def path_key(key: str) -> str:
    """The key that a path ends with. Raises InvalidInput for what cannot be a job's key."""
    # What werkzeug decoded with replacement characters would let different keys meet in one job.
    raw = request.environ.get("PATH_INFO", "").encode("latin-1", "replace")
    reason = unstorable(key)
    if len(key) > 200:
        reason = "must have at most 200 characters"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    if reason:
        raise InvalidInput([Fault("key", reason, parameter=True)], "The key in the path is not valid.")
    return key


def known_version(version: int) -> bool:
    """Whether If-None-Match names ``version`` (RFC 9110, section 13.1.2: compared weakly)."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return False
    return header.strip() == "*" or version in _versions(re.sub(r'W/(?=")', "", header))


def only_new() -> bool:
    """Whether If-None-Match says that nothing may be there yet. Raises InvalidInput for anything but ``*``."""
    header = request.headers.get("If-None-Match")
    if header is not None and header.strip() != "*":
        fault = Fault("If-None-Match", "must be * here", parameter=True)
        raise InvalidInput([fault], "The header If-None-Match is not valid.")
    return header is not None


def if_match() -> frozenset[int] | None:
    """The versions that If-Match allows; None where any is fine. What is no version of ours matches nothing."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    return _versions(header)


def single_version(allowed: frozenset[int] | None, present: int | None = None) -> int | None:
    """The one version to demand; ``present`` decides among several. Raises PreconditionFailed."""
    if allowed is None:
        return None
    if len(allowed) == 1:
        return next(iter(allowed))
    if present in allowed:
        return present
    raise PreconditionFailed('If-Match names no version of this job; its ETag is `"<version>"`.')


def _versions(header: str) -> frozenset[int]:
    parts = (part.strip().strip('"') for part in header.split(","))
    return frozenset(int(part) for part in parts if re.fullmatch(r"[0-9]{1,9}", part, re.ASCII))

"""The fields of a job as requests write them: types, ranges, defaults, and a sentence on each.

The OpenAPI document is made from these models, so a limit stands here once. Rules that need more than one
field, or more than a range, are in jobsched/domain/spec_rules.py.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, create_model
from pydantic.config import JsonDict

from jobsched.domain.schedule import LONGEST_TEXT
from jobsched.domain.validation import WHOLE, Input

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_HEADERS = 50
MAX_HEADERS_BYTES = 8 * 1024

#: The one character that no string may hold, as JSON Schema can say it.
NO_NUL = r"^[^\u0000]*$"
#: The form of an instant, with or without an offset.
INSTANT_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?$"
)

_STATUS_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)


def _status_range(text: str) -> str:
    match = _STATUS_RANGE.fullmatch(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError('must be a status such as "404" or an ascending range such as "200-299"')
    return text


# A `format` that JSON Schema does not know says that there is more to it than the pattern can tell.
StatusRange = Annotated[
    str,
    AfterValidator(_status_range),
    Field(
        json_schema_extra={"format": "status-range", "pattern": r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"},
        examples=["404"],
    ),
]
InstantText = Annotated[
    str,
    Field(
        max_length=100,
        json_schema_extra={"format": "instant", "pattern": INSTANT_PATTERN},
    ),
]
MaxRuns = Annotated[int, Field(ge=1, le=1_000_000_000), WHOLE]
Tag = Annotated[str, Field(min_length=1, max_length=50, json_schema_extra={"pattern": NO_NUL})]
_Key = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra={"pattern": NO_NUL})]
_Name = Annotated[str, Field(max_length=200, json_schema_extra={"pattern": NO_NUL})]
_Description = Annotated[str, Field(max_length=2000, json_schema_extra={"pattern": NO_NUL})]

_HEADERS: JsonDict = {
    "maxProperties": MAX_HEADERS,
    "propertyNames": {"format": "http-header-name", "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
    "additionalProperties": {"type": "string", "pattern": r"^[\t -~]*$"},
}

_RULES: JsonDict = {
    "if": {"required": ["method"], "properties": {"method": {"enum": ["GET", "HEAD"]}}},
    "then": {"properties": {"payload": {"type": "null"}}},
}


class JobCreate(Input):
    """A job to create, or to put in the place of another. Only `schedule` and `api` are required."""

    model_config = ConfigDict(json_schema_extra=_RULES)

    key: _Key | None = Field(
        None,
        description="Your own name for the job, unique in the project.",
        examples=["nightly-report"],
    )
    name: _Name | None = Field(None, description="A name for people.")
    description: _Description | None = Field(None, description="What the job is for.")
    schedule: str = Field(
        max_length=1000,
        description="When the job is due: cron with 5 fields, or 6 with seconds first; `@hourly`, `@daily` …; "
        "`@every 90s`; an RFC 3339 instant or `@at` one; `@in 10m`.",
        examples=["*/5 9-17 * * MON-FRI", "@every 90s", "2026-12-01T09:00:00+01:00"],
        # What is longer than a schedule may be is told so as a schedule; 1000 is where nobody looks at it.
        json_schema_extra={"format": "schedule", "maxLength": LONGEST_TEXT},
    )
    timezone: str = Field(
        "UTC",
        max_length=100,
        description="The IANA zone in which the schedule and instants without offset are read.",
        examples=["Europe/Berlin"],
        json_schema_extra={"format": "time-zone"},
    )
    is_recurring: bool | None = Field(
        None,
        description="Whether the job goes on after its first slot. By default as the schedule says; `false` "
        "runs a recurring schedule once, at its next match.",
    )
    is_active: bool = Field(True, description="`false`: paused, no new slots.")
    api: str = Field(
        max_length=2048,
        description="The http or https URL to call.",
        examples=["https://example.com/hooks/report"],
        json_schema_extra={"format": "callback-url", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^ ]+$"},
    )
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "POST", description="The HTTP method of the call."
    )
    headers: dict[str, str] = Field(
        default={},
        description=f"Headers of the call: at most {MAX_HEADERS}, {MAX_HEADERS_BYTES // 1024} KiB together. "
        "Answers show the values of secret ones as `***`; that value sent back keeps the stored one.",
        examples=[{"Authorization": "Bearer my-token"}],
        json_schema_extra=_HEADERS,
    )
    secret_headers: list[_Key] = Field(
        default=[],
        max_length=MAX_HEADERS,
        description="Names of headers whose values are secrets. Authorization, Proxy-Authorization, Cookie "
        "and X-Api-Key always are.",
    )
    payload: Any = Field(
        None,
        description=f"Sent as the JSON body, at most {MAX_PAYLOAD_BYTES // 1024} KiB; `null`: no body. "
        "Not with GET or HEAD.",
        examples=[{"report": 7}],
    )
    type: Literal["AT_LEAST_ONCE", "AT_MOST_ONCE"] = Field(
        "AT_LEAST_ONCE",
        description="`AT_MOST_ONCE`: an attempt whose end is unknown is never repeated.",
    )
    max_retry_count: Annotated[int, Field(ge=0, le=100), WHOLE] = Field(
        3, description="How many failed attempts are followed by another."
    )
    min_backoff_seconds: float = Field(1.0, ge=0, le=86_400, description="The delay before the first retry.")
    max_backoff_seconds: float = Field(3600.0, ge=0, le=604_800, description="The longest delay.")
    backoff_factor: float = Field(
        2.0, ge=1, le=10, description="By what the delay grows from retry to retry."
    )
    backoff_jitter: float = Field(
        0.1, ge=0, le=1, description="The delay is multiplied by a random factor of 1 ± this."
    )
    timeout_seconds: float = Field(
        30.0, ge=0.1, le=1800, description="Bounds the whole call, name lookup included."
    )
    success_status: list[StatusRange] = Field(
        default=["200-299"], min_length=1, max_length=50, description="Which answers are a success."
    )
    no_retry_status: list[StatusRange] = Field(
        default=[], max_length=50, description="Which answers fail for good at once; 410 and 489 always do."
    )
    follow_redirects: bool = Field(False, description="Whether redirects are followed, at most 5.")
    misfire_policy: Literal["fire_once", "fire_all", "skip"] = Field(
        "fire_once",
        description="What becomes of slots that nobody fired in time: one run for all, each, or none.",
    )
    misfire_grace_seconds: float = Field(
        60.0, ge=0, le=604_800, description="A slot is missed when it is later than this."
    )
    overlap_policy: Literal["allow", "skip", "queue"] = Field(
        "allow",
        description="What becomes of an execution that is due while another of the job is queued, running or "
        "retrying: it runs beside it, is skipped, or waits for it (one at most).",
    )
    priority: Annotated[int, Field(ge=0, le=10), WHOLE] = Field(5, description="Higher is served first.")
    pool: str = Field(
        "default",
        min_length=1,
        max_length=50,
        pattern=r"^[a-z0-9_-]+$",
        description="The pool of workers that runs the job.",
    )
    tags: list[Tag] = Field(default=[], max_length=50, description="Labels to filter by.")
    start_at: InstantText | None = Field(
        None,
        description="No slot before this instant; intervals count from it. Without an offset it is read in "
        "`timezone`.",
        examples=["2026-12-01T00:00:00+01:00"],
    )
    end_at: InstantText | None = Field(
        None,
        description="No slot after this instant, which is not before `startAt`.",
        examples=["2027-12-01T00:00:00+01:00"],
    )
    max_runs: MaxRuns | None = Field(None, description="After so many slots that were run there are no more.")
    jitter_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Spreads the slots: each is due later by a fixed part of this, always the same for one "
        "job and slot. Less than the shortest time between two slots.",
    )


def _optional() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, field in JobCreate.model_fields.items():
        inner: Any = field.annotation
        if field.metadata:
            inner = Annotated[(inner, *field.metadata)]
        fields[name] = (
            inner if name == "payload" or field.is_required() else inner | None,
            Field(
                None,
                description=field.description,
                examples=field.examples,
                json_schema_extra=field.json_schema_extra,
            ),
        )
    return fields


def _of_a_patch(schema: JsonDict) -> None:
    schema |= _RULES
    # A client that fills in defaults would reset every field that it does not mean.
    fields: Any = schema["properties"]
    for field in fields.values():
        field.pop("default", None)


class _Patch(Input):
    model_config = ConfigDict(json_schema_extra=_of_a_patch)


#: The body of a PATCH, for the API's description: every field may be left out, null means the default.
JobPatch: type[Input] = create_model(
    "JobPatch",
    __base__=_Patch,
    __doc__="Fields to change (RFC 7396): null means the default; payload and headers are replaced whole.",
    **_optional(),
)

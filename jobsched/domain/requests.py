"""Bodies of the calls that act on executions and dead letters."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from jobsched.domain.instants import read_instant
from jobsched.domain.json_text import compact
from jobsched.domain.spec_fields import MAX_PAYLOAD_BYTES, NO_NUL, InstantText
from jobsched.domain.spec_rules import method_faults
from jobsched.domain.validation import WHOLE, Input, read
from jobsched.errors import Fault, InvalidInput

#: One call names at most so many ids.
MAX_IDS = 10_000


class _JobsPayload:
    def __repr__(self) -> str:
        return "JOBS_PAYLOAD"


#: No payload was given: the job's (for a redrive, the dead letter's) is sent. None means no body.
JOBS_PAYLOAD: Final = _JobsPayload()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which dead letters: ``ids``, or a filter whose parts all hold, or everything (``all`` true)."""

    ids: tuple[int, ...] | None = None
    job_id: int | None = None
    error_code: str | None = None
    from_: datetime | None = None
    to: datetime | None = None
    all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveRequest:
    """``rate_per_second`` None means at once; ``payload`` is only allowed for a single id."""

    selector: Selector
    rate_per_second: float | None = None
    payload: Any = JOBS_PAYLOAD


Id = Annotated[int, Field(ge=1, le=2**63 - 1), WHOLE]
_Code = Annotated[str, Field(max_length=50, json_schema_extra={"pattern": NO_NUL})]

_CONDITIONS: Final = {"jobId": "integer", "errorCode": "string", "from": "string", "to": "string"}
_FILTER_RULES: JsonDict = {
    "if": {"required": ["all"], "properties": {"all": {"const": True}}},
    "then": {"properties": {name: {"type": "null"} for name in _CONDITIONS}},
    "else": {
        "anyOf": [
            {"required": [name], "properties": {name: {"type": kind}}} for name, kind in _CONDITIONS.items()
        ]
    },
}
_SELECTOR_RULES: JsonDict = {
    "if": {"required": ["filter"], "properties": {"filter": {"type": "object"}}},
    "then": {"properties": {"ids": {"type": "null"}}},
    "else": {"required": ["ids"], "properties": {"ids": {"type": "array", "minItems": 1}}},
}
_REDRIVE_RULES: JsonDict = _SELECTOR_RULES | {
    "dependentSchemas": {
        "payload": {"required": ["ids"], "properties": {"ids": {"type": "array", "maxItems": 1}}}
    }
}


class FilterIn(Input):
    """Which dead letters: all conditions given must hold."""

    model_config = ConfigDict(json_schema_extra=_FILTER_RULES)

    job_id: Id | None = Field(None, description="Of this job.")
    error_code: _Code | None = Field(
        None, description="That ended with this error.", examples=["http_status"]
    )
    from_: InstantText | None = Field(
        None, alias="from", description="With a `scheduledFor` at or after this instant."
    )
    to: InstantText | None = Field(None, description="With a `scheduledFor` before this instant.")
    all: bool = Field(False, description="Every one; for a filter without any other condition.")


def _without_default(schema: JsonDict) -> None:
    # To leave it out is not null: a client that fills in defaults would send no body.
    del schema["default"]


class DiscardIn(Input):
    """Either `ids` or `filter`. What selects nothing by its wording is refused."""

    model_config = ConfigDict(json_schema_extra=_SELECTOR_RULES)

    ids: list[Id] | None = Field(None, max_length=MAX_IDS, description="These executions' dead letters.")
    filter: FilterIn | None = Field(None, description="Those that match.")


class RedriveIn(DiscardIn):
    """Either `ids` or `filter`, and how."""

    model_config = ConfigDict(json_schema_extra=_REDRIVE_RULES)

    rate_per_second: float | None = Field(
        None, ge=0.001, le=1_000_000, description="Spreads the executions; by default all are due at once."
    )
    payload: Any = Field(
        None,
        description="Sent instead of what was sent; `null`: no body. Only for a single id. Left out: what was sent.",
        json_schema_extra=_without_default,
    )


class RunIn(Input):
    """What a run by hand may change."""

    payload: Any = Field(
        None,
        description="Sent instead of the job's; `null`: no body. Left out: the job's.",
        json_schema_extra=_without_default,
    )


def parse_run(body: object | None) -> Any:
    """The payload of a run-now, or JOBS_PAYLOAD; ``body`` None: no body was sent. Raises InvalidInput."""
    return JOBS_PAYLOAD if body is None else _payload(read(RunIn, body))


def parse_redrive(body: object) -> RedriveRequest:
    """What a redrive asks for. Raises InvalidInput; an empty selector is a fault, never everything."""
    given = read(RedriveIn, body)
    selector, payload = _selector(given), _payload(given)
    if payload is not JOBS_PAYLOAD and len(given.ids or ()) != 1:
        raise InvalidInput([Fault("/payload", "may only be given for a single id")])
    return RedriveRequest(selector=selector, rate_per_second=given.rate_per_second, payload=payload)


def parse_discard(body: object) -> Selector:
    """What a discard asks for. Raises InvalidInput; an empty selector is a fault, never everything."""
    return _selector(read(DiscardIn, body))


def check_payload(payload: Any, method: str) -> None:
    """Refuse a payload of ``parse_run`` or ``parse_redrive`` that the job's method cannot carry: InvalidInput."""
    if payload is not JOBS_PAYLOAD and (faults := list(method_faults(payload, method))):
        raise InvalidInput(faults)


def _payload(given: RunIn | RedriveIn) -> Any:
    if "payload" not in given.model_fields_set:
        return JOBS_PAYLOAD
    size = len(compact(given.payload).encode())
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidInput(
            [Fault("/payload", f"has {size} bytes as JSON; at most {MAX_PAYLOAD_BYTES} are allowed")]
        )
    return given.payload


def _selector(given: DiscardIn) -> Selector:
    if (given.ids is None) == (given.filter is None):
        raise InvalidInput([Fault("", "needs either ids or filter")])
    if given.filter is None:
        if not given.ids:
            raise InvalidInput([Fault("/ids", "is empty; name at least one id")])
        return Selector(ids=tuple(sorted(set(given.ids))))
    return _filter(given.filter)


def _filter(given: FilterIn) -> Selector:
    faults: list[Fault] = []
    bounds = {}
    for name, text in (("from", given.from_), ("to", given.to)):
        try:
            bounds[name] = None if text is None else read_instant(text)
        except ValueError as error:
            faults.append(Fault(f"/filter/{name}", str(error)))
    narrow = any(value is not None for value in (given.job_id, given.error_code, given.from_, given.to))
    if narrow == given.all:
        wrong = "all stands alone" if narrow else 'is empty; {"all": true} selects every dead letter'
        faults.append(Fault("/filter", wrong))
    if faults:
        raise InvalidInput(faults)
    return Selector(
        job_id=given.job_id,
        error_code=given.error_code,
        from_=bounds["from"],
        to=bounds["to"],
        all=given.all,
    )

"""Pydantic's findings as faults of ours: a pointer, a sentence, a suggestion for what was misspelt."""

import difflib
from collections.abc import Iterable
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from jobsched.domain.json_text import json_faults, pointer
from jobsched.errors import Fault, InvalidInput

Model = TypeVar("Model", bound="Input")


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


#: JSON knows one kind of number, and JSON Schema takes 5.0 for an integer. Stands after the range of an ``int``;
#: before it, the range is missing in the schema.
WHOLE: Final = BeforeValidator(_whole)

#: What other schedulers call our fields.
_OTHERS_WORDS = {
    "url": "api", "uri": "api", "target": "api", "endpoint": "api", "webhook": "api", "callback": "api",
    "body": "payload", "data": "payload", "cron": "schedule", "cronexpression": "schedule", "tz": "timezone",
    "retries": "maxRetryCount", "maxretries": "maxRetryCount", "retrycount": "maxRetryCount",
    "enabled": "isActive", "active": "isActive", "paused": "isActive", "concurrencypolicy": "overlapPolicy",
    "queue": "pool", "labels": "tags",
}  # fmt: skip

#: Faults listed at most; a body of 1 MiB could hold hundreds of thousands, each with a name to be guessed at.
MAX_FAULTS = 100


class Input(BaseModel):
    """Base of what requests carry: camelCase, JSON types taken strictly, unknown fields refused."""

    model_config = ConfigDict(
        strict=True, extra="forbid", alias_generator=to_camel, frozen=True, allow_inf_nan=False
    )


def read(model: type[Model], body: object) -> Model:
    """``body`` as ``model``. Raises InvalidInput with every fault."""
    document = checked_object(body)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(faults_of(error, field_names(model), _nested_names(model))) from None


def checked_object(body: object) -> dict[str, Any]:
    """``body``, which must be a JSON object that can be stored. Raises InvalidInput."""
    if not isinstance(body, dict):
        raise InvalidInput([Fault("", "must be a JSON object")])
    if faults := json_faults(body):
        raise InvalidInput(faults)
    return body


def field_names(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields as requests write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _nested_names(model: type[BaseModel]) -> list[str]:
    inner = [part for field in model.model_fields.values() for part in get_args(field.annotation)]
    return [
        name
        for part in inner
        if isinstance(part, type) and issubclass(part, BaseModel)
        for name in field_names(part)
    ]


def faults_of(error: ValidationError, known: Iterable[str], nested: Iterable[str] = ()) -> list[Fault]:
    """The first faults that pydantic found; an unknown field among them comes with the nearest of ``known``.

    ``nested`` are the names of fields of objects inside.
    """
    names, inner = list(known), list(nested)
    return [
        Fault(pointer(*detail["loc"]), _sentence(detail, names if len(detail["loc"]) == 1 else inner))
        for detail in error.errors(include_url=False)[:MAX_FAULTS]
    ]


def unknown_field(name: str, known: Iterable[str]) -> str:
    """What is said about a field that does not exist."""
    meant = nearest_name(name, known)
    return f"is not a field; did you mean {meant}?" if meant else "is not a field"


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Which of ``known`` somebody means who writes ``name``: another's word for it, its beginning, or nearly it."""
    by_folded = {_folded(candidate): candidate for candidate in known}
    folded = _folded(name)
    other = _folded(_OTHERS_WORDS.get(folded, ""))
    if other in by_folded:
        return by_folded[other]
    begun = [candidate for candidate in by_folded if len(folded) > 2 and candidate.startswith(folded)]
    near = begun or difflib.get_close_matches(folded, by_folded, n=1)
    return by_folded[near[0]] if near else None


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()[:100]


_TYPES = {
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "finite_number": "must be a finite number",
    "missing": "is required",
}


def _sentence(detail: ErrorDetails, known: list[str]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_field(str(detail["loc"][-1]), known)
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}{_nearest(detail['input'], str(context['expected']))}"
    if kind == "greater_than_equal":
        return f"must be at least {_plain(context['ge'])}"
    if kind == "greater_than":
        return f"must be more than {_plain(context['gt'])}"
    if kind == "less_than_equal":
        return f"must be at most {_plain(context['le'])}"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind == "string_too_short":
        return f"must have at least {context['min_length']} character"
    if kind == "too_long":
        return f"must have at most {context['max_length']} items"
    if kind == "too_short":
        return f"must have at least {context['min_length']} item"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    return detail["msg"]


def _plain(number: float) -> str:
    return str(int(number) if float(number).is_integer() else number)


def _nearest(value: Any, expected: str) -> str:
    if not isinstance(value, str):
        return ""
    choices = {_folded(choice): choice for choice in expected.replace(" or ", ", ").split(", ")}
    quoted = {folded.strip("'"): choice for folded, choice in choices.items()}
    near = difflib.get_close_matches(_folded(value), quoted, n=1)
    return f"; did you mean {quoted[near[0]]}?" if near else ""

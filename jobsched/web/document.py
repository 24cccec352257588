"""The OpenAPI document: what flask-openapi3 writes of the routes, made complete.

It writes paths, tags and operations. It leaves out examples and links, and rewrites schemas to the keywords that it
knows; so all schemas come straight from pydantic here.
"""

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from jobsched.errors import Fault
from jobsched.web.examples import EXAMPLES, REQUEST_ID
from jobsched.web.problem import PROBLEM_JSON, document

Schema = dict[str, Any]
#: What stands where in a request: ``path``, ``query`` or ``header``, and the model of what is there.
Parameters = tuple[tuple[str, type[BaseModel]], ...]

_SCHEMAS: Final = "#/components/schemas/"
_EXAMPLES: Final = "#/components/examples/"


class _Header(NamedTuple):
    schema: Schema
    description: str
    required: bool = True


HEADERS: Final[Mapping[str, _Header]] = {
    "X-Request-Id": _Header(
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "The caller's own where it was sane, else a new one.",
    ),
    "ETag": _Header(
        {"type": "string", "pattern": '^"[0-9]+"$'}, "The job's version in quotes, for `If-Match`."
    ),
    "Location": _Header({"type": "string", "format": "uri-reference"}, "The path of what was made."),
    "Idempotent-Replayed": _Header(
        {"type": "string", "enum": ["true"]},
        "The answer of the first request with this `Idempotency-Key`, sent again.",
        required=False,
    ),
    "WWW-Authenticate": _Header({"type": "string", "enum": ["Bearer"]}, "How to authenticate."),
    "Retry-After": _Header({"type": "integer", "minimum": 1}, "Seconds to wait before trying again."),
}


class _Error(NamedTuple):
    """One error as an example. A status may have several; the first one stands at every call that answers it."""

    status: int
    code: str
    detail: str
    faults: tuple[Fault, ...] = ()


DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "The body is not JSON, or ended early.",
    401: "No key, or one that is not known.",
    403: "The key's role is too small.",
    404: "There is no such thing.",
    409: "The present state forbids it; or the first request with this Idempotency-Key is still running.",
    412: "If-Match names another version than the present one.",
    413: "The body is too large.",
    415: "The body is of another media type, not in UTF-8, or compressed.",
    422: "The request is not valid; every fault is named.",
    503: "A server behind the API cannot be reached; try again.",
}
_FAULT_HEADERS: Final = {"401": "WWW-Authenticate", "503": "Retry-After"}

_ERRORS: Final = (
    _Error(400, "invalid_json", "The body is not JSON: Expecting value at line 1, column 9."),
    _Error(401, "unauthorized", "Send an API key: `Authorization: Bearer <key>`."),
    _Error(403, "forbidden", "This needs a key of role write; the one sent has the role read."),
    _Error(404, "not_found", "There is no job 17."),
    _Error(409, "conflict", "The present state forbids it: a job with the key nightly-report exists."),
    _Error(412, "precondition_failed", "Somebody edited the job meanwhile: its version is 4, not 3."),
    _Error(413, "body_too_large", "The body is larger than 1048576 bytes."),
    _Error(415, "unsupported_media_type", "The body is of type text/plain; send application/json."),
    _Error(
        422,
        "invalid_input",
        "The request is not valid.",
        (
            Fault("/schedule", "The minute field has 61, but minutes are 0 to 59."),
            Fault("limit", "must be less than or equal to 500", parameter=True),
        ),
    ),
    _Error(
        503,
        "database_unavailable",
        "The database cannot be reached at the moment. Nothing was written. Try again.",
    ),
)
_OF_A_POST: Final = (
    _Error(
        409,
        "idempotency_in_progress",
        "A request with this Idempotency-Key is still running. Repeat yours when it is over.",
    ),
    _Error(
        422,
        "idempotency_mismatch",
        "This Idempotency-Key was sent to this path with another body, query string or Content-Type.",
    ),
)


def responses(
    answers: Mapping[int, type[BaseModel] | None], faults: Iterable[int], text: str | None = None
) -> dict[str, Any]:
    """The ``responses`` of an operation, as flask-openapi3 takes them.

    ``text``: what is answered is plain text; its title.
    """
    plain = {"content": {"text/plain": {"schema": {"type": "string", "title": text}}}}
    described: dict[str, Any] = {str(status): plain if text else model for status, model in answers.items()}
    for status in faults:
        described[str(status)] = {
            "description": DESCRIPTIONS[status],
            "content": {PROBLEM_JSON: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}},
        }
    # Where it finds none, flask-openapi3 puts an array of problems; ``complete`` takes this one out.
    described["default"] = None
    return described


def headers_of(status: str, own: Iterable[str]) -> list[str]:
    """The names of an answer's headers; ``own`` are those of the operation."""
    of_fault = [_FAULT_HEADERS[status]] if status in _FAULT_HEADERS else []
    return ["X-Request-Id", *own, *of_fault]


def complete(
    spec: dict[str, Any],
    models: Mapping[type[BaseModel], JsonSchemaMode],
    parameters: Mapping[str, Parameters],
) -> dict[str, Any]:
    """``spec`` of flask-openapi3 with schemas, parameters, examples and links.

    ``models`` are those of bodies and answers; ``parameters`` those of each operation, by its id.
    """
    components = spec["components"]
    components["schemas"] = _schemas(models)
    components["examples"] = dict(_examples())
    spec["servers"] = [{"url": "/", "description": "Where this document came from."}]
    for _, method, operation in operations(spec):
        operation["responses"].pop("default", None)
        operation.setdefault("security", [])
        operation["parameters"] = [
            parameter
            for place, model in parameters[operation["operationId"]]
            for parameter in _listed(place, model)
        ]
        for media in operation.get("requestBody", {}).get("content", {}).values():
            _show(media, _of_schema(media["schema"]))
        for status, response in operation["responses"].items():
            response["description"] = (
                response["description"] if int(status) >= 400 else HTTPStatus(int(status)).phrase
            )
            for kind, media in response.get("content", {}).items():
                is_problem = kind == PROBLEM_JSON
                _show(media, _of_status(int(status), method) if is_problem else _of_schema(media["schema"]))
    for _, _, operation in operations(spec):
        _link(spec, operation)
    return spec


def operations(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation of an OpenAPI document."""
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _schemas(models: Mapping[type[BaseModel], JsonSchemaMode]) -> dict[str, Schema]:
    _, shapes = models_json_schema(list(models.items()), ref_template=f"{_SCHEMAS}{{model}}")
    schemas: dict[str, Schema] = shapes["$defs"]
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            # The field's name again.
            field.pop("title", None)
    return schemas


def _listed(place: str, model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    whole = model.model_json_schema()
    for name, schema in whole["properties"].items():
        schema.pop("title", None)
        yield {
            "name": name,
            "in": place,
            "description": schema.pop("description"),
            "required": name in whole.get("required", ()),
            "schema": _of_parameter(schema),
        }


def _of_parameter(schema: Schema) -> Schema:
    """A parameter that may be left out is not null: in a query string or a header, null is a word."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    of_the_kind: Schema = kinds[0]
    return {name: value for name, value in schema.items() if name not in ("anyOf", "default")} | of_the_kind


def _keys(name: str) -> list[str]:
    return [f"{name}-{number}" if number else name for number in range(len(EXAMPLES.get(name, ())))]


def _examples() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, examples in EXAMPLES.items():
        for key, (summary, value) in zip(_keys(name), examples.items(), strict=True):
            yield key, {"summary": summary, "value": value}
    for error in (*_ERRORS, *_OF_A_POST):
        problem = document(error.status, error.code, error.detail, request_id=REQUEST_ID, faults=error.faults)
        yield error.code, {"summary": error.detail, "value": problem}


def _of_schema(schema: Schema) -> list[str]:
    name: str = schema.get("$ref") or schema.get("title", "")
    return _keys(name.removeprefix(_SCHEMAS))


def _of_status(status: int, method: str) -> list[str]:
    shown = (*_ERRORS, *_OF_A_POST) if method == "post" else _ERRORS
    return [error.code for error in shown if error.status == status]


def _show(media: dict[str, Any], keys: list[str]) -> None:
    media["examples"] = {key: {"$ref": f"{_EXAMPLES}{key}"} for key in keys}


#: Answers that show a thing → the paths under which more can be done with it, and where its id stands.
_LEADS_TO: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "Job": (("/api/v1/jobs/{id}", "id"),),
    "Execution": (("/api/v1/executions/{id}", "id"), ("/api/v1/jobs/{id}", "jobId")),
    "Redrive": (("/api/v1/dead-letters/redrives/{id}", "id"),),
}


def _link(spec: Mapping[str, Any], operation: Mapping[str, Any]) -> None:
    """Say what may be done next with what an operation answers."""
    for status, response in operation["responses"].items():
        for media in response.get("content", {}).values() if int(status) < 400 else ():
            name = media["schema"].get("$ref", "").removeprefix(_SCHEMAS)
            links = dict(_links(spec, name, "ETag" in response["headers"]))
            if links:
                response["links"] = links


def _links(spec: Mapping[str, Any], name: str, has_etag: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for stem, field in _LEADS_TO.get(name, ()):
        for path, _, target in operations(spec):
            if path != stem and not path.startswith(f"{stem}/"):
                continue
            parameters = {"path.id": f"$response.body#/{field}"}
            if has_etag and any(parameter["name"] == "If-Match" for parameter in target["parameters"]):
                parameters["header.If-Match"] = "$response.header.ETag"
            yield target["operationId"], {"operationId": target["operationId"], "parameters": parameters}

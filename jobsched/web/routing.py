"""How a route is declared: its role, what it takes and answers, once, for the router and the document.

flask-openapi3 writes the document. Its own validation is left out: it stops at the first part of a request
that is wrong, answers in a format of its own, takes a body that is no JSON for null, and builds a JSON
schema anew at every request with parameters.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from flask import Response
from flask_openapi3.models.header import Header
from flask_openapi3.models.operation import Operation
from flask_openapi3.models.reference import Reference
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from jobsched.db.keys import Role
from jobsched.web.body import JSON, MAX_BODY_BYTES, MERGE_PATCH
from jobsched.web.errors import PROBLEM_JSON
from jobsched.web.idempotency import KEY, REPLAYED, Once
from jobsched.web.params import NoQuery, read_query
from jobsched.web.schemas import Problem

View = Callable[..., Response]

BEARER: Final = "bearer"

_REF = "#/components/schemas/"
_HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "X-Request-Id": ("string", "The caller's own where it was sane, else a new one."),
    "ETag": ("string", "The job's version in quotes, for `If-Match`."),
    "Location": ("string", "The path of what was made."),
    REPLAYED: ("string", f"`true`: the answer of the first request with this `{KEY}`, sent again."),
    "WWW-Authenticate": ("string", "`Bearer`."),
    "Retry-After": ("integer", "Seconds to wait before trying again."),
    "Allow": ("string", "Of a 405: the methods that there are."),
}
_FAULT_HEADERS: Final[Mapping[str, str]] = {
    "401": "WWW-Authenticate",
    "503": "Retry-After",
    "default": "Allow",
}
_FAULTS: Final[Mapping[int, str]] = {
    400: "The body is not JSON.",
    401: "No key, or one that is not known.",
    403: "The key's role is too small.",
    404: "There is no such thing.",
    409: "The present state forbids it; or the first request with this Idempotency-Key is still running.",
    412: "If-Match names another version than the present one.",
    413: "The body is larger than 1 MiB.",
    415: "The body is of another media type.",
    422: "The request is not valid; every fault is named.",
    503: "The database cannot be reached; try again.",
}


class IdPath(BaseModel):
    """The path of one thing."""

    id: int = Field(ge=1, description="The id.")


class IfMatch(BaseModel):
    """The guard against lost updates."""

    if_match: str | None = Field(
        None, alias="If-Match", description="The job's ETag; 412 if it is another by now."
    )


class IdempotencyKey(BaseModel):
    """The guard against doing a thing twice."""

    idempotency_key: str | None = Field(
        None,
        alias=KEY,
        min_length=1,
        max_length=255,
        description="Printable ASCII of the caller's choice. For 24 h the same request with the same key gets "
        "the answer of the first, and nothing is done again.",
    )


class Api:
    """Adds routes to ``app``. ``roles`` collects the smallest role of each endpoint; ``once`` handles POSTs."""

    def __init__(self, app: OpenAPI, once: Once) -> None:
        self.app = app
        self._once = once
        app.components.headers = {
            name: Header.model_validate({"description": text, "schema": {"type": kind}})
            for name, (kind, text) in _HEADERS.items()
        }
        self.roles: dict[str, Role] = {}
        self._models: dict[type[BaseModel], JsonSchemaMode] = {Problem: "serialization"}

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        spec: dict[str, Any] = self.app.api_doc
        # flask-openapi3 leaves out the examples and takes whole numbers for fractions.
        _, shapes = models_json_schema(list(self._models.items()), ref_template=f"{_REF}{{model}}")
        spec["components"]["schemas"] = shapes["$defs"]
        for item in spec["paths"].values():
            for operation in item.values():
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = _of_parameter(parameter["schema"])
        return spec

    def route(
        self,
        method: str,
        rule: str,
        *,
        tag: Tag,
        answers: Mapping[int, type[BaseModel] | None],
        role: Role | None = None,
        query: type[BaseModel] = NoQuery,
        body: type[BaseModel] | None = None,
        body_optional: bool = False,
        faults: tuple[int, ...] = (),
        any_query: bool = False,
        if_match: bool = False,
        headers: tuple[str, ...] = (),
        max_body: int = MAX_BODY_BYTES,
        secret_answer: bool = False,
    ) -> Callable[[View], View]:
        """Declare the decorated view. ``role`` None: open to everyone.

        The view gets the path's ``id``, and ``query`` where the call takes parameters; it reads the body by
        itself. ``body`` is what the document says of it; ``faults`` are statuses beyond those that every
        call of its kind can answer; ``headers`` come with ``answers``. The view's docstring becomes the
        document's text. ``max_body`` (bytes) is what a POST with an Idempotency-Key may carry; with
        ``secret_answer`` its answer is not kept for a repetition.
        """

        is_post = method == "POST"

        def declare(view: View) -> View:
            takes_query = query is not NoQuery

            def handle(**arguments: Any) -> Response:
                if takes_query:
                    arguments["query"] = read_query(query)
                elif not any_query:
                    read_query(NoQuery)
                return view(**arguments)

            def handle_once(**arguments: Any) -> Response:
                act = partial(handle, **arguments)
                return self._once.handle(act, max_body=max_body, secret_answer=secret_answer)

            handler = handle_once if is_post else handle

            handler.__name__ = view.__name__
            handler.__annotations__ = {
                name: kind
                for name, kind, wanted in (
                    ("path", IdPath, "<" in rule),
                    ("header", IdempotencyKey if is_post else IfMatch, is_post or if_match),
                    ("query", query, takes_query),
                    ("body", body, body is not None),
                )
                if wanted
            }
            # What flask_openapi3.validate_request sets: the view checks its request by itself.
            handler.__delay_validate_request__ = True  # type: ignore[attr-defined]
            summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
            if body is not None:
                self._models[body] = "validation"
            self._models |= {answer: "serialization" for answer in answers.values() if answer is not None}
            if role is not None:
                self.roles[view.__name__] = role
            register = getattr(self.app, method.lower())
            register(
                rule,
                tags=[tag],
                summary=summary.rstrip("."),
                description=" ".join(description.split()) or summary,
                operation_id=view.__name__,
                responses=_responses(
                    answers, _fault_statuses(role, query, body, (*faults, 409) if is_post else faults)
                ),
                security=[{BEARER: []}] if role is not None else [],
                openapi_extensions={"x-required-role": role} if role is not None else None,
                endpoint=view.__name__,
            )(handler)
            operation = _operation(self.app, rule, method)
            replayed = (REPLAYED,) if is_post else ()
            _describe_headers(operation, {str(status): (*headers, *replayed) for status in answers})
            if body is not None:
                _describe_body(operation, method, optional=body_optional)
            return view

        return declare


def _fault_statuses(
    role: Role | None, query: type[BaseModel], body: type[BaseModel] | None, faults: tuple[int, ...]
) -> list[int]:
    statuses = set(faults)
    if role is not None:
        statuses |= {401, 403, 422, 503}
    if body is not None:
        statuses |= {400, 413, 415, 422}
    return sorted(statuses)


def _responses(answers: Mapping[int, type[BaseModel] | None], faults: list[int]) -> dict[str, Any]:
    problem = {PROBLEM_JSON: {"schema": {"$ref": f"{_REF}Problem"}}}
    responses: dict[str, Any] = {str(status): model for status, model in answers.items()}
    for status in faults:
        responses[str(status)] = {"description": _FAULTS[status], "content": problem}
    responses["default"] = {"description": "Any other error.", "content": problem}
    return responses


def _of_parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is not null: in a query string or a header, null is a word."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**rest, **kinds[0]}


def _operation(app: OpenAPI, rule: str, method: str) -> Operation:
    path = app.paths[rule.replace("<int64:", "{").replace(">", "}")]
    operation: Operation = getattr(path, method.lower())
    return operation


def _describe_headers(operation: Operation, own: Mapping[str, tuple[str, ...]]) -> None:
    for status, response in (operation.responses or {}).items():
        of_fault = (_FAULT_HEADERS[status],) if status in _FAULT_HEADERS else ()
        response.headers = {
            name: Reference.model_validate({"$ref": f"#/components/headers/{name}"})
            for name in ("X-Request-Id", *own.get(status, ()), *of_fault)
        }


def _describe_body(operation: Operation, method: str, *, optional: bool) -> None:
    request_body: Any = operation.requestBody
    request_body.required = not optional
    if method == "PATCH":
        request_body.content[MERGE_PATCH] = request_body.content[JSON]

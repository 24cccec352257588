"""How a route is declared: its role, what it takes and answers, once, for the router and the document.

flask-openapi3 writes the document's frame, jobsched/web/document.py the rest. The former's validation is left out:
it stops at the first part of a request that is wrong, answers in a format of its own, takes a body that is no
JSON for null, and builds a JSON schema anew at every request with parameters.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from flask import Response, request
from flask_openapi3.models.header import Header
from flask_openapi3.models.operation import Operation
from flask_openapi3.models.reference import Reference
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode

from jobsched.db.keys import Role
from jobsched.web.body import JSON, MAX_BODY_BYTES, MERGE_PATCH, NDJSON
from jobsched.web.document import HEADERS, Parameters, complete, headers_of, responses
from jobsched.web.idempotency import KEY, REPLAYED, Once
from jobsched.web.params import LARGEST_ID, NoQuery, read_query
from jobsched.web.schemas import Problem

View = Callable[..., Response]

BEARER: Final = "bearer"


class IdPath(BaseModel):
    """The path of one thing."""

    id: int = Field(ge=1, le=LARGEST_ID, description="The id.", examples=[17])


class IfMatch(BaseModel):
    """The guard against lost updates."""

    if_match: str | None = Field(
        None,
        alias="If-Match",
        description="The job's ETag; 412 if it is another by now.",
        examples=['"3"'],
    )


class IdempotencyKey(BaseModel):
    """The guard against doing a thing twice."""

    idempotency_key: str | None = Field(
        None,
        alias=KEY,
        description="Printable ASCII of the caller's choice. For 24 h the same request with the same key gets "
        "the answer of the first, and nothing is done again.",
        examples=["create-nightly-report"],
        json_schema_extra={"pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    )


class Api:
    """Adds routes to ``app``. ``roles`` collects the smallest role of each endpoint; ``once`` handles POSTs."""

    def __init__(self, app: OpenAPI, once: Once) -> None:
        self.app = app
        self._once = once
        app.components.headers = {
            name: Header.model_validate(
                {"description": header.description, "schema": header.schema, "required": header.required}
            )
            for name, header in HEADERS.items()
        }
        self.roles: dict[str, Role] = {}
        self._models: dict[type[BaseModel], JsonSchemaMode] = {Problem: "serialization"}
        self._parameters: dict[str, Parameters] = {}

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return complete(self.app.api_doc, self._models, self._parameters)

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
        conditions: type[BaseModel] | None = None,
        path: type[BaseModel] = IdPath,
        ndjson: bool = False,
        headers: tuple[str, ...] = (),
        max_body: int = MAX_BODY_BYTES,
        secret_answer: bool = False,
        text: str | None = None,
    ) -> Callable[[View], View]:
        """Declare the decorated view. ``role`` None: open to everyone.

        The view gets what the ``path`` holds, by default an ``id``, and ``query`` where the call takes
        parameters; it reads the body by itself. ``body`` is what the document says of it; ``faults`` are statuses
        beyond those that every call of its kind can answer; ``headers`` come with ``answers``. The view's
        docstring becomes the document's text. ``conditions`` are the headers that it looks at besides the usual
        ones; ``ndjson``: the body, a list, may come as one JSON value a line. ``max_body`` (bytes) is what a POST
        with an Idempotency-Key may carry; with ``secret_answer`` its answer is not kept for a repetition.
        ``text``: what is answered is plain text; the title under which the document shows an example of it.
        """

        is_post = method == "POST"

        def declare(view: View) -> View:
            takes_query = query is not NoQuery

            def handle(**arguments: Any) -> Response:
                if takes_query:
                    arguments["query"] = read_query(query)
                elif not any_query and request.query_string:
                    read_query(NoQuery)
                return view(**arguments)

            def handle_once(**arguments: Any) -> Response:
                act = partial(handle, **arguments)
                return self._once.handle(act, max_body=max_body, secret_answer=secret_answer)

            handler = handle_once if is_post else handle

            handler.__name__ = view.__name__
            # Parameters are described without flask-openapi3.
            handler.__annotations__ = {"body": body} if body is not None else {}
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
                responses=responses(answers, _fault_statuses(method, rule, role, body, faults), text),
                security=[{BEARER: []}] if role is not None else [],
                openapi_extensions={"x-required-role": role} if role is not None else None,
                endpoint=view.__name__,
            )(handler)
            self._parameters[view.__name__] = tuple(
                (place, model)
                for place, model in (
                    ("path", path if "<" in rule else None),
                    ("query", query if takes_query else None),
                    ("header", IdempotencyKey if is_post else conditions or (IfMatch if if_match else None)),
                )
                if model is not None
            )
            operation = _operation(self.app, rule, method)
            replayed = (REPLAYED,) if is_post else ()
            own = {
                status: (*headers, *replayed, *(("Location",) if status == 201 and not ndjson else ()))
                for status in answers
            }
            _describe_headers(operation, {str(status): names for status, names in own.items()})
            if body is not None:
                _describe_body(operation, method, optional=body_optional, ndjson=ndjson)
            return view

        return declare


def _fault_statuses(
    method: str, rule: str, role: Role | None, body: type[BaseModel] | None, faults: tuple[int, ...]
) -> list[int]:
    statuses = set(faults)
    if role is not None:
        statuses |= {401, 422, 503}
    if role in ("write", "admin"):
        statuses.add(403)
    if "<int64:" in rule:
        statuses.add(404)
    if method == "POST":
        # Of its Idempotency-Key, which is kept with a digest of the body.
        statuses |= {400, 409, 413}
    if body is not None:
        statuses |= {400, 413, 415}
    return sorted(statuses)


def _operation(app: OpenAPI, rule: str, method: str) -> Operation:
    path = app.paths[re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)]
    operation: Operation = getattr(path, method.lower())
    return operation


def _describe_headers(operation: Operation, own: Mapping[str, tuple[str, ...]]) -> None:
    for status, response in (operation.responses or {}).items():
        response.headers = {
            name: Reference.model_validate({"$ref": f"#/components/headers/{name}"})
            for name in headers_of(status, own.get(status, ()))
        }


def _describe_body(operation: Operation, method: str, *, optional: bool, ndjson: bool) -> None:
    request_body: Any = operation.requestBody
    request_body.required = not optional
    if method == "PATCH":
        request_body.content[MERGE_PATCH] = request_body.content[JSON]
    if ndjson:
        # OpenAPI 3.1 has no words for a value a line: the list, of which each line is an item.
        request_body.content[NDJSON] = request_body.content[JSON]

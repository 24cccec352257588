"""The client and the server's own description of itself: every call, every field of every answer."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import pytest
from pydantic import BaseModel

from jobsched.client import Client, types
from jobsched.client.naming import camel
from jobsched.config import Settings
from jobsched.domain.requests import FilterIn
from jobsched.domain.spec_fields import JobCreate
from jobsched.web import schemas, schemas_jobs
from jobsched.web.app import create_app
from jobsched.web.services import Services
from tests.unit.canned_api import EXECUTION, JOB, PREVIEW, SECRETS, STATS, CannedApi

#: Shape of the client → model of the server's answer.
ANSWERS = {
    types.Job: schemas.Job,
    types.Page[types.Job]: schemas.JobPage,
    types.ItemFault: schemas_jobs.ItemFault,
    types.ItemErrors: schemas_jobs.ItemErrors,
    types.BulkResult: schemas_jobs.BulkCreated,
    types.UpcomingRun: schemas_jobs.UpcomingRun,
    types.Upcoming: schemas_jobs.Upcoming,
    types.Phases: schemas.Phases,
    types.Attempt: schemas.Attempt,
    types.Execution: schemas.Execution,
    types.Page[types.Execution]: schemas.ExecutionPage,
    types.DeadLetter: schemas.DeadLetter,
    types.Page[types.DeadLetter]: schemas.DeadLetterPage,
    types.Redrive: schemas.Redrive,
    types.RedriveProgress: schemas.RedriveProgress,
    types.Discarded: schemas.Discarded,
    types.SigningSecret: schemas.SigningSecretItem,
    types.SigningSecretList: schemas.SigningSecretList,
    types.Stats: schemas.QueueStats,
    types.Readiness: schemas.Readiness,
    types.Health: schemas.Health,
}
Shape = Any


def shape(annotation: Any, bound: Mapping[Any, Any] = {}) -> Shape:
    """A type as what JSON can show of it: the same for a model and for the TypedDict that describes it."""
    annotation = bound.get(annotation, annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Annotated, Required, NotRequired}:
        return shape(arguments[0], bound)
    if origin in {Union, UnionType}:
        return frozenset().union(*(choices(shape(one, bound)) for one in arguments))
    if origin is Literal:
        return frozenset(repr(one) for one in arguments)
    if origin is list:
        return ("list", shape(arguments[0], bound))
    if origin is dict:
        return ("dict", shape(arguments[1], bound))
    if is_typeddict(origin):  # generic: Page[Job]
        return shape(origin, dict(zip(origin.__parameters__, arguments, strict=True)))
    if is_typeddict(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        return ("object", tuple(sorted((name, shape(hint, bound)) for name, hint in hints.items())))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        named = {field.alias or name: field for name, field in annotation.model_fields.items()}
        return (
            "object",
            tuple(sorted((name, shape(field.annotation)) for name, field in named.items())),
        )
    return {datetime: "str", NoneType: "null"}.get(annotation, getattr(annotation, "__name__", annotation))


def choices(one: Shape) -> frozenset[Shape]:
    return one if isinstance(one, frozenset) else frozenset({one})


def properties(described: Any) -> dict[str, Shape]:
    kind, found = shape(described)
    assert kind == "object"
    return dict(found)


@pytest.mark.parametrize("described", ANSWERS, ids=str)
def test_the_shapes_of_the_client_are_those_of_the_servers_answers(described):
    model = ANSWERS[described]
    client, server = properties(described), properties(model)
    assert list(client) == list(server)
    assert {name: (client[name], server[name]) for name in client if client[name] != server[name]} == {}


def test_every_field_of_an_answer_is_always_there():
    optional = {
        one.__name__: sorted(one.__optional_keys__)
        for one in vars(types).values()
        if is_typeddict(one) and one.__optional_keys__
    }
    assert set(optional) == {"JobFields", "UnkeyedJobFields", "Selector"}


def test_the_fields_that_a_caller_may_give_are_those_that_the_server_takes():
    given = {camel(name): choices(kind) for name, kind in properties(types.JobFields).items()}
    taken = {name: choices(kind) for name, kind in properties(JobCreate).items()}
    # None is the default of any field that has one.
    null = frozenset({"null"})
    assert {name: kind - null for name, kind in given.items()} == {
        name: kind - null for name, kind in taken.items()
    }
    assert set(types.JobFields.__annotations__) - set(types.UnkeyedJobFields.__annotations__) == {"key"}
    assert {camel(name) for name in types.Selector.__annotations__} == set(properties(FilterIn))


#: Operations that are not for clients of jobs: documents for people, figures for Prometheus.
NOT_FOR_CLIENTS = {"GET /metrics"}

_PAGE: dict[str, Any] = {"items": [], "nextCursor": None}
#: Every call of the client, and the operation that it stands for, with the answer that it gets.
CALLS: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "POST /api/v1/jobs": (lambda client: client.jobs.create(JOB), JOB),
    "POST /api/v1/jobs/bulk": (
        lambda client: client.jobs.create_many([JOB]),
        {"created": 1, "ids": [7], "errors": []},
    ),
    "GET /api/v1/jobs": (lambda client: list(client.jobs.list()), _PAGE),
    "GET /api/v1/jobs/{id}": (lambda client: client.jobs.get(7), JOB),
    "PUT /api/v1/jobs/{id}": (lambda client: client.jobs.replace(7, JOB), JOB),
    "PATCH /api/v1/jobs/{id}": (lambda client: client.jobs.update(7, name="n"), JOB),
    "DELETE /api/v1/jobs/{id}": (lambda client: client.jobs.delete(7), None),
    "GET /api/v1/jobs/key/{key}": (lambda client: client.jobs.get_by_key("k"), JOB),
    "PUT /api/v1/jobs/key/{key}": (lambda client: client.jobs.upsert("k", JOB), JOB),
    "POST /api/v1/jobs/{id}/pause": (lambda client: client.jobs.pause(7), JOB),
    "POST /api/v1/jobs/{id}/resume": (lambda client: client.jobs.resume(7), JOB),
    "POST /api/v1/jobs/{id}/run": (lambda client: client.jobs.run(7), EXECUTION),
    "GET /api/v1/jobs/{id}/next": (lambda client: client.jobs.next(7), PREVIEW),
    "GET /api/v1/jobs/{id}/executions": (lambda client: list(client.jobs.executions(7)), _PAGE),
    "GET /api/v1/executions": (lambda client: list(client.executions.list()), _PAGE),
    "GET /api/v1/executions/{id}": (lambda client: client.executions.get(7), EXECUTION),
    "POST /api/v1/executions/{id}/cancel": (lambda client: client.executions.cancel(7), EXECUTION),
    "POST /api/v1/executions/{id}/retry": (lambda client: client.executions.retry(7), EXECUTION),
    "GET /api/v1/dead-letters": (lambda client: list(client.dead_letters.list()), _PAGE),
    "POST /api/v1/dead-letters/redrive": (lambda client: client.dead_letters.redrive([1]), {"id": 1}),
    "GET /api/v1/dead-letters/redrives/{id}": (
        lambda client: client.dead_letters.redrive_progress(7),
        {"id": 1},
    ),
    "POST /api/v1/dead-letters/discard": (
        lambda client: client.dead_letters.discard([1]),
        {"discarded": 1},
    ),
    "POST /api/v1/schedules/preview": (lambda client: client.schedules.preview("@daily"), PREVIEW),
    "GET /api/v1/signing-secrets": (lambda client: client.signing_secrets.list(), SECRETS),
    "POST /api/v1/signing-secrets/rotate": (lambda client: client.signing_secrets.rotate(), SECRETS),
    "GET /queue/stats": (lambda client: client.stats(), STATS),
    "GET /health": (lambda client: client.health(), {"status": "ok"}),
    "GET /ready": (lambda client: client.ready(), {"status": "ok"}),
}


@pytest.mark.parametrize("operation", CALLS)
def test_each_call_of_the_client_is_one_operation(operation):
    call, answer = CALLS[operation]
    method, path = operation.split()
    path = path.replace("{id}", "7").replace("{key}", "k")
    with CannedApi() as api, Client(api.url, "test-key") as client:
        api.answer(method, path, answer)
        found = call(client)
        assert [(asked.method, asked.path) for asked in api.asked] == [(method, path)]
    assert found == ([] if answer is _PAGE else answer)


def test_the_client_knows_every_operation_of_the_server():
    nothing: Any = object()
    services = Services(
        **{**dict.fromkeys((one.name for one in fields(Services)), nothing), "settings": Settings()}
    )
    operations = {
        f"{method.upper()} {path}"
        for path, methods in create_app(services).api_doc["paths"].items()
        for method in methods
    }
    assert operations - NOT_FOR_CLIENTS - set(CALLS) == set()

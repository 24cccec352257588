"""The API against its own document: what the document allows is taken, what it forbids is refused, and every answer
is one that it describes. schemathesis makes the requests and judges the answers, with all of its checks.

25 examples an operation, the same ones at every run; 1,000 with ``--full``.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import AuthContext, Case, GenerationMode, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from tests.conftest import TABLES
from tests.described import application, openapi_document
from tests.integration import openapi_formats
from tests.integration.api_rig import JOB, Api, api
from tests.integration.test_api_executions import dead, finished

__all__ = ["api"]

openapi_formats.register()


EXAMPLES = 1000 if settings.get_current_profile_name() == "full" else 25

Ids = dict[str, list[int]]


GOOD = "Bearer the key of the test that runs"


class Present:
    """The application of the test that runs, with its key. Many requests are made before there is either."""

    app: WSGIApplication = application()
    key = ""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        if environ.get("HTTP_AUTHORIZATION") == GOOD:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {self.key}"
        return self.app(environ, start_response)


present = Present()
schema = schemathesis.openapi.from_dict(
    openapi_formats.drawn_by_format(openapi_document()),
    config=schemathesis.Config.from_dict(
        {
            # Words found in our own code know nothing of formats.
            "analysis": {"constants": {"enabled": False}},
            "generation": {
                "deterministic": True,
                # Every request carries a good key; the check of ignored authentication sends others by itself.
                "with-security-parameters": False,
                # No string of ours holds NUL. For named fields the document says so, and it is tried; for what
                # stands inside a payload JSON Schema has no words.
                "allow-x00": False,
            },
            "checks": {
                # What a schema cannot know: which version a job has (412), whether the caller's copy is good (304).
                "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "409", "412"]},
                "negative_data_rejection": {
                    "expected-statuses": ["400", "404", "405", "409", "412", "413", "415", "422"]
                },
            },
        }
    ),
)
schema.app = present


@schema.auth()
class Key:
    """What requests carry."""

    def get(self, _case: Case, _context: AuthContext) -> str:
        return GOOD

    def set(self, case: Case, header: str, _context: AuthContext) -> None:
        case.headers["Authorization"] = header


NUMBERS = itertools.count()

JOBS: list[dict[str, Any]] = [
    {},
    {"schedule": "*/5 * * * *", "timezone": "Europe/Berlin", "payload": {"n": 1}, "jitterSeconds": 30},
    {"schedule": "2030-01-01T00:00:00Z", "headers": {"Authorization": "Bearer x"}, "isActive": False},
]


@pytest.fixture
def ids(api: Api) -> Ids:
    """What is there when a test begins; requests come with a key."""
    present.app, present.key = api.client.application, api.keys["admin"]
    return fill(api)


def fill(api: Api) -> Ids:
    """Jobs, executions in most states and a redrive; their ids by the word that their paths begin with."""
    jobs = [api.create(key=f"key {number}", **fields)["id"] for number, fields in enumerate(JOBS)]
    executions = [finished(api, jobs[0]), finished(api, jobs[0], body=b"\xff"), dead(api, jobs[1])]
    executions += [api.call("POST", f"/api/v1/jobs/{job}/run").get_json()["id"] for job in jobs[:2]]
    for state in ("queued", "running", "blocked"):
        id = api.call("POST", f"/api/v1/jobs/{jobs[2]}/run").get_json()["id"]
        worker = "gen_random_uuid()" if state == "running" else "NULL"
        api.sql(f"UPDATE execution SET state = %s, worker_id = {worker} WHERE id = %s", (state, id))
        executions.append(id)
    redrive = api.call("POST", "/api/v1/dead-letters/redrive", json={"ids": [dead(api, jobs[0])]}).get_json()
    return {"jobs": jobs, "executions": executions, "dead-letters": [redrive["id"]]}


def prepare(case: Case, ids: Ids) -> None:
    """Change what a schema cannot say. A request that is wrong on purpose stays as wrong."""
    assert case.meta is not None
    operation = case.operation.definition.raw["operationId"]
    if case.meta.generation.mode is GenerationMode.NEGATIVE:
        if operation == "create_jobs":
            # With true, a 200 tells what is wrong with an item.
            case.query.pop("partial", None)
        return
    if "Idempotency-Key" in case.headers:
        # A key that came with another request is refused, as it must be.
        case.headers["Idempotency-Key"] = f"{case.headers['Idempotency-Key'][:200]} {next(NUMBERS)}"
    if isinstance(case.body, dict | list):
        case.body = openapi_formats.settle(operation, case.body)
    number = case.path_parameters.get("id")
    if ids and isinstance(number, int) and number % 2:
        # The others hardly ever name a thing that exists.
        known = ids[case.path.split("/")[3]]
        case.path_parameters["id"] = known[number % len(known)]


@schema.hook
def filter_failure(_context: Any, failure: Failure, case: Case, response: Response) -> bool:
    """Whether a failure counts. What is not one stands here, with the reason; everything else is."""
    operation = case.operation.definition.raw["operationId"]
    if isinstance(failure, UseAfterFree):
        # The history of a deleted job stays readable.
        return operation != "list_job_executions"
    if isinstance(failure, RejectedPositiveData) and operation in openapi_formats.JUDGED_WITH_WHAT_IS_STORED:
        faults = {fault.get("pointer") for fault in response.json().get("errors", ())}
        return not faults or not faults <= openapi_formats.JUDGED_WITH_WHAT_IS_STORED[operation]
    return True


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_request_is_answered_as_described(case: Case, ids: Ids) -> None:
    prepare(case, ids)
    case.call_and_validate()


def test_requests_that_follow_from_answers_are_answered_as_described(api: Api, ids: Ids) -> None:
    """Along the document's links: what one answer names is read, edited, run, cancelled, deleted by the next."""

    class Scenario(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            # What is there decides which links can be followed: each scenario finds the same, by the same ids.
            for table in set(TABLES) - {"api_key"}:
                api.sql(f"DELETE FROM {table}")
            api.sql(
                "SELECT setval(oid::regclass, 1, false) FROM pg_class "
                "WHERE relkind = 'S' AND relname <> 'project_id_seq'"  # its one row stays
            )
            fill(api)

        def before_call(self, case: Case) -> None:
            prepare(case, {})

    run_state_machine_as_test(
        # The same scenarios whatever this file says.
        seed(0)(Scenario),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=10,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


#: Fields of a job whose pattern stands beside a format of ours, and a value made of a string that it judges.
JUDGED: dict[str, Callable[[str], Any]] = {
    "api": lambda text: text,
    "startAt": lambda text: text,
    "endAt": lambda text: text,
    "successStatus": lambda text: [text],
    "noRetryStatus": lambda text: [text],
    "headers": lambda text: {text: "1"},
}


def patterns(schema: Any) -> list[tuple[str, str]]:
    """Format and pattern of every schema inside one that has both."""
    if isinstance(schema, list):
        return [pair for item in schema for pair in patterns(item)]
    if not isinstance(schema, dict):
        return []
    own = [(schema["format"], schema["pattern"])] if {"format", "pattern"} <= schema.keys() else []
    return own + patterns(list(schema.values()))


def test_what_no_pattern_allows_is_refused(api: Api) -> None:
    fields = openapi_document()["components"]["schemas"]["JobCreate"]["properties"]
    judged = {name: pairs[0] for name, schema in fields.items() if (pairs := patterns(schema))}
    assert judged.keys() == JUDGED.keys()

    def spoilt(name: str) -> st.SearchStrategy[tuple[str, str]]:
        """A good value with a character put somewhere, or any text, where the pattern forbids it."""
        kind, pattern = judged[name]
        near = st.builds(
            lambda text, place, extra: (
                text[: place % (len(text) + 1)] + extra + text[place % (len(text) + 1) :]
            ),
            openapi_formats.FORMATS[kind],
            st.integers(0, 100),
            st.text(max_size=2),
        )
        forbidden = (near | st.text(max_size=20)).filter(lambda text: not re.search(pattern, text))
        return forbidden.map(lambda text: (name, text))

    @settings(max_examples=EXAMPLES * 4, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(sorted(judged)).flatmap(spoilt))
    def run(case: tuple[str, str]) -> None:
        name, text = case
        answer = api.call("POST", "/api/v1/jobs", json={**JOB, name: JUDGED[name](text)})
        assert answer.status_code == 422, (case, answer.text)
        assert all(fault["pointer"].startswith(f"/{name}") for fault in answer.get_json()["errors"])

    run()

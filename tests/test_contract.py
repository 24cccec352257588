"""docs/contract.md is the one table of names, ranges and codes; code, OpenAPI and the other documents agree with it.

Each comparison goes both ways: what the table has and the code has not is a fault, and so is the reverse. A
change of a range, anywhere, fails here until the contract says so too; failures show both sides.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from werkzeug.datastructures import MultiDict

from jobsched.callback import redirect
from jobsched.callback.request import build
from jobsched.cli import errors as cli_errors
from jobsched.cli.fields import FIELDS
from jobsched.config import Settings, environment_name
from jobsched.db import idempotency, signing
from jobsched.db.keys import Role
from jobsched.domain import (
    bulk,
    json_text,
    misfire,
    outcome,
    preview,
    queues,
    requests,
    retry,
    schedule,
    spec_fields,
    states,
    targets,
    validation,
)
from jobsched.domain.spec import parse_job_create, spec_json
from jobsched.domain.spec_fields import JobCreate
from jobsched.errors import InvalidInput
from jobsched.poller import plan, watch
from jobsched.runtime import signals
from jobsched.web import body, server
from jobsched.web import errors as web_errors
from jobsched.web.params import ListQuery, read_query
from tests.test_conventions import app

__all__ = ["app"]

DOCS = Path(__file__).parents[1] / "docs"
WEB = DOCS.parent / "jobsched" / "web"
READ_ONLY = "read-only"
REQUIRED = "required"
#: To leave it out is something else than any value.
LEFT_OUT = "none"
LARGEST_ID = 2**63 - 1

Row = dict[str, str]


# ---------------------------------------------------------------------------------------------------------------
# Reading


@cache
def document(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def chapter(heading: str, name: str = "contract.md") -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", document(name), re.M | re.S)
    assert found, f"docs/{name} has no heading {heading!r}"
    return found[1]


def table(heading: str, name: str = "contract.md") -> list[Row]:
    """The rows of the one table under a heading, by the names of their columns; code marks are dropped."""
    lines = [line for line in chapter(heading, name).splitlines() if line.startswith("|")]
    head, _rule, *rows = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == len(head) for row in rows), heading
    return [dict(zip(head, row, strict=True)) for row in rows]


def _plain(cell: str) -> str:
    return re.sub(r"`", "", cell).strip().replace("\\|", "|")


def headings(level: int) -> list[str]:
    return re.findall(rf"^{'#' * level} (.+)$", document("contract.md"), re.M)


def values(cell: str) -> list[str]:
    return cell.split()


@pytest.fixture(scope="module")
def openapi(app: Any) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.get_json()
    return found


# ---------------------------------------------------------------------------------------------------------------
# JSON Schema in the words of the contract


def kind_of(schema: dict[str, Any]) -> str:
    """``integer``, ``string or null``, ``array of Attempt``, ``instant`` …"""
    if "anyOf" in schema:
        outer = {name: value for name, value in schema.items() if name != "anyOf"}
        kinds = [kind_of(outer | one) for one in schema["anyOf"]]
        return " or ".join(sorted(set(kinds), key=lambda kind: (kind == "null", kinds.index(kind))))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("format") == "date-time" and schema.get("type") != "null":
        return "instant"
    if schema.get("type") == "array":
        inner = kind_of(schema["items"])
        return "array" if inner == "any" else f"array of {inner}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind_of(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


#: Patterns that say more than "no NUL", "an instant" and "a URL": which characters, and which statuses.
CHARACTERS = ("^[a-z0-9_-]", "^[1-5][0-9]", "^[!-~]")


def range_of(schema: dict[str, Any]) -> str:
    """``0–100``, ``1–200 characters``, the values of an enumeration; ``–`` where everything is allowed."""
    if "anyOf" in schema:
        outer = {name: value for name, value in schema.items() if name != "anyOf"}
        found = [text for one in [*schema["anyOf"], outer] if (text := range_of(one)) != "–"]
        return "; ".join(found) or "–"
    parts = []
    if "enum" in schema or "const" in schema:
        parts.append(" ".join(schema.get("enum") or [schema["const"]]))
    if "minimum" in schema or "maximum" in schema:
        parts.append(_span(schema.get("minimum"), schema.get("maximum"), ""))
    if "minLength" in schema or "maxLength" in schema:
        parts.append(_span(schema.get("minLength"), schema.get("maxLength"), " characters"))
    if "minItems" in schema or "maxItems" in schema:
        parts.append(_span(schema.get("minItems"), schema.get("maxItems"), " items"))
    if "minProperties" in schema or "maxProperties" in schema:
        parts.append(_span(schema.get("minProperties"), schema.get("maxProperties"), " entries"))
    if (pattern := schema.get("pattern", "")).startswith(CHARACTERS):
        parts.append(pattern)
    if schema.get("type") == "array" and (inner := range_of(schema["items"])) != "–":
        parts.append(f"each {inner}")
    return ", ".join(parts) or "–"


def _span(low: float | None, high: float | None, unit: str) -> str:
    if low is None:
        return f"at most {_number(high)}{unit}"
    return f"at least {_number(low)}{unit}" if high is None else f"{_number(low)}–{_number(high)}{unit}"


def _number(value: float | None) -> str:
    if value == LARGEST_ID:
        return "2^63-1"
    return f"{value:g}" if isinstance(value, float) and not value.is_integer() else str(int(value or 0))


def default_of(name: str, schema: dict[str, Any], required: Iterable[str]) -> str:
    if name in required:
        return REQUIRED
    default = schema.get("default")
    if isinstance(default, str):
        return default
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "null"}[default]
    return _number(default) if isinstance(default, int | float) else str(default).replace("'", '"')


def rows_of(schema: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Type, range and default of each field; a list has one row."""
    if "properties" not in schema:
        return {"the list": (kind_of(schema), range_of(schema), REQUIRED)}
    return {
        name: (kind_of(one), range_of(one), default_of(name, one, schema.get("required", ())))
        if "default" in one or name in schema.get("required", ())
        else (kind_of(one), range_of(one), LEFT_OUT)
        for name, one in schema["properties"].items()
    }


def told(rows: list[Row]) -> dict[str, tuple[str, str, str]]:
    return {row["field"]: (row["type"], row["range"], row["default"]) for row in rows}


def is_choice(row: Row) -> bool:
    return row["type"].startswith("string") and row["range"][0].isalpha() and "at most" not in row["range"]


# ---------------------------------------------------------------------------------------------------------------
# Jobs


def writable() -> list[Row]:
    return [row for row in table("Jobs") if row["default"] != READ_ONLY]


def test_the_fields_of_a_job_are_those_of_the_openapi_document(openapi: Any) -> None:
    assert told(writable()) == rows_of(openapi["components"]["schemas"]["JobCreate"])


def test_a_job_is_answered_with_these_fields_and_no_others(openapi: Any) -> None:
    shown = rows_of(openapi["components"]["schemas"]["Job"])
    assert sorted(shown) == sorted(row["field"] for row in table("Jobs"))
    for row in table("Jobs"):
        if row["default"] == READ_ONLY:
            assert (row["type"], row["range"]) == shown[row["field"]][:2], row["field"]
            assert row["field"] in openapi["components"]["schemas"]["Job"]["required"]


def test_a_patch_takes_the_same_fields(openapi: Any) -> None:
    patch = openapi["components"]["schemas"]["JobPatch"]
    assert {name: range_of(one) for name, one in patch["properties"].items()} == {
        row["field"]: row["range"] for row in writable()
    }


def test_the_models_of_the_code_have_these_ranges_and_defaults() -> None:
    """Not by way of the OpenAPI document: the constraints that pydantic checks."""
    found = {}
    for field in JobCreate.model_fields.values():
        limits = {
            name: getattr(one, name)
            for one in [*field.metadata, *_inside(field.annotation)]
            for name in ("ge", "le")
            if hasattr(one, name)
        }
        if limits:
            found[field.alias] = _span(limits["ge"], limits["le"], "")
    assert found == {
        row["field"]: row["range"] for row in writable() if re.match(r"(integer|number)", row["type"])
    }


def _inside(annotation: Any) -> Iterator[Any]:
    """What is annotated within a union, such as the number of "number or null"."""
    for part in get_args(annotation):
        for one in getattr(part, "__metadata__", ()):
            yield from getattr(one, "metadata", [one])


SMALLEST = {"schedule": "@every 48h", "api": "https://example.com/hook"}


def accepted(**fields: Any) -> bool:
    try:
        parse_job_create({**SMALLEST, **fields}, check_target=lambda _url: None)
    except InvalidInput as error:
        refused = {fault.pointer.split("/")[1] for fault in error.faults}
        if refused != set(fields):
            raise
        return False
    return True


def test_defaults_are_what_a_job_gets_that_gives_nothing() -> None:
    job = spec_json(parse_job_create(SMALLEST, check_target=lambda _url: None))
    wrong = {
        row["field"]: (row["default"], job[row["field"]])
        for row in writable()
        if row["default"] not in (REQUIRED, default_of("", {"default": job[row["field"]]}, ()))
        and row["field"] != "isRecurring"  # null means: as the schedule says
    }
    assert wrong == {}


def long_cron(length: int) -> str:
    """A cron expression of so many characters."""
    minutes = length - len(" * * * *")
    return f"{'0' * (1 - minutes % 2)}{'0,' * ((minutes - 1) // 2)}0 * * * *"


#: A value of exactly so many characters, where "xxx…" is not one.
SAMPLES = {"schedule": long_cron, "api": lambda length: "https://example.com/".ljust(length, "x")}
#: The number-th value of a list.
SEVERAL = {
    "secretHeaders": lambda number: f"X-{number}",
    "successStatus": lambda number: str(200 + number),
    "noRetryStatus": lambda number: str(400 + number),
    "tags": lambda number: f"tag {number}",
}
#: Nothing of that length is valid; the limit only says from where on nobody looks.
GUARDS = {"timezone", "startAt", "endAt"}


def ends_of(row: Row) -> list[tuple[Any, bool]]:
    """Values at and beyond the ends of a field's range, and whether each is to be accepted."""
    name, text = row["field"], row["range"]
    found: list[tuple[Any, bool]] = []
    if numbers := re.fullmatch(r"([\d.]+)–(\d+)", text):
        kind = int if row["type"].startswith("integer") else float
        low, high = (kind(each) for each in numbers.groups())
        step = 1 if kind is int else 0.001
        return [(low, True), (high, True), (low - step, False), (high + step, False)]
    if lengths := re.search(r"(?:(\d+)–|at most )(\d+) characters", text):
        least, most = int(lengths[1] or 0), int(lengths[2])
        sample = SAMPLES.get(name, lambda length: "x" * length)
        found = [(sample(most), name not in GUARDS), (sample(most + 1), False)]
        if least:
            found.append(("", False))
        if row["type"].startswith("array"):
            found = [([one], well) for one, well in found]
    if entries := re.search(r"at most (\d+) entries", text):
        most = int(entries[1])
        found = [
            ({f"X-{number}": "" for number in range(count)}, count == most) for count in (most, most + 1)
        ]
    if items := re.search(r"(?:(\d+)–|at most )(\d+) items", text):
        least, most = int(items[1] or 0), int(items[2])
        counts = [(most, True), (most + 1, False), (least, True), *([(0, False)] if least else [])]
        found += [([SEVERAL[name](number) for number in range(count)], well) for count, well in counts]
    return found


@pytest.mark.parametrize("row", writable(), ids=lambda row: row["field"])
def test_ends_of_a_range_are_accepted_and_what_lies_beyond_is_refused(row: Row) -> None:
    ends = ends_of(row)
    assert ends or not re.search(r"\d", row["range"]), row["range"]
    assert [(one, accepted(**{row["field"]: one})) for one, _well in ends] == ends


@pytest.mark.parametrize("row", [row for row in writable() if is_choice(row)], ids=lambda row: row["field"])
def test_every_choice_is_accepted_and_no_other(row: Row) -> None:
    choices = values(row["range"])
    assert [
        one for one in [*choices, "other", choices[0].swapcase()] if accepted(**{row["field"]: one})
    ] == choices


def test_a_pool_takes_these_characters_and_no_others() -> None:
    [pattern] = [re.search(r"\^.*", row["range"]) for row in writable() if row["field"] == "pool"]
    assert pattern
    printable = [chr(code) for code in range(0x20, 0x180)]
    taken = [character for character in printable if accepted(pool=character)]
    assert taken == [character for character in printable if re.fullmatch(pattern[0], character)]


def test_the_command_line_has_an_option_for_each_field() -> None:
    assert sorted(field.name for field in FIELDS) == sorted(row["field"] for row in writable())
    choices = {field.name: list(field.choices) for field in FIELDS if field.choices}
    assert choices == {
        row["field"]: values(row["range"]) for row in writable() if is_choice(row) and row["field"] in choices
    }


# ---------------------------------------------------------------------------------------------------------------
# Other requests, answers, calls


def test_requests_and_answers_have_these_fields(openapi: Any) -> None:
    schemas = openapi["components"]["schemas"]
    names = [heading.strip("`") for heading in headings(3)]
    assert sorted(names) == sorted(set(schemas) - {"Job", "JobCreate", "JobPatch"})
    for name in names:
        rows, schema = table(f"`{name}`"), schemas[name]
        if "default" in rows[0]:
            assert told(rows) == rows_of(schema), name
            continue
        assert {row["field"]: (row["type"], row["range"]) for row in rows} == {
            field: of[:2] for field, of in rows_of(schema).items()
        }, name
        sometimes = {row["field"] for row in rows if "left out" in row["meaning"]}
        assert set(schema["properties"]) - set(schema["required"]) == sometimes, name


def operations(openapi: Any) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        if method in {"get", "put", "post", "patch", "delete"}
    }


def test_calls_have_these_roles_and_answers(openapi: Any) -> None:
    found = {}
    for call, operation in operations(openapi).items():
        statuses = sorted(status for status in operation["responses"] if status != "default")
        found[call] = (
            operation.get("x-required-role", "open"),
            " ".join(status for status in statuses if status < "400"),
            " ".join(status for status in statuses if status >= "400"),
        )
    assert {row["call"]: (row["role"], row["answers"], row["errors"]) for row in table("Calls")} == found


def test_calls_take_these_parameters(openapi: Any) -> None:
    found = set()
    for call, operation in operations(openapi).items():
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            default = REQUIRED if parameter.get("required") else default_of("", schema, ())
            place = {"query": parameter["name"], "header": f"{parameter['name']}:"}.get(parameter["in"])
            if place:
                found.add((call, place, kind_of(schema), range_of(schema), default))
    rows = [
        (row["call"], row["parameter"], row["type"], row["range"], row["default"])
        for row in table("Parameters")
    ]
    written = {
        (call, *rest) for call in operations(openapi) for names, *rest in rows if call in names.split(", ")
    }
    assert written == found


def test_lists_take_these_limits() -> None:
    [row] = [row for row in table("Parameters") if row["parameter"] == "limit"]
    low, high = map(int, row["range"].split("–"))
    assert read_query(ListQuery, MultiDict()).limit == int(row["default"])
    for limit, well in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        try:
            assert read_query(ListQuery, MultiDict({"limit": str(limit)})).limit == limit
        except InvalidInput:
            assert not well
        else:
            assert well


# ---------------------------------------------------------------------------------------------------------------
# States, error codes, problems


def test_sets_of_names_are_those_of_the_code(openapi: Any) -> None:
    job = {row["field"]: row["range"] for row in table("Jobs")}
    assert {row["set"]: tuple(values(row["names"])) for row in table("Names")} == {
        "live states": states.LIVE,
        "final states": states.FINAL,
        "triggers": states.TRIGGERS,
        "roles": get_args(Role),
        "queues of a pool": queues.queues_of("<pool>"),
    }
    schemas = openapi["components"]["schemas"]
    assert schemas["Execution"]["properties"]["state"]["enum"] == [*states.STATES]
    assert values(job["lastState"]) == [*states.STATES]
    assert [row["state"] for row in _bare(table("States of an execution", "states.md"))] == [*states.STATES]


def _bare(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key} for row in rows]


def test_error_codes_are_those_of_the_code_and_of_the_document_of_errors() -> None:
    told_of = {row["errorCode"]: row["of"] for row in table("Error codes")}
    assert sorted(told_of) == sorted(get_args(outcome.ErrorCode))
    of = {
        "the target": "The target",
        "the worker": "The worker",
        "slots that were not run": "Slots that were not run",
    }
    for name, heading in of.items():
        explained = [row["code"] for row in table(heading, "errors.md")]
        assert sorted(explained) == sorted(code for code, place in told_of.items() if place == name), heading


def test_problems_are_those_of_the_code_and_of_the_document_of_errors() -> None:
    contract = {(int(row["status"]), row["type"]) for row in table("Problems")}
    assert contract == problems_of_the_code()
    explained = set()
    for row in table("Problem documents", "errors.md"):
        statuses = [int(each) for each in row["status"].split(",")]
        codes = [each.strip() for each in row["type ends in"].split(",")]
        if len(statuses) == 1:
            statuses *= len(codes)
        explained |= set(zip(statuses, codes, strict=True))
    assert explained == contract


def problems_of_the_code() -> set[tuple[int, str]]:
    """Of the tree of errors; of gunicorn's refusals; and wherever a status stands beside a code."""
    found = {
        (status, one.code)
        for kind, status in web_errors._STATUS.items()
        for one in (kind, *kind.__subclasses__())
    }
    found |= {(status, code) for _kind, status, code in server._STATUS}
    for path in WEB.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "RequestRefused",
                "problem_response",
            ):
                status, code = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    found.add((status.value, code.value))
    return found


def test_openapi_names_no_other_status(openapi: Any) -> None:
    named = {
        int(status)
        for operation in operations(openapi).values()
        for status in operation["responses"]
        if status != "default" and status >= "400"
    }
    assert named <= {int(row["status"]) for row in table("Problems")}


# ---------------------------------------------------------------------------------------------------------------
# Limits, settings, headers, exit codes


def limits_of_the_code() -> dict[str, float]:
    return {
        "body of a request, in bytes": body.MAX_BODY_BYTES,
        "body of a bulk, in bytes": bulk.MAX_BULK_BYTES,
        "jobs in a bulk": bulk.MAX_JOBS,
        "runs that one look ahead lists": preview.MAX_RUNS,
        "levels of JSON": json_text.MAX_DEPTH,
        "faults that one answer names": validation.MAX_FAULTS,
        "ids in one redrive or discard": requests.MAX_IDS,
        "payload, in bytes of JSON": spec_fields.MAX_PAYLOAD_BYTES,
        "headers of a job": spec_fields.MAX_HEADERS,
        "headers of a job together, in bytes": spec_fields.MAX_HEADERS_BYTES,
        "URL of a job, in characters": targets.MAX_URL_LENGTH,
        "schedule, in characters": schedule.LONGEST_TEXT,
        "redirects that are followed": redirect.MAX_REDIRECTS,
        "slots that run at one catch-up": misfire.FIRE_ALL_LIMIT,
        "waiting executions of one job": plan.BACKLOG_LIMIT,
        "lost workers after which an execution is given up": retry.POISON_LOSSES,
        "seconds until a silent process is dead": watch.DEAD_AFTER,
        "hours that an idempotency key is kept": idempotency.KEPT_HOURS,
        "signing secrets that are active at once": signing.MOST_ACTIVE,
        "seconds in Retry-After of a 503": web_errors.RETRY_AFTER_SECONDS,
    }


def test_limits_are_those_of_the_code() -> None:
    assert {
        row["limit"]: float(row["value"].replace(",", "")) for row in table("Limits")
    } == limits_of_the_code()


def test_settings_have_these_defaults() -> None:
    defaults = {environment_name(name): info.default for name, info in Settings.model_fields.items()}
    found = {row["name"]: defaults[row["name"]] for row in table("Settings")}
    written = {row["name"]: row["default"].replace(",", "") for row in table("Settings")}
    assert written == {
        name: ",".join(default) if isinstance(default, tuple) else _number(default)
        for name, default in found.items()
    }


def test_a_callback_carries_these_headers() -> None:
    call = build(
        execution_id=1, job_id=2, attempt=3, incarnation="abc123", scheduled_for=datetime(2026, 1, 1, tzinfo=UTC),
        trigger="schedule", method="POST", url="https://example.com/hook", job_headers={}, payload_json="1",
        timeout_seconds=30, follow_redirects=False, at_most_once=False, now=datetime(2026, 1, 1, tzinfo=UTC),
        signatures=lambda *_: "v1,signature",
    )  # fmt: skip
    assert sorted(row["header"] for row in table("Headers of a callback")) == sorted(dict(call.headers))


def test_commands_end_with_these_codes() -> None:
    contract = {int(row["code"]): row["meaning"] for row in table("Exit codes")}
    names = ("FAILED", "USAGE", "UNREACHABLE", "NOT_FOUND", "NOT_ALLOWED")
    assert set(contract) == {0, *(getattr(cli_errors, name) for name in names), signals.FORCED_EXIT_CODE}
    assert sorted(contract) == sorted(int(row["code"]) for row in table("Exit codes", "cli.md"))

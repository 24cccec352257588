"""Conventions that matter are tests: layers, fences, and documents that say what the code does.

Nothing here starts a server or a process. An exception to a rule stands in a list beside it, with its reason.
"""

import ast
import configparser
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import jsonschema
import pytest
from openapi_spec_validator import validate as validate_openapi

import jobsched
from jobsched.config import Settings, environment_name
from jobsched.domain import states
from jobsched.domain.outcome import ErrorCode
from jobsched.web.auth import OPEN_PATHS
from jobsched.web.document import operations
from tests.described import application, openapi_document

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCES = sorted((ROOT / "jobsched").rglob("*.py"))
CODE = [*SOURCES, *sorted((ROOT / "migrations").glob("*.py"))]

# ---------------------------------------------------------------------------------------------------------------
# Layers and fences

#: docs/architecture.md, "Layers". A part imports parts below it, never beside it.
LAYERS = (
    ("errors", "client", "lines", "__init__"),
    ("config", "clock", "log"),
    ("failpoint", "metrics"),
    ("domain",),
    ("db", "queue", "callback", "embedded"),
    ("runtime",),
    ("web", "poller", "worker", "doctor"),
    ("wiring",),
    ("cli", "testing"),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

#: A module that may import one part against the rule, and why.
UPWARD = {
    # `jobsched up` is a process that puts the others together; only its servers are an adapter.
    ("jobsched.embedded.up", "runtime"),
    # It makes the first key as `jobsched keys create` does, in its own process, once the servers answer.
    ("jobsched.embedded.up", "wiring"),
}

#: Library → the parts of jobsched that may import it. ``testing`` may import all.
FENCES = {
    "peewee": {"db"},
    "playhouse": {"db"},
    "psycopg": {"db"},
    "redis": {"queue", "worker"},
    "rq": {"queue", "worker"},
    "flask": {"web"},
    "flask_openapi3": {"web"},
    "werkzeug": {"web"},
    "gunicorn": {"web"},
    "greenlet": {"worker"},
    "pycurl": {"callback"},
    "requests": {"client"},
    "structlog": {"log"},
    "prometheus_client": {"metrics"},
    "click": {"cli"},
    "rich": {"cli"},
    "croniter": set(),
}
FENCE_EXCEPTIONS = {
    # Only names of types, for annotations.
    ("jobsched.wiring", "flask"),
    ("jobsched.wiring", "redis"),
}

#: May read the environment: the settings, and the client, which imports nothing of ours.
READS_ENVIRONMENT = {"jobsched.config", "jobsched.client.discovery"}
#: Talk to a person at a terminal.
PRINTS = {"cli", "embedded", "doctor", "testing"}
#: Run in a process of the user's or of a test, where no stop protocol could be held up. Ours nap on an Event.
SLEEPS = {"client", "cli", "testing"}

LONGEST_MODULE = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of jobsched that a module belongs to: ``jobsched.db.claims`` → ``db``."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "__init__"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Everything that a module imports, at its top or inside functions, as dotted names."""
    found: list[str] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module, path
            assert node.level == 0, f"{path}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


def test_imports_point_down() -> None:
    broken = []
    for path in SOURCES:
        module = module_name(path)
        here = part_of(module)
        for name in imports(path):
            if not name.startswith("jobsched."):
                continue
            there = part_of(name)
            if there not in LEVEL:
                there = "__init__"  # a name of the package itself, such as __version__
            down = LEVEL[there] < LEVEL[here] or there == here
            if not down and (module, there) not in UPWARD:
                broken.append(f"{module} imports {name}")
    assert broken == []


def test_every_part_has_a_layer() -> None:
    assert {part_of(module_name(path)) for path in SOURCES} == set(LEVEL)


def test_the_client_imports_nothing_of_ours() -> None:
    outside = [
        f"{module_name(path)} imports {name}"
        for path in SOURCES
        if part_of(module_name(path)) == "client"
        for name in imports(path)
        if name.startswith("jobsched.") and part_of(name) != "client"
    ]
    assert outside == []


def test_libraries_stay_behind_their_fences() -> None:
    broken = []
    for path in SOURCES:
        module = module_name(path)
        for name in imports(path):
            library = name.partition(".")[0]
            allowed = FENCES.get(library)
            if allowed is None or part_of(module) in allowed | {"testing"}:
                continue
            if (module, library) not in FENCE_EXCEPTIONS:
                broken.append(f"{module} imports {name}")
    assert broken == []


def test_the_domain_is_pure() -> None:
    """No I/O, no clock and no randomness of its own; the one thing it takes from the clock is how to write a time."""
    forbidden = (
        "os",
        "socket",
        "time",
        "random",
        "secrets",
        "threading",
        "logging",
        "pathlib",
        "jobsched.log",
        "jobsched.lines",
    )
    broken = [
        f"{module_name(path)} imports {name}"
        for path in SOURCES
        if part_of(module_name(path)) == "domain"
        for name in imports(path)
        if name.startswith(tuple(f"{each}." for each in forbidden))
        or name in forbidden
        or (name.startswith("jobsched.clock.") and name != "jobsched.clock.rfc3339")
    ]
    now = [
        f"{module_name(path)}:{node.lineno}"
        for path in SOURCES
        if part_of(module_name(path)) == "domain"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
    ]
    assert broken + now == []


def test_only_the_configuration_reads_the_environment() -> None:
    readers = {
        module_name(path)
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "environb", "getenv", "putenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    readers |= {
        module_name(path) for path in SOURCES for name in imports(path) if name in {"os.environ", "os.getenv"}
    }
    assert readers == READS_ENVIRONMENT


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call of a plain name or of an attribute of one."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                yield node.lineno, function.id
            elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                yield node.lineno, f"{function.value.id}.{function.attr}"


@pytest.mark.parametrize(("call", "allowed"), [("print", PRINTS), ("time.sleep", SLEEPS), ("sleep", SLEEPS)])
def test_nothing_prints_or_sleeps_where_it_must_not(call: str, allowed: set[str]) -> None:
    found = [
        f"{module_name(path)}:{line}"
        for path in SOURCES
        if part_of(module_name(path)) not in allowed
        for line, name in calls(path)
        if name == call
    ]
    assert found == []


def test_no_module_is_too_long() -> None:
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_nothing_is_left_to_do_in_comments() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    folders = ("jobsched", "migrations", "tests", "bench", "scripts", "docker", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        if "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if mark.search(line)
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        module_name(path)
        for path in CODE
        if path != ROOT / "migrations" / "__init__.py" and not (ast.get_docstring(tree(path)) or "").strip()
    ]
    assert silent == []


# ---------------------------------------------------------------------------------------------------------------
# The package


#: Imported by a name of its own, and released together with a library that is required: Peewee, Flask, pydantic.
PARTS_OF_A_LIBRARY = {"playhouse", "werkzeug", "markupsafe", "pydantic_core"}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_setup_lists_every_package() -> None:
    listed = setup_cfg()["options"]["packages"].split()
    folders = sorted(module_name(path) for path in SOURCES if path.name == "__init__.py")
    assert sorted(listed) == sorted([*folders, "jobsched.migrations"])
    assert listed == sorted(listed)


def test_every_library_that_is_imported_is_required() -> None:
    """Not what happens to come with another one."""
    requirement = re.compile(r"^[A-Za-z0-9_-]+")
    required = {
        match.group().lower().replace("-", "_")
        for line in setup_cfg()["options"]["install_requires"].splitlines()
        if (match := requirement.match(line.strip()))
    }
    required |= PARTS_OF_A_LIBRARY
    names = {name.partition(".")[0] for path in CODE for name in imports(path)}
    standard = set(sys.stdlib_module_names) | {"jobsched"}
    assert sorted(names - standard - required) == []


def test_the_version_stands_in_the_changelog() -> None:
    headings = re.findall(
        r"^## \[(.+?)\] - (\d{4}-\d\d-\d\d|unreleased)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert headings, "no heading such as: ## [0.1.0] - 2026-01-31"
    assert headings[0][0] == jobsched.__version__


# ---------------------------------------------------------------------------------------------------------------
# Documents


def text_of(*names: str) -> str:
    return (ROOT.joinpath(*names)).read_text(encoding="utf-8")


def first_column(text: str) -> list[str]:
    """What stands in code marks at the beginning of each table row."""
    return re.findall(r"^\| `([^`]+)`", text, re.M)


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    documented = first_column(text_of("docs", "configuration.md"))
    of_the_client = {"JOBSCHED_URL", "JOBSCHED_API_KEY"}
    assert sorted(documented) == sorted(
        {environment_name(field) for field in Settings.model_fields} | of_the_client
    )


def test_documented_defaults_are_the_real_ones() -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", text_of("docs", "configuration.md"), re.M))
    wrong = {}
    for field, info in Settings.model_fields.items():
        default: Any = info.default
        if default is None or default == ():
            continue  # described in words
        if isinstance(default, bool):
            shown = str(default).lower()
        elif isinstance(default, tuple):
            shown = ",".join(default)
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
        if rows[environment_name(field)].split()[0].strip("`").replace(",", "") != shown:
            wrong[environment_name(field)] = (rows[environment_name(field)], shown)
    assert wrong == {}


def test_every_error_code_is_explained() -> None:
    explained = first_column(text_of("docs", "errors.md"))
    assert [code for code in get_args(ErrorCode) if code not in explained] == []


def test_the_document_of_states_is_the_table_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (live|final) \| .*? \| ([^|]*) \|$", text_of("docs", "states.md"), re.M
    )
    assert {name: tuple(re.findall(r"`(\w+)`", targets)) for name, _, targets in rows} == states.MOVES
    assert tuple(name for name, kind, _ in rows if kind == "live") == states.LIVE
    assert tuple(name for name, kind, _ in rows if kind == "final") == states.FINAL


def test_the_diagram_of_states_shows_every_move() -> None:
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", text_of("docs", "states.md"), re.M))
    moves = {(source, target) for source, targets in states.MOVES.items() for target in targets}
    assert drawn == moves


def test_the_schema_checks_the_states_of_the_code() -> None:
    schema: str = first_migration().SCHEMA
    tables = dict(re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", schema, re.S))

    def checked(table: str, column: str) -> tuple[str, ...]:
        found = re.search(rf"\b{column} text NOT NULL\s+CHECK \({column} IN \((.*?)\)\)", tables[table], re.S)
        assert found, (table, column)
        return tuple(re.findall(r"'(\w+)'", found.group(1)))

    assert checked("execution", "state") == states.LIVE
    assert checked("execution_history", "state") == states.FINAL
    assert checked("job_last", "last_state") == states.FINAL
    assert checked("execution", "trigger") == states.TRIGGERS


def first_migration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("first_migration", ROOT / "migrations" / "0001_initial.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_log_event_is_explained() -> None:
    """At warning and above: what somebody is woken by, they can look up."""
    explained = first_column(text_of("docs", "operations.md"))
    events = {
        node.args[0].value
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and ast.unparse(node.func).rpartition(".")[2]
        in {"warning", "error", "exception", "critical", "Outage"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and re.fullmatch(r"[a-z]+(_[a-z]+)+", str(node.args[0].value))
    }
    assert sorted(events - set(explained)) == []


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *DOCS.glob("*.md")]


def test_links_between_documents_lead_somewhere() -> None:
    dead = []
    for path in documents():
        # Not what stands in code blocks and code marks.
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", prose):
            target = (link[0] or link[1]).partition("#")[0]
            if target and not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)}: {target}")
    assert dead == []


def test_documents_name_only_hosts_that_everybody_may_see() -> None:
    """Reserved names (RFC 2606), this machine, and the homes of the standards that we quote."""
    allowed = re.compile(
        r"(.+\.)?example\.(com|org|net)|.+\.invalid|localhost|127\.0\.0\.1|\[::1\]|[a-z]+|[…{].*|"
        r"(keepachangelog|semver)\.(com|org)|(www\.)?(w3|rfc-editor)\.org"
    )
    hosts = {
        (str(path.relative_to(ROOT)), match)
        for path in documents()
        for match in re.findall(r"[a-z]+://(?:[^/@\s`'\"]*@)?(\[[^\]]+\]|[^/:\s`'\"<>)]+)", path.read_text())
    }
    assert sorted((path, host) for path, host in hosts if not allowed.fullmatch(host)) == []


# ---------------------------------------------------------------------------------------------------------------
# The HTTP API's own document


@pytest.fixture(scope="module")
def app() -> Any:
    """The application on services that are never called."""
    return application()


@pytest.fixture(scope="module")
def document() -> Any:
    """What ``GET /openapi.json`` answers."""
    return openapi_document()


#: Serve the document itself and the page made from it.
UNDOCUMENTED = {"/openapi.json", "/docs", "/docs/style.css"}


def test_every_route_stands_in_the_document_with_a_description(app: Any, document: Any) -> None:
    missing = []
    for rule in app.url_map.iter_rules():
        if rule.rule in UNDOCUMENTED:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            operation = document["paths"].get(path, {}).get(method.lower(), {})
            if not operation.get("summary") or not operation.get("description"):
                missing.append(f"{method} {path}")
    assert missing == []


def test_every_route_is_described_for_people(document: Any) -> None:
    lines = text_of("docs", "api.md").splitlines()

    def told(method: str, path: str) -> bool:
        """In one line, whole or shortened: ``POST /api/v1/jobs/{id}/pause``, ``/resume``."""
        parent, _, last = path.rpartition("/")
        whole = re.compile(rf"{re.escape(path)}(?![\w/])")
        return any(
            re.search(rf"\b{method}\b", line)
            and (whole.search(line) or (parent in line and f"`/{last}`" in line))
            for line in lines
        )

    missing = [
        f"{method.upper()} {path}"
        for path, method, _ in operations(document)
        if not told(method.upper(), path)
    ]
    assert missing == []


def test_the_document_is_valid_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    validate_openapi(document)


def described_schemas(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and schema of whatever the document describes: fields of bodies and answers, parameters, headers."""
    for name, schema in document["components"]["schemas"].items():
        for field, value in schema.get("properties", {}).items():
            yield f"{name}.{field}", value
    for name, header in document["components"]["headers"].items():
        yield name, header
    for path, method, operation in operations(document):
        for parameter in operation["parameters"]:
            yield f"{method} {path} {parameter['name']}", parameter


def test_every_field_has_a_description(document: Any) -> None:
    names = [name for name, value in described_schemas(document) if not value.get("description")]
    names += [
        name for name, schema in document["components"]["schemas"].items() if "description" not in schema
    ]
    assert names == []


def test_every_answer_is_listed_with_its_headers_and_an_example(document: Any) -> None:
    broken = []
    for path, method, operation in operations(document):
        bodies = list(operation.get("requestBody", {}).get("content", {}).items())
        for status, answer in operation["responses"].items():
            if status == "default" or "X-Request-Id" not in answer["headers"] or not answer["description"]:
                broken.append(f"{method} {path} {status}")
            if ("content" in answer) == (status in {"204", "304"}):
                broken.append(f"{method} {path} {status}: content")
            bodies += answer.get("content", {}).items()
        broken += [f"{method} {path} {kind}: no example" for kind, media in bodies if not media["examples"]]
    assert broken == []


def test_every_example_is_valid_where_it_stands(document: Any) -> None:
    examples = document["components"]["examples"]
    shown = set()
    for path, method, operation in operations(document):
        media = [*operation.get("requestBody", {}).get("content", {}).values()]
        media += [
            one for answer in operation["responses"].values() for one in answer.get("content", {}).values()
        ]
        for one in media:
            for key in one["examples"]:
                shown.add(key)
                faults = faults_of(document, one["schema"], examples[key]["value"])
                assert faults == [], f"{method} {path}: {key}"
    assert shown == examples.keys()


def test_examples_of_fields_and_parameters_are_valid(document: Any) -> None:
    for name, value in described_schemas(document):
        schema = value.get("schema", value)
        for example in schema.get("examples", []):
            assert faults_of(document, schema, example) == [], name


def faults_of(document: Any, schema: Any, value: Any) -> list[str]:
    """What is wrong with ``value`` by a schema of the document."""
    whole = {**schema, "components": document["components"]}
    return [fault.message for fault in jsonschema.Draft202012Validator(whole).iter_errors(value)]


#: Fields of answers that may be missing, and why.
LEFT_OUT = {
    # Most problems have no faults to list.
    "Problem.errors",
}


def test_answers_are_closed_and_whole(document: Any) -> None:
    """No field but those that are described, and all of them."""
    schemas = document["components"]["schemas"]
    answered = [
        media["schema"]
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        for media in answer.get("content", {}).values()
    ]
    seen, broken = set(), []
    names = set(re.findall(r"#/components/schemas/(\w+)", str(answered)))
    while names - seen:
        name = (names - seen).pop()
        seen.add(name)
        schema = schemas[name]
        names |= set(re.findall(r"#/components/schemas/(\w+)", str(schema)))
        fields = {f"{name}.{field}" for field in schema["properties"]}
        required = {f"{name}.{field}" for field in schema["required"]}
        if schema.get("additionalProperties") is not False or fields - required - LEFT_OUT:
            broken.append(name)
    assert seen >= {"Job", "Execution", "DeadLetter", "Problem", "QueueStats"}
    assert broken == []


def test_every_call_but_the_open_ones_needs_a_key(document: Any) -> None:
    open_paths = {path for path, _, operation in operations(document) if not operation["security"]}
    assert open_paths == {"/health", "/ready"}
    assert open_paths | UNDOCUMENTED == OPEN_PATHS
    for _, _, operation in operations(document):
        if operation["security"]:
            assert operation["security"] == [{"bearer": []}]
            assert operation["x-required-role"] in {"read", "write", "admin"}


def test_links_lead_to_calls_by_parameters_that_they_take(document: Any) -> None:
    by_id = {operation["operationId"]: operation for _, _, operation in operations(document)}
    links = [
        link
        for operation in by_id.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert links
    for link in links:
        taken = {f"{one['in']}.{one['name']}" for one in by_id[link["operationId"]]["parameters"]}
        assert link["parameters"].keys() <= taken

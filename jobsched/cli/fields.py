"""The fields of a job as options: one table, from which every option is made and every value is read.

Whether a value is allowed is the server's to say, which lists all faults at once; here stands only what shape
it has.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

import click

from jobsched.cli.documents import read_text

Kind = Literal["text", "int", "number", "switch", "json", "headers", "list"]
Command = TypeVar("Command", bound=Callable[..., Any])

#: Options that are repeated, once a value, have the singular.
_SINGULAR = {"headers": "header", "secretHeaders": "secretHeader", "tags": "tag"}


class Field(NamedTuple):
    """A field of a job: its name in the API, the shape of its value, what --help says."""

    name: str
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The option's name: kebab case, and singular where it is repeated: ``headers`` → ``header``."""
        name = _SINGULAR.get(self.name, self.name)
        return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)


#: The fields by what they are for, in the order of --help.
SECTIONS: dict[str, tuple[Field, ...]] = {
    "What is called, and when": (
        Field("schedule", "text", "Cron (5 or 6 fields), @every 5m, @daily, @in 10m, or an instant."),
        Field("timezone", "text", "IANA time zone of the schedule (UTC)."),
        Field("api", "text", "The URL to call."),
        Field("method", "text", "GET HEAD POST PUT PATCH DELETE or OPTIONS (POST)."),
        Field("headers", "headers", "A header of the call. May be repeated."),
        Field("secretHeaders", "list", "Name of a header whose value is never shown. May be repeated."),
        Field("payload", "json", "The call's body: JSON, @FILE, or @- for standard input."),
    ),
    "How to find it": (
        Field("key", "text", "Your own key for the job, unique in the project."),
        Field("name", "text", "A name for people."),
        Field("description", "text", "What the job is for."),
        Field("tags", "list", "A label to filter by. May be repeated."),
    ),
    "What is a failure, and what then": (
        Field("timeoutSeconds", "number", "Limit of a whole call: 0.1 to 1800 (30)."),
        Field("successStatus", "list", "Answers that are a success: 404, 200-299. May be repeated."),
        Field("noRetryStatus", "list", "Answers that fail for good at once. May be repeated."),
        Field("followRedirects", "switch", "Follow up to 5 redirects (no)."),
        Field("maxRetryCount", "int", "Retries after a failed call: 0 to 100 (3)."),
        Field("minBackoffSeconds", "number", "Wait before the first retry (1)."),
        Field("maxBackoffSeconds", "number", "Longest wait between retries (3600)."),
        Field("backoffFactor", "number", "Growth of the wait: 1 to 10 (2)."),
        Field("backoffJitter", "number", "Random spread of the wait: 0 to 1 (0.1)."),
        Field(
            "type",
            "text",
            "Call again after an unknown end (the default), or never twice.",
            ("AT_LEAST_ONCE", "AT_MOST_ONCE"),
        ),
    ),
    "When and where it runs": (
        Field("startAt", "text", "No slot before this (RFC 3339)."),
        Field("endAt", "text", "No slot after this (RFC 3339)."),
        Field("maxRuns", "int", "Stop after this many slots."),
        Field("isRecurring", "switch", "With --no-is-recurring, a cron runs once, at its next match."),
        Field("isActive", "switch", "With --no-is-active, the job is paused."),
        Field("jitterSeconds", "number", "Spread the job's times over this long (0)."),
        Field(
            "misfirePolicy",
            "text",
            "What becomes of missed slots (fire_once).",
            ("fire_once", "fire_all", "skip"),
        ),
        Field("misfireGraceSeconds", "number", "A slot is missed when it is later than this (60)."),
        Field(
            "overlapPolicy",
            "text",
            "What to do while the last run is not over (allow).",
            ("allow", "skip", "queue"),
        ),
        Field("priority", "int", "0 to 10, higher first (5)."),
        Field("pool", "text", "The pool of workers that runs it (default)."),
    ),
}
FIELDS = tuple(field for fields in SECTIONS.values() for field in fields)
_BY_OPTION = {field.option: field for field in FIELDS}
_SECTION_OF = {field.name: title for title, fields in SECTIONS.items() for field in fields}


class FieldsCommand(click.Command):
    """A command with an option for each field of a job: --help lists them by what they are for."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those that are no fields of a job last, where the eye is when it has scrolled."""
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in (*SECTIONS, "Options")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                rows[_SECTION_OF.get(parameter.name or "", "Options")].append(record)
        for title, records in rows.items():
            with formatter.section(title):
                formatter.write_dl(records)


def job_options(command: Command) -> Command:
    """Give a command an option for each field of a job. Its values arrive by field name, None = not given."""
    for field in reversed(FIELDS):
        command = _option(field)(command)
    return command


def unset_option(command: Command) -> Command:
    """``--unset FIELD``: fields to go back to their defaults, by their options' names."""
    return click.option(
        "--unset",
        "unset",
        multiple=True,
        metavar="OPTION",
        callback=_fields_to_unset,
        help="Reset a field to its default, such as --unset end-at. May be repeated.",
    )(command)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given on the command line, by their names in the API."""
    found = ((field.name, values.get(field.name)) for field in FIELDS)
    return {
        name: value.value if isinstance(value, Given) else value for name, value in found if value is not None
    }


def read_json(text: str) -> Any:
    """JSON as RFC 8259 has it (no NaN), or click.BadParameter."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON ({error}). Write text with its quotes: '\"text\"'.") from None
    except RecursionError:
        raise click.BadParameter("is nested too deeply.") from None


def payload_value(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """The value of ``--payload``: JSON, ``@FILE`` or ``@-``, wrapped so that null is not "not given"."""
    if text is None:
        return None
    return Given(read_json(read_text(text[1:]) if text.startswith("@") else text))


class Given(NamedTuple):
    """A value that was given, even if it is None."""

    value: Any


def _option(field: Field) -> Callable[[Command], Command]:
    name = f"--{field.option}"
    help_text = field.help
    if field.kind == "switch":
        return click.option(f"{name}/--no-{field.option}", field.name, default=None, help=help_text)
    if field.kind == "headers":
        return click.option(
            name, field.name, multiple=True, metavar="'NAME: VALUE'", callback=_headers, help=help_text
        )
    if field.kind == "list":
        return click.option(name, field.name, multiple=True, metavar="TEXT", callback=_list, help=help_text)
    if field.kind == "json":
        return click.option(name, field.name, metavar="JSON", callback=payload_value, help=help_text)
    if field.choices:
        choice = click.Choice(field.choices, case_sensitive=False)
        return click.option(name, field.name, type=choice, metavar="|".join(field.choices), help=help_text)
    if field.kind == "number":
        return click.option(name, field.name, callback=_number, metavar="NUMBER", help=help_text)
    kind = int if field.kind == "int" else str
    return click.option(name, field.name, type=kind, metavar="N" if kind is int else "TEXT", help=help_text)


def _headers(context: click.Context, parameter: click.Parameter, lines: Iterable[str]) -> Any:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{line!r} is not of the form 'Name: value'.")
        if name.strip().lower() in {known.lower() for known in headers}:
            raise click.BadParameter(f"{name.strip()} is given twice.")
        headers[name.strip()] = value.strip()
    return headers or None


def _list(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    return list(values) or None


def _number(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """A whole number stays whole, so that --json and a later diff show what was typed."""
    if text is None:
        return None
    try:
        return int(text) if text.lstrip("-").isdecimal() else _finite(float(text))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number.") from None


def _finite(number: float) -> float:
    if number - number != 0:
        raise ValueError
    return number


def _fields_to_unset(context: click.Context, parameter: click.Parameter, names: Iterable[str]) -> list[str]:
    fields = []
    for name in names:
        field = _BY_OPTION.get(name.removeprefix("--"))
        if field is None:
            raise click.BadParameter(f"{name!r} is not an option of a job field.")
        fields.append(field.name)
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")

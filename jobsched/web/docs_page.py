"""/docs: the OpenAPI document as one page for people.

Written here, since the packaged viewers (Swagger UI, Redoc, Scalar) bring megabytes of script, and scripts
need a laxer Content-Security-Policy. This page runs none and asks no other host.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from markupsafe import Markup, escape

CSP: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_CODE: Final = re.compile("`([^`]*)`")
_METHODS: Final = ("get", "post", "put", "patch", "delete")

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #2563eb; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
code, pre, .path { font-family: ui-monospace, monospace; font-size: .9em; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; }
details > *:not(summary) { margin-left: 1rem; margin-right: 1rem; }
summary { cursor: pointer; padding: .5rem 1rem; }
summary b { display: inline-block; min-width: 4.5rem; color: var(--accent); }
summary small { opacity: .75; margin-left: .75rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin-bottom: 1rem; }
th, td { border-top: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }
pre { background: var(--soft); overflow-x: auto; padding: .75rem; border-radius: 6px; }
"""


def stylesheet() -> str:
    """The page's style sheet."""
    return _STYLE


def render_docs(spec: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = spec["info"]
    sections = [_section(spec, tag["name"], tag.get("description", "")) for tag in spec.get("tags", [])]
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>{title} API</title><link rel="stylesheet" href="/docs/style.css"></head><body>'
        "<h1>{title} API <small>{version}</small></h1><p>{about}</p>"
        "<p>Every call but those marked open needs <code>Authorization: Bearer &lt;key&gt;</code>. "
        'For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        "{sections}<h2>Errors</h2><p>Every error is a Problem.</p>{errors}"
        "<h2>Shapes</h2>{shapes}</body></html>"
    ).format(
        title=info["title"],
        version=info["version"],
        about=_prose(info.get("description", "")),
        sections=Markup("").join(sections),
        errors=Markup("").join(_errors(spec)),
        shapes=Markup("").join(
            _shape(name, schema) for name, schema in sorted(spec["components"]["schemas"].items())
        ),
    )


def _errors(spec: Mapping[str, Any]) -> list[Markup]:
    """An example of each error, by its status."""
    bad = [
        (status, media)
        for _, _, call in _calls(spec)
        for status, response in call["responses"].items()
        if int(status) >= 400
        for media in _media(response)
    ]
    statuses = sorted({status for status, _ in bad})
    return [
        shown
        for wanted in statuses
        for shown in _examples(spec, wanted, [media for status, media in bad if status == wanted])
    ]


def _section(spec: Mapping[str, Any], tag: str, about: str) -> Markup:
    calls = [
        _call(spec, path, method, call) for path, method, call in _calls(spec) if tag in call.get("tags", [])
    ]
    return Markup("<h2>{}</h2><p>{}</p>{}").format(tag, _prose(about), Markup("").join(calls))


def _calls(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in spec["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _call(spec: Mapping[str, Any], path: str, method: str, call: Mapping[str, Any]) -> Markup:
    role = call.get("x-required-role")
    parts = [
        Markup("<details><summary><b>{}</b> <span class=path>{}</span><small>{}{}</small></summary>").format(
            method.upper(), path, call["summary"], "" if role else " · open"
        ),
        Markup("<p>{}</p>").format(_prose(call.get("description", ""))),
    ]
    if role:
        parts.append(Markup("<p>Role: <code>{}</code></p>").format(role))
    if parameters := call.get("parameters"):
        rows = [
            (item["name"], f"{item['in']} · {_type(item['schema'])}", item.get("description", ""))
            for item in parameters
        ]
        parts.append(_table(("Parameter", "Type", ""), rows))
    if body := call.get("requestBody"):
        content = body["content"]
        kinds = ", ".join(content)
        parts.append(
            Markup("<p>Body: {} <small>({})</small></p>").format(
                _link(next(iter(content.values()))["schema"]), kinds
            )
        )
        parts += _examples(spec, "Body", [next(iter(content.values()))])
    answers = [
        (status, _answer(response), response.get("description", ""))
        for status, response in call["responses"].items()
    ]
    parts.append(_table(("Answer", "Shape", ""), answers))
    good = [response for status, response in call["responses"].items() if int(status) < 400]
    parts += _examples(spec, "Answer", [media for response in good for media in _media(response)])
    return Markup("").join([*parts, Markup("</details>")])


def _media(response: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return (response.get("content") or {}).values()


def _answer(response: Mapping[str, Any]) -> Markup:
    return Markup(", ").join(_link(media["schema"]) for media in _media(response))


def _examples(spec: Mapping[str, Any], verb: str, media: Iterable[Mapping[str, Any]]) -> list[Markup]:
    """The examples of bodies or answers, each folded away under its summary."""
    shown = dict.fromkeys(key for one in media for key in one["examples"])
    examples = [spec["components"]["examples"][key] for key in shown]
    return [
        Markup("<details><summary>{}: {}</summary><pre>{}</pre></details>").format(
            verb, _prose(example["summary"]), json.dumps(example["value"], indent=2, ensure_ascii=False)
        )
        for example in examples
    ]


def _shape(name: str, schema: Mapping[str, Any]) -> Markup:
    required = set(schema.get("required", ()))
    rows = [
        (
            field + (" *" if field in required else ""),
            _type(value) + (f" = {value['default']!r}" if value.get("default") is not None else ""),
            value.get("description", ""),
        )
        for field, value in schema.get("properties", {}).items()
    ]
    return Markup("<details id={}><summary>{}</summary><p>{}</p>{}</details>").format(
        f"shape-{name}", name, _prose(schema.get("description", "")), _table(("Field", "Type", ""), rows)
    )


def _table(head: tuple[str, str, str], rows: list[tuple[Any, Any, Any]]) -> Markup:
    if not rows:
        return Markup("")
    lines = [
        Markup("<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>").format(name, kind, _prose(text))
        for name, kind, text in rows
    ]
    return Markup("<table><tr><th>{}</th><th>{}</th><th>{}</th></tr>{}</table>").format(
        *head, Markup("").join(lines)
    )


def _prose(text: str) -> Markup:
    """A description, with what stands between backquotes as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _link(schema: Mapping[str, Any]) -> Markup:
    name = schema.get("$ref", "").rpartition("/")[2]
    return Markup('<a href="#shape-{0}">{0}</a>').format(name) if name else escape(_type(schema))


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words: ``integer 1–500``, ``string or null``, ``list of State``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(map(_type, choices)))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type", "any JSON"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        kind += f" {'' if low is None else low}–{'' if high is None else high}"
    return f"{kind} ({schema['format']})" if "format" in schema else kind

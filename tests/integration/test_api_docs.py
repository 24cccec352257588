"""docs/errors.md and docs/api.md say what the code does."""

import re
from pathlib import Path
from typing import get_args

from jobsched import errors
from jobsched.domain.outcome import ErrorCode
from tests.integration.api_rig import Api, api

__all__ = ["api"]

DOCS = Path(__file__).parents[2] / "docs"
WEB = Path(__file__).parents[2] / "jobsched" / "web"


def test_every_error_code_is_explained_and_no_other() -> None:
    chapter = (DOCS / "errors.md").read_text(encoding="utf-8").partition("## Problem documents")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", chapter, re.MULTILINE)) == sorted(get_args(ErrorCode))


def test_every_error_that_a_caller_can_get_is_explained() -> None:
    chapter = (DOCS / "errors.md").read_text(encoding="utf-8").partition("## Problem documents")[2]
    internal = {"config", "database", "database_refused", "embedded_server"}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")]
    for code in {kind.code for kind in kinds} - internal:
        assert f"`{code}`" in chapter, code
    sources = "".join(path.read_text(encoding="utf-8") for path in WEB.rglob("*.py"))
    refused = set(re.findall(r'RequestRefused\(\s*\d{3},\s*"(\w+)"', sources))
    assert {"invalid_json", "idempotency_mismatch"} <= refused
    for code in refused:
        assert f"`{code}`" in chapter, code


def test_every_call_is_listed(api: Api) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    spec = api.call("GET", "/openapi.json", key=None).get_json()
    for path in spec["paths"]:
        stem, _, last = path.rpartition("/")
        assert f"{path}`" in text or (f"`/{last}`" in text and stem in text), path


def test_what_stands_in_backquotes_is_code_on_the_page(api: Api) -> None:
    page = api.call("GET", "/docs", key=None).text
    assert "<code>nextCursor</code>" in page
    assert "`" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.S)

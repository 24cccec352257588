"""Every promise of docs/guarantees.md names a test that shows it, and the test is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[str]:
    """The rows of all tables, without their heads."""
    found = []
    lines = TEXT.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not re.fullmatch(r"[|-]+", line) and not re.fullmatch(r"[|-]+", after):
            found.append(line)
    return found


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_are_promises() -> None:
    assert len(rows()) > 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip()[:60])
def test_a_promise_names_a_test_that_exists(row: str) -> None:
    named = _TEST.findall(row)
    assert named, "this promise names no test"
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(path)] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(_?[A-Z]+(?:_[A-Z]+)*)`", TEXT))))
def test_a_constant_that_is_named_exists(name: str) -> None:
    if name.startswith("JOBSCHED_"):
        assert f"`{name}`" in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
        return
    sources = (ROOT / "jobsched").rglob("*.py")
    assert any(re.search(rf"^{name}\b.* = ", path.read_text("utf-8"), re.M) for path in sources)

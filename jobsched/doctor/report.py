"""How a report looks: aligned lines for people, one JSON document for programs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence

from jobsched.doctor.finding import TROUBLE, Check, Finding
from jobsched.lines import mask_text

_LABELS = {"ok": "ok", "info": "info", "warn": "WARN", "fail": "FAIL", "fixed": "fixed", "skipped": "-"}
_WIDTH = 6


class Report:
    """Collects what was found; with ``as_json`` prints it at the end, else each line at once."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._found: list[tuple[Check, Finding]] = []

    def add(self, check: Check, finding: Finding) -> None:
        """Take note of one check's finding."""
        self._found.append((check, finding))
        if not self._as_json:
            print(line(check.name, finding, _columns()), flush=True)

    def end(self) -> int:
        """Say the rest. Returns the exit code: 1 if anything needs somebody, else 0."""
        trouble = any(finding.level in TROUBLE for _check, finding in self._found)
        if self._as_json:
            print(json.dumps(_document(self._found, trouble), indent=2, ensure_ascii=False))
        return int(trouble)


def line(name: str, finding: Finding, columns: int | None) -> str:
    """One check in words; in a terminal of ``columns`` wrapped, with what goes on below set in."""
    text = f"{name}: {finding.text}" if finding.text else name
    if finding.did:
        text += f" Done: {finding.did}."
    text = mask_text(" ".join(text.split()))
    label = f"{_LABELS[finding.level]:<{_WIDTH}}"
    if columns is None:
        return label + text
    return textwrap.fill(
        text,
        max(columns, 40),
        initial_indent=label,
        subsequent_indent=" " * _WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _document(found: Sequence[tuple[Check, Finding]], trouble: bool) -> dict[str, object]:
    return {
        "ok": not trouble,
        "checks": [
            {
                "check": check.key,
                "name": check.name,
                "level": finding.level,
                "message": mask_text(finding.text),
                "done": finding.did or None,
            }
            for check, finding in found
        ],
    }

"""The examples of the documents: every block of code, and a shell that runs them as a reader would."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobsched.testing.stand import Stand
from jobsched.testing.target import Target

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Block:
    """One block of code of a document. ``language`` is empty for an indented one."""

    document: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which lists of exceptions name it."""
        return self.text.strip().splitlines()[0].strip()

    @property
    def name(self) -> tuple[str, str]:
        return self.document, self.first

    @property
    def kind(self) -> str:
        """``shell``, ``python``, ``json``, ``sql``, or the language as it stands."""
        if self.language in ("", "sh", "console"):
            if self.first[0] in "{[":
                return "json"
            return "sql" if re.match(r"(UPDATE|SELECT|INSERT|DELETE) ", self.first) else "shell"
        return self.language


def blocks(document: str) -> list[Block]:
    """All blocks of a document, fenced and indented, from top to bottom."""
    return list(_blocks(document, (ROOT / document).read_text(encoding="utf-8").splitlines()))


def _blocks(document: str, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        if line.startswith("```"):
            end = next(later for later in range(number, len(lines)) if lines[later].startswith("```"))
            yield Block(document, start + 1, line[3:].strip(), "\n".join(lines[number:end]))
            number = end + 1
        elif line.startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            text = "\n".join(each[4:] for each in lines[start:number]).rstrip()
            yield Block(document, start + 1, "", text)


class Reader:
    """Somebody who follows the documents on a machine where jobsched runs, in a folder like a clone.

    Addresses of the documents stand for those of the test; nothing else of an example is changed.
    """

    def __init__(self, stand: Stand, target: Target, folder: Path, curl: str | None) -> None:
        self.stand = stand
        self.target = target
        self.folder = folder
        self.said = ""
        self.functions: list[str] = []
        self.names: dict[str, Any] = {}
        self.addresses = {
            "http://127.0.0.1:8080": stand.url,
            "https://jobs.example.com": stand.url,
            "https://example.com": f"{target.url}/ok",
            "postgresql://user:password@host:5432/jobsched": stand.database_url,
            "redis://host:6379/1": stand.redis_url,
            '"your-key"': json.dumps(stand.key),
        }
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        # A reader's virtual environment: our program, and what the examples take for granted.
        _program(programs / "jobsched", f'exec "{sys.executable}" -m jobsched "$@"')
        _program(programs / "honcho", f'exec "{sys.executable}" -m honcho "$@"')
        _program(programs / "curl", f'exec "{curl or sys.executable}" {"" if curl else _CURL} "$@"')
        (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
        shutil.copy(ROOT / "Procfile", folder)
        # What `jobsched up` writes, so that the command line and the client find the server.
        data = folder / "data"
        data.mkdir()
        for name, text in (("url", stand.url), ("api-key", stand.key)):
            (data / name).write_text(f"{text}\n")
        self.variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "JOBSCHED_DATA_DIR": str(data),
            "PYTHONPATH": str(ROOT),
            "KEY": stand.key,
        }

    def here(self, text: str) -> str:
        """``text`` with the addresses of this test."""
        for theirs, ours in self.addresses.items():
            text = text.replace(theirs, ours)
        return text

    def run(self, text: str, timeout: float = 30.0) -> str:
        """Run a block in ``sh``, as if pasted after those before it; what it printed. Any failure fails."""
        state = self.folder / "variables"
        # Variables are handed on by the environment, which holds no functions.
        script = "\n".join([*self.functions, "set -eua", self.here(text), f"env -0 > {state}", ""])
        done = self._start(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            said, errors = done.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, signal.SIGKILL)
            raise
        assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{said}\n{errors}"
        left = dict(each.split("=", 1) for each in state.read_text().split("\0") if each)
        self.variables |= {name: left[name] for name in left if name not in ("PWD", "OLDPWD", "SHLVL", "_")}
        self.functions += re.findall(r"^\w+\(\) \{.*\}$", text, re.M)
        self.said = said
        return said

    def serve(self, text: str, **variables: str) -> "subprocess.Popen[Any]":
        """Start a block whose commands go on until they are stopped, each in the background."""
        script = _STAYS.sub(r"\1 &", text)
        with (self.folder / "services").open("wb") as output:
            return self._start(
                f"set -eu\n{self.here(script)}\nwait\n", variables, stdout=output, stderr=output
            )

    def _start(
        self, script: str, variables: dict[str, str] | None = None, **more: Any
    ) -> "subprocess.Popen[Any]":
        return subprocess.Popen(
            ["/bin/sh", "-c", script],
            env=self.variables | (variables or {}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **more,
        )


#: A command that goes on until it is stopped, and is not in the background yet.
_STAYS = re.compile(r"^(jobsched (?:api|poller|worker)\b[^&\n]*|honcho start web[^&\n]*)$", re.M)
_CURL = Path(__file__).with_name("curl.py")


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)

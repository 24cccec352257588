"""Reading jobs from a file: one JSON object, an array of them, or one after the other (NDJSON)."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click


class Document(NamedTuple):
    """One job of a file, and where it stands there, for messages."""

    place: str
    job: dict[str, Any]
    in_array: bool = False


def read_documents(path: str) -> list[Document]:
    """All jobs of a file, ``-`` being standard input. Raises click.UsageError before anything is sent.

    Several objects may follow each other with or without line breaks inside, so that NDJSON and the
    output of ``jq`` both work.
    """
    text = read_text(path)
    decoder = json.JSONDecoder()
    found: list[Document] = []
    name = "standard input" if path == "-" else path
    position = _next(text, 0)
    line = 1 + text.count("\n", 0, position)
    while position < len(text):
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise click.UsageError(f"{name}, line {error.lineno}: this is not JSON ({error.msg}).") from None
        except RecursionError:
            raise click.UsageError(f"{name}, line {line}: this is nested too deeply.") from None
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            place = f"{name}, item {number + 1}" if isinstance(value, list) else f"{name}, line {line}"
            if not isinstance(item, dict):
                raise click.UsageError(f'{place}: a job is a JSON object, such as {{"schedule": …}}.')
            found.append(Document(place, item, isinstance(value, list)))
        start, position = position, _next(text, end)
        line += text.count("\n", start, position)
    if not found:
        raise click.UsageError(f"{name} holds no job.")
    return found


def _next(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def read_text(path: str) -> str:
    """The text of a file, ``-`` being standard input, or click.UsageError."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise click.UsageError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8 text.") from None

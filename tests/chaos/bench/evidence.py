"""What a run leaves for whoever looks into it: one timeline of faults and of what the processes said about them."""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.bench.timeline import Timeline

_LOUD = {"warning", "error", "critical"}
_LATER = {"event", "level", "timestamp", "process", "logger"}


def timeline_with_logs(timeline: Timeline, logs: dict[str, Path]) -> str:
    """The timeline, and between its lines what each process logged at warning or above."""
    entries = [(entry.at, entry.kind, entry.text) for entry in timeline.entries]
    for name, path in logs.items():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        entries += [(said[0], name, said[1]) for line in lines if (said := _loud(line)) is not None]
    entries.sort(key=lambda entry: entry[0])
    return "".join(f"{at - timeline.began:8.2f}  {kind:<22} {text}\n" for at, kind, text in entries)


def keep(folder: Path, text: str, stand: Path) -> None:
    """Put the timeline and everything that was logged into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "timeline.txt").write_text(text, encoding="utf-8")
    shutil.copytree(stand / "log", folder / "log", dirs_exist_ok=True)
    for path in stand.glob("*.jsonl"):
        shutil.copy(path, folder)


def _loud(line: str) -> tuple[float, str] | None:
    try:
        said: dict[str, Any] = json.loads(line)
        if said.get("level") not in _LOUD:
            return None
        at = datetime.fromisoformat(said["timestamp"]).timestamp()
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    fields = " ".join(f"{name}={str(value)[:160]!r}" for name, value in said.items() if name not in _LATER)
    return at, f"{said.get('event')} {fields}"

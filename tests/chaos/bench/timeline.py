"""What happened when: one list for all threads, for people and for programs."""

import json
import threading
import time
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """``at`` is ``time.time()``; ``kind`` one word, such as strike, healed, started, ended."""

    at: float
    kind: str
    text: str


class Timeline:
    """Begins when it is made. Thread-safe."""

    def __init__(self) -> None:
        self.began = time.time()
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(self, kind: str, text: str) -> None:
        """Note something that happened just now."""
        with self._lock:
            self._entries.append(Entry(time.time(), kind, text))

    @property
    def entries(self) -> list[Entry]:
        """Everything so far, oldest first."""
        with self._lock:
            return list(self._entries)

    def between(self, began: float, ended: float) -> list[Entry]:
        """What was noted in this time."""
        return [entry for entry in self.entries if began <= entry.at <= ended]

    def text(self) -> str:
        """One line an entry, with the seconds since the beginning."""
        return "\n".join(
            f"{entry.at - self.began:8.2f}  {entry.kind:<10} {entry.text}" for entry in self.entries
        )

    def dump(self, path: Path) -> None:
        """Write ``path`` with the suffixes .txt, as rendered, and .json."""
        path.with_suffix(".txt").write_text(self.text() + "\n", encoding="utf-8")
        found = {"began": self.began, "entries": [entry._asdict() for entry in self.entries]}
        path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

"""How a careful client calls the API: keys that make repetitions safe, both servers in turn, and a log of all of it."""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import requests

from tests.chaos.bench.records import Call

#: Seconds for which a call is tried again; then nobody knows whether it was carried out.
PATIENCE = 20.0

_TIMEOUT = (2.0, 8.0)
_PAUSE = 0.2
_AWAY = frozenset({502, 503, 504})
_IN_PROGRESS = "urn:jobsched:error:idempotency_in_progress"

#: What the log keeps of an answer: enough to account for it, or hours of load would not fit into memory.
_KEPT = {
    *("id", "jobId", "version", "state", "createdAt", "updatedAt", "isActive", "redriveOf", "scheduledFor"),
    *("created", "ids", "errors", "matched", "discarded", "nextExecutionTime", "type", "detail"),
}


class CallLog:
    """All calls so far; each is also appended to a file, if one is given, as one JSON line. Thread-safe."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path is not None else None

    def add(self, call: Call) -> None:
        """Keep a call."""
        with self._lock:
            self._calls.append(call)
            if self._file is not None:
                self._file.write(json.dumps(asdict(call), ensure_ascii=False) + "\n")
                self._file.flush()

    @property
    def calls(self) -> list[Call]:
        """A copy."""
        with self._lock:
            return list(self._calls)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


class Caller:
    """One client's connections to all servers. For one thread."""

    def __init__(self, urls: list[str], key: str, log: CallLog, chance: random.Random) -> None:
        self._urls = list(urls)
        self._log = log
        self._chance = chance
        self._naps = threading.Event()  # nobody sets it
        self._at = chance.randrange(len(urls))
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {key}"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def call(
        self,
        action: str,
        method: str,
        path: str,
        *,
        body: Any = None,
        sent: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        job: int | None = None,
        execution: int | None = None,
        done_before: Callable[[], Any] | None = None,
    ) -> Call:
        """Make a call and log it. ``sent`` is what the log says was asked for.

        ``done_before`` is asked where a repetition was refused and an earlier try may have been carried out: its
        answer, if any, is the call's.
        """
        began = time.time()
        fields = dict(headers or {})
        if method == "POST":
            fields["Idempotency-Key"] = f"{self._chance.getrandbits(128):032x}"
        status, answer, doubtful = self._try(method, path, body, fields)
        if doubtful and status in (404, 412) and done_before is not None:
            found = done_before()
            if found is not None:
                status, answer = (204 if method == "DELETE" else 200), found
        if status is not None and status < 300 and action in ("create", "put") and job is None:
            job = answer["id"]
        call = Call(action, began, time.time(), status, job, execution, dict(sent or {}), _kept(answer))
        self._log.add(call)
        return call

    def read(self, path: str) -> Any:
        """The JSON at ``path``, or None. Only that it was read is logged."""
        began = time.time()
        status, answer, _doubtful = self._try("GET", path, None, {})
        self._log.add(
            Call("read", began, time.time(), status, answer=None if status == 200 else _kept(answer))
        )
        return answer if status == 200 else None

    def _try(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> tuple[int | None, Any, bool]:
        """The last answer, and whether a try before it may have been carried out."""
        end = time.monotonic() + PATIENCE
        doubtful = False
        while True:
            last: int | None = None
            try:
                response = self._session.request(
                    method,
                    self._urls[self._at] + path,
                    json=body,
                    headers=headers,
                    timeout=_TIMEOUT,
                    allow_redirects=False,
                )
                answer = _json(response)
                in_progress = isinstance(answer, dict) and answer.get("type") == _IN_PROGRESS
                if response.status_code not in _AWAY and not in_progress:
                    return response.status_code, answer, doubtful
                last = None if in_progress else response.status_code
            except requests.RequestException:
                answer = None
            doubtful = True
            self._at = (self._at + 1) % len(self._urls)
            if time.monotonic() >= end:
                return last, answer, doubtful
            self._naps.wait(_PAUSE * self._chance.uniform(0.5, 2.0))


def _json(response: requests.Response) -> Any:
    try:
        return response.json() if response.content else None
    except requests.JSONDecodeError:
        return {"detail": response.text[:200]}


def _kept(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return None
    return {name: value for name, value in answer.items() if name in _KEPT}

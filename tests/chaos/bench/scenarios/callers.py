"""Callers of the API, while something is broken: what was asked, what was answered, and how long it took."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import requests


@dataclass(frozen=True)
class Asked:
    """One call to the API. ``status`` None: no answer came; ``job``: what a create or a read was about."""

    kind: str
    at: float
    seconds: float
    status: int | None
    job: int | None = None


class Caller:
    """A thread that asks the API for this and that, one call after the other, until it is told to stop.

    With ``retries`` a call whose connection failed is sent again to the next address, as a load balancer or a
    careful client does; creates carry an idempotency key.
    """

    KINDS = ("create", "read", "list", "stats", "executions")

    def __init__(self, urls: Sequence[str], key: str, *, pace: float = 0.02, retries: int = 0) -> None:
        self._urls = list(urls)
        self._pace = pace
        self._retries = retries
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._turn = 0
        self.asked: list[Asked] = []
        self.retried = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        self._session.close()

    @property
    def created(self) -> list[int]:
        """Jobs whose creation was acknowledged."""
        return [one.job for one in self.asked if one.kind == "create" and one.job is not None]

    def failures(self) -> list[Asked]:
        """Calls that were not answered with 2xx."""
        return [one for one in self.asked if one.status is None or not 200 <= one.status < 300]

    def statuses(self) -> dict[str, int]:
        """How often each status came, in words for the report."""
        counts = Counter(str(one.status or "no answer") for one in self.asked)
        return dict(sorted(counts.items()))

    def slowest(self) -> float:
        """Seconds that the slowest call took."""
        return max((one.seconds for one in self.asked), default=0.0)

    def first_success_after(self, moment: float, kind: str | None = None) -> float | None:
        """Seconds from ``moment`` (unix) until a call that began after it was answered with 2xx."""
        good = [
            one.at + one.seconds
            for one in self.asked
            if one.at >= moment and one.status is not None and one.status < 300 and kind in (None, one.kind)
        ]
        return min(good) - moment if good else None

    def _run(self) -> None:
        known: int | None = None
        while not self._stop.is_set():
            for kind in self.KINDS:
                one = self._ask(kind, known)
                self.asked.append(one)
                if one.kind == "create" and one.job is not None:
                    known = one.job
                if self._stop.wait(self._pace):
                    return

    def _ask(self, kind: str, known: int | None) -> Asked:
        method, path, body = "GET", "/queue/stats", None
        headers = {}
        if kind == "create":
            method, path = "POST", "/api/v1/jobs"
            body = {"schedule": "@yearly", "api": "http://127.0.0.1:9/never", "name": "created by a caller"}
            headers["Idempotency-Key"] = uuid.uuid4().hex
        elif kind == "read" and known is not None:
            path = f"/api/v1/jobs/{known}"
        elif kind == "list":
            path = "/api/v1/jobs?limit=20"
        elif kind == "executions":
            path = "/api/v1/executions?limit=20"
        at, began = time.time(), time.monotonic()
        answer = self._send(method, path, body, headers)
        seconds = time.monotonic() - began
        if answer is None:
            return Asked(kind, at, seconds, None)
        job = answer.json()["id"] if kind == "create" and answer.status_code == 201 else None
        return Asked(kind, at, seconds, answer.status_code, job)

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> requests.Response | None:
        for attempt in range(self._retries + 1):
            url = self._urls[self._turn % len(self._urls)]
            try:
                return self._session.request(method, url + path, json=body, headers=headers, timeout=30)
            except requests.RequestException:
                self._turn += 1
                self.retried += attempt < self._retries
                self._stop.wait(0.05 if attempt else 0.0)
        return None

"""A target for callbacks: an HTTP server that answers well, badly or never, and remembers what arrived.

``with Target() as target:`` runs it in a thread; ``python -m jobsched.testing.target`` runs it alone. The first
segment of a path says what happens:

    /ok                     200                        /status/503             that status
    /fail/3/…               500 three times, then 200  /fail-twice             the same with two
    /retry-after/7          429 with Retry-After: 7    /redirect?to=URL        302 (or &status=307)
    /slow/200               200 after 200 ms           /echo                   200 with the request as JSON
    /hang                   no answer, ever            /close  /reset          closes (FIN, RST) without an answer
    /drip?ms=100            a body, byte by byte       /drip-headers?ms=100    the headers, byte by byte
    /big  /big/10000000     5 MB, or so many bytes     /last-answer            200; the next request gets no answer
    /cut-status  /cut-headers  /cut-body  /cut-chunk   dies in the middle of that
    /raw?bytes=HTTP%2F1.1…  exactly these bytes, then closes (&keep=1: stays open)

``/fail`` counts per webhook-id, so that attempts of one execution belong together. ``GET /_arrivals`` (a JSON
list), ``GET /_count`` and ``POST /_reset`` are not recorded. One core serves more than 5,000 requests/s.
"""

import asyncio
import json
import resource
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import click

from jobsched.testing.behaviour import Arrival, Connection

__all__ = ["Arrival", "Target", "main"]


class Target:
    """The server. ``url`` is known once it runs; ``port`` 0 takes a free one.

    With ``record=False`` only ``count`` is kept, for long measurements. ``log`` gets one JSON line an arrival,
    written before the answer.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log: Path | None = None,
        record: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.count = 0
        self.url = ""
        self.port = port
        self.failures: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.connections_made = 0
        self._host = host
        self._tls = tls
        self._record = record
        self._log_path = log
        self._log: TextIO | None = None
        self._arrivals: list[Arrival] = []
        self._arrived = threading.Condition()
        self._waiters = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    @property
    def arrivals(self) -> list[Arrival]:
        """What has arrived so far, oldest first."""
        return list(self._arrivals)

    def wait_for(self, n: int, timeout: float = 10.0) -> list[Arrival]:
        """Wait until ``n`` requests have arrived; returns them all. AssertionError after ``timeout`` seconds."""
        with self._arrived:
            self._waiters += 1
            try:
                there = self._arrived.wait_for(lambda: self.count >= n, timeout)
            finally:
                self._waiters -= 1
        assert there, f"{self.count} of {n} requests arrived within {timeout:g} s"
        return self.arrivals

    def reset(self) -> None:
        """Forget all arrivals and the counts of ``/fail``."""
        self._arrivals.clear()
        self.failures.clear()
        self.count = 0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready.set)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the target did not start; is its port taken?")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self, on_ready: Callable[[], object]) -> None:
        """Serve until stopped or cancelled; ``on_ready`` is called once ``url`` is known."""
        _raise_descriptor_limit()
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(
            lambda: Connection(self), self._host, self.port, backlog=4096, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http{'s' if self._tls else ''}://{host}:{self.port}"
        self._log = self._log_path.open("a", encoding="utf-8") if self._log_path else None
        try:
            on_ready()
            await self._stop.wait()
        finally:
            server.close()
            for connection in list(self.connections):
                connection.abort()
            # One more turn, in which the transports notice that they were aborted and close their sockets.
            await asyncio.sleep(0.01)
            if self._log is not None:
                self._log.close()

    def arrived(self, arrival: Arrival) -> None:
        """Remember a request, and tell those who wait for it."""
        self.count += 1
        if self._record:
            self._arrivals.append(arrival)
        if self._log is not None:
            self._log.write(json.dumps(arrival.as_json(), ensure_ascii=False) + "\n")
            self._log.flush()
        if self._waiters:
            with self._arrived:
                self._arrived.notify_all()


def _raise_descriptor_limit() -> None:
    """An ordinary user's soft limit of 1,024 files is fewer than the calls that some tests leave hanging."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 16_384:
        wanted = 16_384 if hard == resource.RLIM_INFINITY else min(16_384, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0 takes a free one.")
@click.option("--log", type=click.Path(path_type=Path), help="One JSON line an arrival is appended here.")
@click.option("--no-record", is_flag=True, help="Keep no arrivals in memory, only their count.")
def main(host: str, port: int, log: Path | None, no_record: bool) -> None:
    """Serve as a target for callbacks until interrupted. The first line printed is the address."""
    target = Target(host=host, port=port, log=log, record=not no_record)
    try:
        asyncio.run(target.serve(lambda: print(target.url, flush=True)))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

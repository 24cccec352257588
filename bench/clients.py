"""Keep-alive clients of an HTTP API that cost next to nothing beside what they measure.

    python -m bench.clients --port 8080 --path /api/v1/jobs --key KEY --clients 16 --seconds 10

A process of its own, with one thread over raw sockets; requests are made beforehand, and of an answer only its status
and its length are looked at: about 15 µs a request. Prints one line of JSON.
"""

import json
import random
import resource
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

_REQUESTS = 500
_ZONES = ("UTC", "UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo")
_HOSTS = tuple(f"hooks{number}.example.com" for number in range(20))


@dataclass(frozen=True)
class Sent:
    """What a window of requests came to. ``cpu_seconds`` is what the clients themselves took."""

    requests: int
    seconds: float
    cpu_seconds: float
    milliseconds: list[float]


def documents(count: int, seed: float, *, keys: bool) -> list[dict[str, Any]]:
    """Jobs as people have them: crons at their own minutes, intervals, reminders at an instant; some with a zone, a
    header, tags, policies of their own. No two alike."""
    rnd = random.Random(seed)
    jobs = []
    for number in range(count):
        job: dict[str, Any] = {
            "name": f"Report {number}",
            "schedule": _schedule(rnd),
            "api": f"https://{rnd.choice(_HOSTS)}/v1/reports/{number}",
            "payload": {
                "report": number,
                "full": rnd.random() < 0.5,
                "to": ["a@example.com", "b@example.com"],
            },
        }
        if keys:
            job["key"] = f"report-{seed}-{number}"
        if rnd.random() < 0.3:
            job["timezone"] = rnd.choice(_ZONES)
        if rnd.random() < 0.25:
            job["headers"] = {"X-Team": f"team-{number % 7}"}
        if rnd.random() < 0.2:
            job["tags"] = ["nightly", f"group-{number % 10}"]
        if rnd.random() < 0.5:
            job |= {"maxRetryCount": rnd.choice((0, 3, 5, 10)), "timeoutSeconds": rnd.choice((5, 10, 30))}
        jobs.append(job)
    return jobs


def _schedule(rnd: random.Random) -> str:
    kind = rnd.random()
    if kind < 0.4:
        return f"{rnd.randrange(60)} {rnd.randrange(24)} * * {rnd.choice(('*', '*', 'MON-FRI'))}"
    if kind < 0.5:
        return f"*/{rnd.choice((5, 10, 15, 30))} * * * *"
    if kind < 0.75:
        return f"@every {rnd.choice((30, 60, 90, 300, 600, 900, 3600))}s"
    month, day, hour, minute = (
        rnd.randrange(1, 13),
        rnd.randrange(1, 29),
        rnd.randrange(24),
        rnd.randrange(60),
    )
    return f"2030-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:00Z"


def request(path: str, key: str, body: bytes, kind: str = "application/json") -> bytes:
    """A POST as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client:
    """One connection; one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self._answer = b""
        self._wanted = 0

    def send(self, request: bytes) -> None:
        """Send one request."""
        self._answer, self._wanted, self.began = b"", 0, time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bytes | None:
        """The whole answer, once it is here. Raises RuntimeError unless it is a 201."""
        piece = self.socket.recv(1 << 20)
        self._answer += piece
        if not self._wanted and (end := self._answer.find(b"\r\n\r\n")) >= 0:
            head = self._answer[:end].lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            self._wanted = end + 4 + int(length)
        if self._wanted and len(self._answer) >= self._wanted:
            if not self._answer.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(f"not created: {self._answer[:500]!r}")
            return self._answer
        if not piece:
            raise RuntimeError("the connection was closed")
        return None

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def drive(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Sent:
    """Keep ``clients`` connections busy for a while, each with the next request as soon as one is answered."""
    cpu, done, taken = _cpu(), 0, []
    with selectors.DefaultSelector() as ready:
        connections = [Client(port) for _ in range(clients)]
        for number, client in enumerate(connections):
            ready.register(client.socket, selectors.EVENT_READ, client)
            client.send(requests[number % len(requests)])
        began = now = time.perf_counter()
        while now - began < seconds:
            for key, _ in ready.select(timeout=5):
                client = key.data
                if client.answered() is not None:
                    now = time.perf_counter()
                    taken.append(1000 * (now - client.began))
                    done += 1
                    client.send(requests[done % len(requests)])
            now = time.perf_counter()
        for client in connections:
            client.close()
    return Sent(done, now - began, _cpu() - cpu, taken)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--path", required=True)
@click.option("--key", required=True)
@click.option("--clients", type=int, required=True)
@click.option("--seconds", type=float, required=True)
def main(port: int, path: str, key: str, clients: int, seconds: float) -> None:
    """Create jobs one by one, each by a POST of its own."""
    bodies = (json.dumps(job).encode() for job in documents(_REQUESTS, time.time(), keys=False))
    sent = drive(port, [request(path, key, body) for body in bodies], clients, seconds)
    click.echo(json.dumps(asdict(sent)))


if __name__ == "__main__":
    main()

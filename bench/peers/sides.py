"""The peers as sides: a Valkey of their own for each window, filled and worked by their own programs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis

from bench.peers import CONCURRENCY, PAYLOAD_TEXT, QUEUE, REDIS_URL, TARGET_URL, installed
from bench.process import tree
from bench.side import Running, Side
from jobsched.embedded.account import choose
from jobsched.embedded.valkey import Valkey

_ROOT = Path(__file__).parents[2]
_FILL_SECONDS = 300.0
_STOP_SECONDS = 5.0

Counter = Callable[["redis.Redis"], int]


@dataclass(frozen=True)
class _Peer:
    """``fill`` and ``work`` are command lines, made when they are needed: before, nothing may be installed."""

    fill: Callable[[int], list[str]]
    work: Callable[[int], list[str]]
    waiting: Counter
    recorded: Counter | None
    more: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def _start(peer: _Peer, url: str, calls: int, concurrency: int) -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="jobsched-bench-peer-"))
    for name in ("log", "run"):
        (folder / name).mkdir()
    log = folder / "log" / "worker.txt"
    valkey = Valkey(folder, choose(folder))
    try:
        address = valkey.start()
        environment = (
            os.environ
            | peer.more
            | {
                REDIS_URL: address,
                TARGET_URL: url,
                CONCURRENCY: str(concurrency),
                "BENCH_PAYLOAD": PAYLOAD_TEXT,
                "PYTHONPATH": str(_ROOT),
            }
        )
        _fill(peer.fill(calls), environment)
        with log.open("wb") as output:
            worker = subprocess.Popen(
                peer.work(concurrency), env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder
            )
        try:
            client = redis.Redis.from_url(address)
            yield Running(
                groups=lambda: {"worker": tree(worker.pid), "Valkey": [valkey.pid or 0]},
                left=lambda: peer.waiting(client),
                check=partial(_check, worker, log),
                finish=partial(_finish, peer, worker, client),
            )
        finally:
            _stop(worker)
    finally:
        valkey.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(command: Sequence[str], environment: Mapping[str, str]) -> None:
    ran = subprocess.run(
        command,
        env=environment,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_FILL_SECONDS,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"filling failed: {ran.stdout[-2000:]}")


def _check(worker: "subprocess.Popen[bytes]", log: Path) -> None:
    if worker.poll() is not None:
        raise RuntimeError(f"the worker has ended: {log.read_text(errors='replace')[-2000:]}")


def _finish(
    peer: _Peer, worker: "subprocess.Popen[bytes]", client: "redis.Redis", requests: Callable[[], int]
) -> dict[str, Any]:
    _stop(worker)
    recorded = peer.recorded(client) if peer.recorded else None
    return {"seen_by_target": requests(), "recorded": recorded}


def _stop(worker: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and after a while the end of its whole tree: what they leave undone is nobody's work any more."""
    if worker.poll() is not None:
        return
    pids = tree(worker.pid)
    worker.terminate()
    try:
        worker.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in pids:
            subprocess.run(["kill", "-9", str(pid)], stderr=subprocess.DEVNULL, check=False)
        worker.wait()


def _module(name: str, *arguments: str) -> list[str]:
    return [str(installed.python()), "-m", f"bench.peers.{name}", *arguments]


def _of_module(name: str, waiting: Counter, recorded: Counter | None) -> _Peer:
    return _Peer(
        lambda count: _module(name, "fill", str(count)), lambda _: _module(name, "work"), waiting, recorded
    )


def _node(program: str, *arguments: str) -> list[str]:
    return ["node", str(installed.node_folder() / program), *arguments]


def _length(key: str) -> Counter:
    return lambda client: int(client.llen(key))


def _members(key: str) -> Counter:
    return lambda client: int(client.zcard(key))


def _keys(pattern: str) -> Counter:
    return lambda client: sum(1 for _ in client.scan_iter(pattern, count=10_000))


def _rq(name: str) -> _Peer:
    return _of_module(name, _length(f"rq:queue:{QUEUE}"), _members(f"rq:finished:{QUEUE}"))


_BULLMQ = _Peer(
    lambda count: _node("fill.js", str(count)),
    lambda _: _node("worker.js"),
    _length(f"bull:{QUEUE}:wait"),
    _members(f"bull:{QUEUE}:completed"),
)
_ARQ = _of_module("arq_asyncio", _members("arq:queue"), _keys("arq:result:*"))
_DRAMATIQ = _Peer(
    lambda count: _module("dramatiq_threads", "fill", str(count)),
    lambda threads: [
        *(str(installed.python()), "-m", "dramatiq", "bench.peers.dramatiq_threads"),
        *("--processes", "1", "--threads", str(threads)),
    ],
    _length(f"dramatiq:{QUEUE}"),
    None,
)
_CELERY = _Peer(
    lambda count: _module("celery_threads", "fill", str(count)),
    lambda threads: [
        *(str(installed.python()), "-m", "celery", "--app", "bench.peers.celery_threads", "worker"),
        *("--pool", "threads", "--concurrency", str(threads), "--loglevel", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ],
    _length("celery"),
    _keys("celery-task-meta-*"),
)

SIDES = (
    Side(
        "bullmq",
        "BullMQ",
        14_000,
        (64, 128, 256),
        partial(_start, _BULLMQ),
        "one node process, an undici pool without pipelining, completed jobs kept",
        installed.node_versions,
    ),
    Side(
        "arq",
        "arq",
        2_500,
        (32, 100, 256),
        partial(_start, _ARQ),
        "one process, aiohttp, uvloop, a poll delay of 100 ms, results kept",
        partial(installed.python_versions, "arq", "aiohttp", "uvloop", "redis"),
    ),
    Side(
        "celery",
        "Celery",
        1_500,
        (4, 8, 16),
        partial(_start, _CELERY),
        "one worker, pool of threads, a requests.Session a thread, results kept",
        partial(installed.python_versions, "celery", "requests", "redis"),
    ),
    Side(
        "dramatiq",
        "dramatiq",
        2_000,
        (8, 16, 32),
        partial(_start, _DRAMATIQ),
        "one process with threads, a requests.Session a thread, no results (its habit)",
        partial(installed.python_versions, "dramatiq", "requests", "redis"),
    ),
    Side(
        "rq-simple",
        "RQ SimpleWorker",
        1_000,
        (1,),
        partial(_start, _rq("rq_simple")),
        "one process, one job after the other, a requests.Session, results kept",
        partial(installed.python_versions, "rq", "requests", "redis"),
    ),
    Side(
        "rq",
        "RQ Worker",
        200,
        (1,),
        partial(_start, _rq("rq_fork")),
        "as `rq worker` starts it: a fork for every job, results kept",
        partial(installed.python_versions, "rq", "requests", "redis"),
    ),
)

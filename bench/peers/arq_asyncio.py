"""arq: one process, asyncio.

Settings: aiohttp (less work a request than httpx) with as many connections as there are jobs at once, uvloop, a poll
delay of 100 ms: at the default of 500 ms it rests half of the time, at 10 ms it reads its queue too often.
``max_jobs`` is the concurrency. Results are kept, as is arq's habit, and not logged.
"""

import asyncio
import sys
from typing import Any

import aiohttp
import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from bench.peers import concurrency, payload, redis_url, target_url


async def call(context: dict[str, Any], data: dict[str, object]) -> int:
    """The job: post, read the answer, return its status, which arq keeps as the result."""
    async with context["session"].post(target_url(), json=data) as answer:
        await answer.read()
        return int(answer.status)


async def _open(context: dict[str, Any]) -> None:
    context["session"] = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency()), timeout=aiohttp.ClientTimeout(30)
    )


async def _close(context: dict[str, Any]) -> None:
    await context["session"].close()


async def fill(count: int) -> None:
    """Enqueue so many jobs, a hundred at once."""
    pool = await create_pool(RedisSettings.from_dsn(redis_url()))
    data = payload()
    for done in range(0, count, 100):
        await asyncio.gather(*(pool.enqueue_job("call", data) for _ in range(min(100, count - done))))
    await pool.aclose()


if __name__ == "__main__":
    uvloop.install()
    if sys.argv[1] == "fill":
        asyncio.run(fill(int(sys.argv[2])))
    else:
        asyncio.set_event_loop(asyncio.new_event_loop())
        Worker(
            [call],
            redis_settings=RedisSettings.from_dsn(redis_url()),
            max_jobs=concurrency(),
            poll_delay=0.1,
            on_startup=_open,
            on_shutdown=_close,
            log_results=False,
        ).run()

"""Other workers that people use for this, each given the same task and its best sensible settings.

The task: take a job from Redis, post its payload as JSON to the target, read the answer, and let the library record
the end where it does so by habit. One module a peer; its docstring says which settings were chosen and what was tried.
The modules named after a peer are programs of another virtual environment, where jobsched is not installed:
``installed`` makes it, ``sides`` starts them.
"""

import json
import os

from bench.side import PAYLOAD

#: How a peer's program is told what to do.
REDIS_URL, TARGET_URL, CONCURRENCY = "BENCH_REDIS_URL", "BENCH_TARGET_URL", "BENCH_CONCURRENCY"
QUEUE = "bench"


def redis_url() -> str:
    """The server that the bench has started for this window."""
    return os.environ[REDIS_URL]


def target_url() -> str:
    """Where callbacks go."""
    return os.environ[TARGET_URL]


def concurrency() -> int:
    """How many calls may be in flight at once."""
    return int(os.environ[CONCURRENCY])


def payload() -> dict[str, object]:
    """What each job carries."""
    return dict(PAYLOAD)


#: The same as text, for programs in another language.
PAYLOAD_TEXT = json.dumps(PAYLOAD, separators=(",", ":"))

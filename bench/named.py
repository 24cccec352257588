"""``python -m bench.named …`` is ``jobsched …`` in a process for which 1,000 names exist.

Names that lead to this machine cannot be made without the rights of an administrator (a hosts file, a name server).
So the system's lookup is replaced before jobsched is loaded: ``h0042.fanout.test`` is 127.0.1.43, found after 2 ms as
from a name server nearby. All that is jobsched's own stays: its lookup threads, what they remember, its guard.
"""

import re
import socket
import time
from typing import Any

NAMES = 1000
_NAME = re.compile(r"h(\d{4})\.fanout\.test")
_LOOKUP_SECONDS = 0.002

_system = socket.getaddrinfo


def name(number: int) -> str:
    """The name of one of the hosts, counted from 0."""
    return f"h{number:04d}.fanout.test"


def address(number: int) -> str:
    """Its address: each host has one of its own."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def _lookup(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    found = _NAME.fullmatch(host) if isinstance(host, str) else None
    if found is None:
        return _system(host, port, *arguments, **options)
    time.sleep(_LOOKUP_SECONDS)
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address(int(found[1])), port))]


if __name__ == "__main__":
    socket.getaddrinfo = _lookup
    from jobsched.cli import main

    main()

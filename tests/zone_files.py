"""Files of time zones that a test makes, in place of those of the system."""

import struct
import zoneinfo
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from jobsched.domain import schedule, zone_clock

# Not the set of names: it is that of the package tzdata at least, whatever the folder.
_CACHES = (schedule._parse, zone_clock.zone_of, schedule._cron_gap)


def write_zone(folder: Path, key: str, offset: int, changes: Sequence[tuple[datetime, int]] = ()) -> None:
    """A TZif file (RFC 8536, version 2): ``offset`` in hours, and others from given instants on."""
    offsets = [offset, *(later for _at, later in changes)]
    header = b"TZif2" + bytes(15)
    data = header + struct.pack(">6I", 0, 0, 0, 0, 1, 4) + struct.pack(">iBB", 0, 0, 0) + b"UTC\0"
    data += header + struct.pack(">6I", 0, 0, 0, len(changes), len(offsets), 4)
    data += b"".join(struct.pack(">q", int(at.timestamp())) for at, _later in changes)
    data += bytes(range(1, len(offsets)))
    data += b"".join(struct.pack(">iBB", each * 3600, 0, 0) for each in offsets) + b"LMT\0\n\n"
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_version(folder: Path, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tzdata.zi").write_text(f"# version {version}\n# redo posix_only\n")


@contextmanager
def zones_of(folder: Path) -> Iterator[None]:
    """What a process sees that was started with ``folder`` as the system's zones."""
    before = zoneinfo.TZPATH
    _start_with([str(folder)])
    try:
        yield
    finally:
        _start_with(before)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def _start_with(path: Sequence[str]) -> None:
    zoneinfo.reset_tzpath(to=path)
    zoneinfo.ZoneInfo.clear_cache()
    for cache in _CACHES:
        cache.cache_clear()

"""Rules on a job's fields that need more than a type and a range: each returns the faults it finds."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from jobsched.domain.headers import ALWAYS_SECRET, check_header
from jobsched.domain.instants import read_instant
from jobsched.domain.json_text import compact, pointer
from jobsched.domain.schedule import Schedule
from jobsched.domain.spec_fields import MAX_HEADERS, MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES, JobCreate
from jobsched.errors import Fault, InvalidSchedule

#: What an answer shows in the place of a secret header's value; sent back, it keeps the stored value.
MASK = "***"

WITHOUT_BODY = ("GET", "HEAD")


def is_secret(name: str, secret_headers: list[str] | tuple[str, ...]) -> bool:
    """Whether the value of the header ``name`` is a secret."""
    lower = name.lower()
    return lower in ALWAYS_SECRET or any(lower == other.lower() for other in secret_headers)


def payload_faults(job: JobCreate) -> Iterator[Fault]:
    """A payload has its size, and a method that carries a body."""
    if job.payload is None:
        return
    yield from method_faults(job.payload, job.method)
    size = len(compact(job.payload).encode())
    if size > MAX_PAYLOAD_BYTES:
        yield Fault("/payload", f"has {size} bytes as JSON; at most {MAX_PAYLOAD_BYTES} are allowed")


def method_faults(payload: object, method: str) -> Iterator[Fault]:
    """A payload needs a method that carries a body."""
    if payload is not None and method in WITHOUT_BODY:
        yield Fault("/payload", f"cannot be sent with {method}; use another method or leave it out")


def header_faults(headers: Mapping[str, str]) -> Iterator[Fault]:
    """Headers are well formed, ours to give away, not twice there, and not too many."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        if reason := check_header(name, value):
            yield Fault(pointer("headers", name), reason)
        if other := seen.get(name.lower()):
            yield Fault(pointer("headers", name), f"is the same header as {other}")
        seen[name.lower()] = name
    if len(headers) > MAX_HEADERS:
        yield Fault("/headers", f"has {len(headers)} headers; at most {MAX_HEADERS} are allowed")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
    if size > MAX_HEADERS_BYTES:
        yield Fault("/headers", f"has {size} bytes; at most {MAX_HEADERS_BYTES} are allowed")


def unmask(
    headers: Mapping[str, str],
    secret_headers: list[str],
    stored: Mapping[str, str],
    stored_secrets: tuple[str, ...],
) -> tuple[dict[str, str], list[Fault]]:
    """``headers`` with each ``***`` of a secret header replaced by its stored value.

    A value that was stored as a secret is never shown again: unmarking its header needs the value anew.
    """
    known = {name.lower(): value for name, value in stored.items() if is_secret(name, stored_secrets)}
    result: dict[str, str] = {}
    faults = []
    for name, value in headers.items():
        result[name] = value
        if value != MASK:
            continue
        if is_secret(name, secret_headers):
            if name.lower() in known:
                result[name] = known[name.lower()]
            else:
                faults.append(
                    Fault(pointer("headers", name), f'"{MASK}" keeps a stored value; there is none')
                )
        elif name.lower() in known:
            faults.append(
                Fault("/secretHeaders", f"{name} was secret; to make it readable, send its value as well")
            )
    return result, faults


def recurrence(asked: bool | None, schedule: Schedule) -> tuple[bool, list[Fault]]:
    """Whether the job recurs: as asked, else as its schedule does."""
    if asked and not schedule.recurring:
        return False, [Fault("/isRecurring", "cannot be true: this schedule names one instant")]
    return schedule.recurring if asked is None else asked, []


def jitter_faults(jitter_seconds: float, schedule: Schedule) -> Iterator[Fault]:
    """Jitter stays below the shortest time between two slots, or slots would overtake each other."""
    gap = schedule.shortest_gap() if jitter_seconds else None
    if gap is not None and jitter_seconds >= gap.total_seconds():
        yield Fault(
            "/jitterSeconds",
            f"must be less than the shortest time between two slots, {gap.total_seconds():g} s",
        )


def read_bound(name: str, text: str | None, timezone: str, faults: list[Fault]) -> datetime | None:
    """The instant in the field ``name``; what is wrong with it is added to ``faults``."""
    if text is None:
        return None
    try:
        return read_instant(text, timezone)
    except InvalidSchedule:
        return None  # the zone, which is a fault of its own
    except ValueError as error:
        faults.append(Fault(pointer(name), str(error)))
        return None

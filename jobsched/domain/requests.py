"""Bodies of the calls that act on executions and dead letters."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final


class _JobsPayload:
    def __repr__(self) -> str:
        return "JOBS_PAYLOAD"


#: Says that no payload was given: the job's (or, for a redrive, the dead letter's) is sent. None means no body.
JOBS_PAYLOAD: Final = _JobsPayload()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which dead letters: ``ids``, or a filter whose parts all hold, or everything (``all`` true)."""

    ids: tuple[int, ...] | None = None
    job_id: int | None = None
    error_code: str | None = None
    from_: datetime | None = None
    to: datetime | None = None
    all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveRequest:
    """``rate_per_second`` None means at once; ``payload`` is only allowed for a single id."""

    selector: Selector
    rate_per_second: float | None = None
    payload: Any = JOBS_PAYLOAD


def parse_run(body: object | None) -> Any:
    """The payload of a run-now, or JOBS_PAYLOAD. ``body`` None means that none was sent. Raises InvalidInput."""
    raise NotImplementedError


def parse_redrive(body: object) -> RedriveRequest:
    """What a redrive asks for. Raises InvalidInput; an empty selector is a fault, never everything."""
    raise NotImplementedError


def parse_discard(body: object) -> Selector:
    """What a discard asks for. Raises InvalidInput; an empty selector is a fault, never everything."""
    raise NotImplementedError

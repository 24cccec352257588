"""The next runs of a job or of a schedule, with a remark where the clock of its zone does something strange."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

from jobsched.clock import rfc3339
from jobsched.domain.advance import anchor_for, counts_from, next_slot
from jobsched.domain.cron import parse_cron
from jobsched.domain.durations import parse_instant
from jobsched.domain.schedule import Schedule, effective_time
from jobsched.errors import InvalidSchedule

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_LATE: Final = "This time has passed: it is due at once, and the misfire policy decides."
_EPOCH: Final = datetime(1970, 1, 1)  # of the wall clock, without a zone


@dataclass(frozen=True, slots=True)
class Run:
    """One slot to come. ``due_at`` includes jitter; ``local`` is the slot on the zone's clock, RFC 3339."""

    scheduled_for: datetime
    due_at: datetime
    local: str
    remark: str | None

    def shown(self) -> dict[str, str | None]:
        """As the API answers it."""
        return {
            "scheduledFor": rfc3339(self.scheduled_for),
            "dueAt": rfc3339(self.due_at),
            "local": self.local,
            "remark": self.remark,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What limits a job's slots; meanings as in JobSpec. ``runs``: slots that were run already."""

    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    runs: int = 0
    is_recurring: bool = True


def runs_from(
    schedule: Schedule,
    slot: datetime | None,
    *,
    anchor: datetime,
    now: datetime,
    bounds: Bounds,
    job_id: int = 0,
    jitter_seconds: float = 0.0,
) -> Iterator[Run]:
    """The runs from ``slot`` on, the next one of a job; None: there is none."""
    gap = schedule.shortest_gap() if jitter_seconds else None
    runs = bounds.runs
    while slot is not None:
        due = effective_time(slot, job_id, jitter_seconds, gap)
        said = remark(schedule, slot) or (_LATE if due < now else None)
        yield Run(slot, due, local_time(slot, schedule.timezone), said)
        runs += 1
        slot = next_slot(
            schedule,
            after=slot,
            anchor=anchor,
            start_at=bounds.start_at,
            end_at=bounds.end_at,
            max_runs=bounds.max_runs,
            runs=runs,
            is_recurring=bounds.is_recurring and schedule.recurring,
        )


def runs_of_new(schedule: Schedule, now: datetime, bounds: Bounds) -> Iterator[Run]:
    """The runs of a job that would be created ``now``."""
    anchor = anchor_for(schedule, now, bounds.start_at)
    slot = next_slot(
        schedule,
        after=counts_from(schedule, now, bounds.start_at),
        anchor=anchor,
        start_at=bounds.start_at,
        end_at=bounds.end_at,
        max_runs=bounds.max_runs,
        runs=bounds.runs,
        is_recurring=bounds.is_recurring,
        fired=False,
    )
    return runs_from(schedule, slot, anchor=anchor, now=now, bounds=bounds)


def local_time(instant: datetime, zone: str) -> str:
    """``instant`` on the clock of ``zone``, RFC 3339 with offset and milliseconds.

    Offsets with seconds, which zones had before about 1970, have no form in RFC 3339: the nearest minute is
    taken, and the time is right for it. At the ends of the calendar it is UTC.
    """
    try:
        local = instant.astimezone(ZoneInfo(zone))
        offset = local.utcoffset() or timedelta()
        if offset % _MINUTE:
            local = instant.astimezone(timezone(round(offset / _MINUTE) * _MINUTE))
    except OverflowError:
        local = instant.astimezone(UTC)
    return local.isoformat(timespec="milliseconds")


def remark(schedule: Schedule, slot: datetime) -> str | None:
    """What a change of the clock does to this slot, in a sentence; None on ordinary days."""
    try:
        zone = ZoneInfo(schedule.timezone)
        local, second_before = slot.astimezone(zone), (slot - _SECOND).astimezone(zone)
    except OverflowError:
        return None
    return _of_gap(schedule, local, second_before) or _of_fold(schedule, local)


def _of_gap(schedule: Schedule, local: datetime, second_before: datetime) -> str | None:
    """The slot is the first instant after a gap, and the schedule names times inside the gap."""
    start = second_before.replace(tzinfo=None) + _SECOND
    end = local.replace(tzinfo=None)
    if end <= start:
        return None
    named = _named_between(schedule, start, end)
    if not named:
        return None
    first, last = (_shown(wall, end) for wall in (named[0], named[-1]))
    also = f", together with {_shown(end, end)}" if _names(schedule, end) else ""
    jump = f"the clock jumps from {_shown(start, end)} to {_shown(end, start)}"
    if first == last:
        return (
            f"{first} does not exist on this day ({jump}); it runs at the first instant after the gap{also}."
        )
    return (
        f"The times from {first} to {last} do not exist on this day ({jump}); "
        f"they are one run, at the first instant after the gap{also}."
    )


def _named_between(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    """The first and the last wall time in ``start <= wall < end`` that the schedule names."""
    if schedule.kind == "instant":
        wall = _written_instant(schedule)
        return [wall] if wall is not None and start <= wall < end else []
    if schedule.kind != "cron" or (cron := parse_cron(schedule.text)).elapsed:
        return []
    low, high = (start - _EPOCH) // _SECOND, (end - _EPOCH) // _SECOND
    first = last = cron.next_wall(low)
    if first >= high:
        return []
    while high - last > 1:
        middle = (last + high) // 2
        later = cron.next_wall(middle)
        last, high = (later, high) if later < (end - _EPOCH) // _SECOND else (last, middle)
    return [_EPOCH + timedelta(seconds=first), _EPOCH + timedelta(seconds=last)]


def _names(schedule: Schedule, wall: datetime) -> bool:
    if schedule.kind != "cron":
        return False
    second = (wall - _EPOCH) // _SECOND
    return parse_cron(schedule.text).next_wall(second) == second


def _written_instant(schedule: Schedule) -> datetime | None:
    """The wall time that an instant without an offset was written as."""
    text = schedule.text.split(None, 1)[1] if schedule.text[0] == "@" else schedule.text
    try:
        written = parse_instant(text)
    except InvalidSchedule:
        return None
    return None if written.tzinfo else written


def _of_fold(schedule: Schedule, local: datetime) -> str | None:
    """The clock shows the slot's time twice."""
    if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
        return None
    time = _shown(local, local)
    if local.fold:
        return f"The clock shows {time} twice on this day; this is the second time."
    if _is_fixed(schedule):
        return f"The clock shows {time} twice on this day; it runs the first time only."
    return f"The clock shows {time} twice on this day; this is the first time."


def _is_fixed(schedule: Schedule) -> bool:
    """It names times of the wall clock, each of which is one run."""
    if schedule.kind == "instant":
        return _written_instant(schedule) is not None
    return schedule.kind == "cron" and not parse_cron(schedule.text).elapsed


def _shown(wall: datetime, day: datetime) -> str:
    """A wall time; with its date where that is not the date of ``day``."""
    time = f"{wall:%H:%M:%S}" if wall.second else f"{wall:%H:%M}"
    return time if wall.date() == day.date() else f"{wall.date().isoformat()} {time}"

"""What runs in the nights in which the clock changes: the tables of docs/schedules.md, made from the code.

``python -m tests.unit.dst_table`` writes them anew. A test compares them with the document, and each cell with
a watch of the wall clock, minute by minute. What other crons do is worked out here from cron(8) of Debian.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from croniter import croniter

from jobsched.domain.cron import ALIASES
from jobsched.domain.schedule import parse_schedule

DOCUMENT = Path(__file__).parents[2] / "docs" / "schedules.md"
BEGIN, END = "<!-- dst-table: python -m tests.unit.dst_table -->", "<!-- /dst-table -->"

YEAR = 2026
CHANGING = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca")
STEADY = ("Asia/Kolkata", "UTC")
STEADY_DAY = date(2026, 3, 29)

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SHOWN = 6
"""A day with more runs is shown around the change only."""


@dataclass(frozen=True)
class Change:
    """A change of a zone's offset: the first instant with the new one."""

    zone: str
    at: datetime
    before: timedelta
    after: timedelta

    @property
    def jump(self) -> timedelta:
        """By how much the clock is put forward; less than nothing in a fold."""
        return self.after - self.before

    @property
    def shown(self) -> tuple[datetime, datetime]:
        """What the clock has reached, and to what it is put."""
        wall = self.at.replace(tzinfo=None)
        return wall + self.before, wall + self.after

    @property
    def day(self) -> date:
        return self.shown[1].date()


@cache
def changes(zone: str, year: int = YEAR) -> list[Change]:
    """The changes of a year: gaps first."""
    info = ZoneInfo(zone)
    days = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(366)]
    found = []
    for first, last in pairwise(days):
        if _offset(first, info) == _offset(last, info):
            continue
        instants = [first + MINUTE * number for number in range(1, 24 * 60 + 1)]
        at = next(each for each in instants if _offset(each, info) != _offset(first, info))
        found.append(Change(zone, at, _offset(first, info), _offset(at, info)))
    return sorted(found, key=lambda change: change.jump, reverse=True)


def day_of(zone: str, day: date) -> tuple[datetime, datetime]:
    """The first instant of a local day, and that of the next."""
    info = ZoneInfo(zone)
    first, last = (
        datetime(each.year, each.month, each.day, tzinfo=info).astimezone(UTC)
        for each in (day, day + timedelta(days=1))
    )
    return first, last


def anchor_of(zone: str, day: date) -> datetime:
    """From where intervals and delays count in the tables: noon of the day before."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)) - timedelta(days=1)
    return noon.astimezone(UTC)


def runs(schedule: str, zone: str, day: date) -> list[datetime]:
    """What our code runs on a local day, as local times."""
    first, last = day_of(zone, day)
    tick = timedelta(microseconds=1)
    due = parse_schedule(schedule, zone).due_slots(first - tick, last - tick, anchor_of(zone, day), 100_000)
    return [slot.astimezone(ZoneInfo(zone)) for slot in due.slots]


# ---------------------------------------------------------------------------------------------------------------
# Other crons


def cron_fields(schedule: str) -> list[set[int]] | None:
    """Second, minute, hour, day, month, weekday of a cron expression or alias; None of any other form."""
    text = ALIASES.get(schedule, schedule)
    if text.startswith("@") or "T" in text:
        return None
    full: list[Iterable[int]] = [range(60), range(24), range(1, 32), range(1, 13), range(7)]
    if len(text.split()) == 5:
        fields = croniter.expand(text)[0]
        seconds: set[int] = {0}
    else:
        *fields, second = croniter.expand(text, second_at_beginning=True)[0]
        seconds = set(range(60)) if second == ["*"] else set(second)
    values = [
        set(all_of) if field == ["*"] else set(field) for all_of, field in zip(full, fields, strict=True)
    ]
    return [seconds, *values]


def matches(fields: list[set[int]], wall: datetime) -> bool:
    """Whether a clock that shows ``wall`` shows a match. Not for expressions that restrict both day fields."""
    shown = (wall.second, wall.minute, wall.hour, wall.day, wall.month, wall.isoweekday() % 7)
    return all(value in field for value, field in zip(shown, fields, strict=True))


def has_star(schedule: str) -> bool:
    """Whether the minute or the hour starts with a star: what cron(8) calls a wildcard job."""
    minute, hour = ALIASES.get(schedule, schedule).split()[-5:-3]
    return minute[0] == "*" or hour[0] == "*"


def debian(schedule: str, zone: str, day: date) -> list[datetime] | None:
    """When Debian's cron starts a job on a local day; None for what it does not know.

    cron(8): after a jump of less than three hours a wildcard job goes by the new time at once; a fixed one
    that was jumped over runs soon after, and one that comes again does not. Its source runs one of those
    for each minute that matched.
    """
    fields = cron_fields(schedule)
    if fields is None or len(ALIASES.get(schedule, schedule).split()) == 6:
        return None
    wild, found = has_star(schedule), []
    reached = None
    for local in minutes(zone, day):
        wall = local.replace(tzinfo=None)
        fixed = [wall] if reached is None else list(steps(reached + MINUTE, wall))
        if wild:
            found += [local] * matches(fields, wall)
        else:
            found += [local for each in fixed if matches(fields, each)]
        reached = wall if reached is None else max(reached, wall)
    return found


def unpatched(schedule: str, zone: str, day: date) -> list[datetime] | None:
    """The same of a cron without Debian's rule: it looks at the clock each minute, and at nothing else."""
    if debian(schedule, zone, day) is None:
        return None
    fields = cron_fields(schedule) or []
    return [local for local in minutes(zone, day) if matches(fields, local.replace(tzinfo=None))]


@cache
def minutes(zone: str, day: date) -> tuple[datetime, ...]:
    """Each minute that passes on a local day, as the clock shows it."""
    first, last = day_of(zone, day)
    info = ZoneInfo(zone)
    return tuple((first + MINUTE * number).astimezone(info) for number in range((last - first) // MINUTE))


def steps(first: datetime, last: datetime) -> Iterator[datetime]:
    """The minutes from ``first`` to ``last``, both included."""
    while first <= last:
        yield first
        first += MINUTE


# ---------------------------------------------------------------------------------------------------------------
# The rows


def schedules(gap: Change, fold: Change) -> list[tuple[str, str]]:
    """The rows of a zone: the schedule on the night of the gap, and on that of the fold.

    They differ only where the form names the date.
    """
    into, back = gap.shown[0], fold.shown[1]
    inside_gap = into + gap.jump / 2
    inside_fold = back - fold.jump / 2
    recurring = [
        f"{inside_gap.minute} {inside_gap.hour} * * *",
        f"{inside_fold.minute} {inside_fold.hour} * * *",
        f"{gap.shown[1].minute} {gap.shown[1].hour} * * *",
        f"0,20,40 {inside_gap.hour} * * *",
        f"{inside_gap.minute} 1-3 * * *",
        f"*/20 {inside_gap.hour} * * *",
        "*/30 * * * *",
        f"{inside_fold.minute} * * * *",
        f"*/30 {inside_fold.minute} {inside_fold.hour} * * *",
        f"20 {inside_gap.minute} {inside_gap.hour} * * *",
        "@hourly",
        "@daily",
        "@every 6h",
    ]
    rows = [(each, each) for each in dict.fromkeys(recurring)]
    for prefix, end in (("@at ", ""), ("", ""), ("@at ", _signed(fold.after))):
        rows.append(
            (f"{prefix}{inside_gap.isoformat()}{end}", f"{prefix}{inside_fold.isoformat()}{end}")
        )  # fmt: skip
    return [*rows, ("@in 15h", "@in 15h")]


STEADY_SCHEDULES = (
    "30 2 * * *", "0,20,40 2 * * *", "30 1-3 * * *", "*/20 2 * * *", "20 30 2 * * *", "@daily", "@every 6h",
    f"@at {STEADY_DAY}T02:30:00", "@in 15h",
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------
# The text


def tables() -> str:
    """What stands between the marks."""
    parts = [_changing(zone) for zone in CHANGING]
    return "\n\n".join([*parts, _steady()])


def _changing(zone: str) -> str:
    gap, fold = changes(zone)
    lines = [
        f"**{zone}.** {_story(gap)} {_story(fold)}",
        "",
        f"| schedule | runs on {gap.day} | runs on {fold.day} | Debian's cron | cron without that rule |",
        "|---|---|---|---|---|",
    ]
    for on_gap, on_fold in schedules(gap, fold):
        name = on_gap if on_gap == on_fold else on_gap.replace(gap.shown[0].date().isoformat(), "…")
        if on_gap != on_fold and gap.shown[0].time() != fold.shown[1].time():
            name = f"{name}` and `{on_fold.replace(fold.day.isoformat(), '…')}"
        cells = [_cell(runs(on_gap, zone, gap.day), gap), _cell(runs(on_fold, zone, fold.day), fold)]
        for other in (debian, unpatched):
            theirs = other(on_gap, zone, gap.day), other(on_fold, zone, fold.day)
            cells.append(_other(cells[:2], theirs, (gap, fold)))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _story(change: Change) -> str:
    reached, to = change.shown
    what = "put forward" if change.jump > timedelta() else "put back"
    return f"{reached:%Y-%m-%d}: {what} at {reached:%H:%M} to {to:%H:%M} ({change.at:%m-%d %H:%M} UTC)."


def _steady() -> str:
    lines = [
        f"**{' and '.join(STEADY)}.** The clock never changes in {YEAR}; any day is like {STEADY_DAY}.",
        "",
        f"| schedule | {' | '.join(STEADY)} |",
        "|---|---|---|",
    ]
    for schedule in STEADY_SCHEDULES:
        cells = [_cell(runs(schedule, zone, STEADY_DAY), None) for zone in STEADY]
        lines.append(f"| `{schedule.replace(STEADY_DAY.isoformat(), '…')}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _other(ours: list[str], theirs: tuple[list[datetime] | None, ...], nights: tuple[Change, Change]) -> str:
    """The same, or what is different and in which night."""
    cells = [
        None if found is None else _cell(found, night) for found, night in zip(theirs, nights, strict=True)
    ]
    if cells[0] is None:
        return "–"
    names = (f"{nights[0].day:%m-%d}", f"{nights[1].day:%m-%d}")
    other = [
        f"{name}: {cell}" for name, cell, our in zip(names, cells, ours, strict=True) if cell and cell != our
    ]
    return "; ".join(other) or "the same"


def _cell(slots: list[datetime], change: Change | None) -> str:
    """Local times, each row of them behind its offset."""
    if not slots:
        return "nothing"
    shown, dots = slots, ("", "")
    if change is not None and len(slots) > SHOWN:
        repeated = max(-change.jump, timedelta())
        first, last = change.at - repeated - HOUR, change.at + repeated + HOUR
        shown = [slot for slot in slots if first <= slot < last]
        dots = "… " * (shown[0] != slots[0]), " …" * (shown[-1] != slots[-1])
    groups = []
    for offset, group in groupby(shown, key=lambda slot: slot.utcoffset()):
        groups.append(" ".join([*map(_time, group), f"({_signed(offset or timedelta())})"]))
    return f"{dots[0]}{', '.join(groups)}{dots[1]}"


def _time(slot: datetime) -> str:
    return f"{slot:%H:%M:%S}" if slot.second else f"{slot:%H:%M}"


def _signed(offset: timedelta) -> str:
    total = offset // MINUTE
    return f"{'-' if total < 0 else '+'}{abs(total) // 60:02}:{abs(total) % 60:02}"


def _offset(at: datetime, info: ZoneInfo) -> timedelta:
    return at.astimezone(info).utcoffset() or timedelta()


def between_marks(text: str) -> str:
    """What the document holds now."""
    return text.partition(f"{BEGIN}\n\n")[2].partition(f"\n\n{END}")[0]


def main() -> None:
    """Write the tables into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{DOCUMENT} has no marks")
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

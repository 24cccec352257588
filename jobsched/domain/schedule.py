"""When a job is due: the six forms of ``schedule``, on the clock of a time zone.

The rule for clock changes is that of Debian's cron, without its limit of three hours. A *fixed* time
(neither the minute nor the hour field starts with ``*``) runs exactly once for each wall time it names: one
that the clock skips in spring runs at the first instant after the gap, one that comes twice in autumn runs
the first time. Everything else follows *elapsed* time: it runs whenever the wall clock shows a match, which
is never for a skipped time and twice for a repeated one. Matches that fall on one instant are one slot.

Inside, an instant is an integer: seconds since 1970 in UTC. ``cron`` finds matches on a wall clock, ``zone_clock``
says what the clock of a zone shows.
"""

import difflib
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, Protocol

from jobsched.domain.cron import ALIASES, DAY, NEVER, Cron, parse_cron
from jobsched.domain.durations import looks_like_instant, parse_duration, parse_instant
from jobsched.domain.zone_clock import EPOCH, LAST_SECOND, Zone, is_zone, zone_of
from jobsched.errors import InvalidSchedule

__all__ = ["Due", "Schedule", "effective_time", "is_zone", "parse_schedule"]

LONGEST_TEXT = 200
_SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Due:
    """Slots that have come due: how many, and the newest of them, oldest first."""

    slots: tuple[datetime, ...]
    count: int


class _Rule(Protocol):
    """What the kinds of schedule answer; meanings and units as in Schedule."""

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None: ...
    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due: ...
    def shortest_gap(self, enough: timedelta) -> timedelta | None: ...


@dataclass(slots=True)  # frozen, it would cost 1 µs of the 4 that it takes to read one
class Schedule:
    """When a job is due, as parse_schedule has read it. Nobody changes it: it is shared by all that ask.

    All instants are aware. ``anchor`` is the job's ``startAt``, else the creation or the last edit of its
    schedule: intervals and delays count from it, the other kinds ignore it.
    """

    text: str
    timezone: str
    kind: Literal["cron", "interval", "instant", "delay"]
    _rule: _Rule = field(repr=False, compare=False)

    @property
    def recurring(self) -> bool:
        """Whether slots go on for ever: true for cron expressions, aliases and intervals."""
        return self.kind in ("cron", "interval")

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None:
        """The first slot strictly after ``after``, in UTC; None when none comes before the year 10000."""
        return self._rule.next_after(after, anchor)

    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due:
        """The slots in (after, until]: their exact number, and the newest ``newest`` of them.

        Costs a few milliseconds at most, whatever the schedule and however long the absence.
        """
        return self._rule.due_slots(after, until, anchor, newest)

    def shortest_gap(self, enough: timedelta = timedelta.max) -> timedelta | None:
        """A lower bound on the time between two consecutive slots, at most 28 days for a cron expression.

        Clock changes count: a fixed time that a gap moves may come close to the next. None for one-off kinds.
        Of a gap of at least ``enough`` nothing but that need be said, which spares the search of decades of clock
        changes (1 ms): below ``enough`` the answer is always the same, above it only as large.
        """
        return self._rule.shortest_gap(enough)

    def gap_for(self, jitter_seconds: float) -> timedelta | None:
        """What effective_time must know of the gap to spread by so much; None where that is nothing."""
        return self.shortest_gap(timedelta(seconds=jitter_seconds + 0.001)) if jitter_seconds else None


def parse_schedule(text: str, timezone: str = "UTC") -> Schedule:
    """Read a schedule; an instant without offset is read in ``timezone``, an IANA name. Answers are cached.

    Raises InvalidSchedule, and nothing else, for whatever string is given.
    """
    return _parse(text, timezone)


def effective_time(slot: datetime, job_id: int, jitter_seconds: float, gap: timedelta | None) -> datetime:
    """The time at which a slot comes due: later than ``slot`` by less than both the jitter and ``gap``.

    The same job and slot give the same answer in every process and version, to the millisecond, spread evenly
    over the slots of a job and the jobs of a slot. Staying below the shortest gap keeps slots in order.
    """
    span = round(jitter_seconds * 1000)
    if gap is not None:
        span = min(span, gap // _MILLISECOND)
    if span <= 1:
        return slot
    name = f"{job_id}/{(slot - EPOCH) // timedelta(microseconds=1)}"
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    try:
        return slot + timedelta(milliseconds=number * span >> 64)
    except OverflowError:
        return slot


# Of 50,000 expressions that are due at the same time each comes once a day: keeping them all costs 50 MB a process,
# reading one anew 5 µs. What is kept serves those that come every minute.
@lru_cache(maxsize=2048)
def _parse(text: str, timezone: str) -> Schedule:
    text = text.strip()
    zone = zone_of(timezone)
    if not text:
        raise InvalidSchedule("The schedule is empty.")
    if len(text) > LONGEST_TEXT:
        raise InvalidSchedule(f"The schedule is longer than {LONGEST_TEXT} characters.")
    if not (text.isascii() and (text.isprintable() or text.replace("\t", " ").isprintable())):
        raise InvalidSchedule("The schedule has characters that are not printable ASCII.")
    keyword, rest = "", text
    if text[0] == "@":
        keyword, rest = [*text.lower().split(None, 1), ""][:2]
    if keyword == "@every":
        return Schedule(text, timezone, "interval", _Interval(parse_duration(rest, _SECOND)))
    if keyword == "@in":
        return Schedule(text, timezone, "delay", _Once(delay=parse_duration(rest, _MILLISECOND)))
    if keyword == "@at" or looks_like_instant(text):
        return Schedule(text, timezone, "instant", _Once(at=_instant(rest, zone)))
    if keyword and (rest or keyword not in ALIASES):
        raise InvalidSchedule(_keyword_hint(keyword, rest))
    return Schedule(text, timezone, "cron", _ZonedCron(parse_cron(text), zone))


def _keyword_hint(keyword: str, rest: str) -> str:
    if keyword in ALIASES:
        return f"{keyword} stands alone; {rest!r} after it has no meaning."
    if keyword == "@reboot":
        return "@reboot is not supported: a job belongs to no machine. Use @in, or run the job by hand."
    known = [*ALIASES, "@every", "@in", "@at"]
    close = difflib.get_close_matches(keyword, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {' '.join(known)}."
    return f"{keyword!r} is not known; {hint}"


def _instant(text: str, zone: Zone) -> datetime:
    instant = parse_instant(text)
    if instant.tzinfo is not None:
        return instant
    wall = (instant.replace(tzinfo=UTC) - EPOCH) // _SECOND
    second = zone.instant(wall)
    shown = second + zone.span(second).offset == wall
    try:
        return EPOCH + timedelta(seconds=second, microseconds=instant.microsecond if shown else 0)
    except OverflowError as error:
        raise InvalidSchedule(f"The instant {text!r} does not exist.") from error


class _ZonedCron:
    """A cron expression on the clock of a zone, with the rule for clock changes above."""

    __slots__ = ("_cron", "_zone")

    def __init__(self, cron: Cron, zone: Zone) -> None:
        self._cron = cron
        self._zone = zone

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None:
        passed = after - EPOCH
        second = self._next(passed.days * DAY + passed.seconds + 1)
        return None if second > LAST_SECOND else datetime.fromtimestamp(second, UTC)

    def _next(self, second: int) -> int:
        """The first slot at or after ``second``, or NEVER."""
        start, end, offset, shown = self._zone.span(second)
        elapsed = self._cron.elapsed
        wall = second + offset
        # At a start, what a gap has swallowed comes due as well.
        if not elapsed and (second == start or shown > wall):
            wall = shown
        found = self._cron.next_wall(wall)
        while found - offset >= end:
            if found == NEVER:
                return NEVER
            # Two days on no wall time comes a second time: what lies between can be passed over.
            far = end > wall + 2 * DAY
            start, end, offset, shown = self._zone.span(max(end, found - 2 * DAY) if far else end)
            second = start
            earliest = start + offset if elapsed else shown
            if not wall <= earliest <= found:  # else nothing matches between, and what was found still stands
                wall = earliest
                found = self._cron.next_wall(wall)
        slot = found - offset
        return slot if slot > second else second

    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due:
        first = (after - EPOCH) // _SECOND + 1
        end = (until - EPOCH) // _SECOND + 1
        slots: list[int] = []
        while len(slots) <= newest and (slot := self._next(slots[-1] + 1 if slots else first)) < end:
            slots.append(slot)
        count = len(slots)
        if count > newest:  # too many to visit each: count them, then start where the newest begin
            count = self._count(first, end)
            slots = self._newest(first, end, newest, slots[-1] + 1 - first)
        return Due(tuple(datetime.fromtimestamp(slot, UTC) for slot in slots), count)

    def _newest(self, first: int, end: int, newest: int, width: int) -> list[int]:
        """The last ``newest`` slots before ``end``; at least so many lie from ``first`` on.

        ``width`` seconds, which held enough of them elsewhere, are a first guess at how far back they reach.
        """
        while end - width > first and self._count(end - width, end) < newest:
            width *= 2
        low, high = max(first, end - width), end
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._count(middle, end) >= newest else (low, middle)
        slots: list[int] = []
        while len(slots) < newest:
            slots.append(self._next(slots[-1] + 1 if slots else low))
        return slots

    def _count(self, first: int, end: int) -> int:
        """How many slots lie in ``first <= slot < end``."""
        count, cron = 0, self._cron
        while first < end:
            span = self._zone.span(first)
            stop, shows = min(end, span.end), first + span.offset
            count += cron.count_walls(shows if cron.elapsed else max(shows, span.shown), stop + span.offset)
            if (
                first == span.start and span.shown < shows and not cron.elapsed
            ):  # a gap: all its matches are one
                count += cron.next_wall(span.shown) < shows != cron.next_wall(shows)
            first = stop
        return count

    def shortest_gap(self, enough: timedelta) -> timedelta:
        quick = timedelta(seconds=self._gap_at_least())
        return quick if quick >= enough else timedelta(seconds=_cron_gap(self._cron, self._zone))

    def _gap_at_least(self) -> int:
        """A lower bound on the gap in seconds, from what the clock changes of the zone can take off at most.

        A jump forward takes off what it jumps. A jump back can let two matches come as close as it is long, if it
        is shorter than the gap; if it is longer, closer than that.
        """
        gap, jumps = self._cron.shortest_gap(), self._zone.jumps
        back = [-jump for jump in jumps if jump < 0]
        if self._cron.elapsed and back:
            if max(back) > gap:
                return 0
            gap = min(gap, *back)
        return gap - max(0, *jumps) if jumps else gap


@lru_cache(maxsize=4096)
def _cron_gap(cron: Cron, zone: Zone) -> int:
    """In seconds: the shortest gap of the wall clock, or a shorter one at a clock change of 2000 to 2060."""
    gap, rule = cron.shortest_gap(), _ZonedCron(cron, zone)
    for change in zone.changes:
        if gap <= 1:
            break
        slot = rule._next(change - gap)
        while slot <= change:
            following = rule._next(slot + 1)
            gap, slot = min(gap, following - slot), following
    return gap


class _Interval:
    """``@every``: the anchor plus whole multiples of the interval, from the first on; it never drifts."""

    __slots__ = ("_every",)

    def __init__(self, every: timedelta) -> None:
        self._every = every

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None:
        anchor = anchor.astimezone(UTC)
        try:
            return anchor + (max(self._passed(after, anchor), 0) + 1) * self._every
        except OverflowError:
            return None

    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due:
        anchor = anchor.astimezone(UTC)
        before = max(self._passed(after, anchor), 0)
        last = self._passed(until, anchor)
        numbers = range(max(before, last - newest) + 1, last + 1)
        return Due(tuple(anchor + number * self._every for number in numbers), max(last - before, 0))

    def _passed(self, until: datetime, anchor: datetime) -> int:
        return (until.astimezone(UTC) - anchor) // self._every

    def shortest_gap(self, enough: timedelta) -> timedelta:
        return self._every


class _Once:
    """``@at`` and bare instants: the instant. ``@in``: the anchor plus the delay."""

    __slots__ = ("_at", "_delay")

    def __init__(self, at: datetime | None = None, delay: timedelta = timedelta()) -> None:
        self._at = at
        self._delay = delay

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None:
        try:
            slot = self._at or anchor.astimezone(UTC) + self._delay
        except OverflowError:
            return None
        return slot if slot > after else None

    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due:
        slot = self.next_after(after, anchor)
        return Due((slot,)[:newest], 1) if slot is not None and slot <= until else Due((), 0)

    def shortest_gap(self, enough: timedelta) -> None:
        return None

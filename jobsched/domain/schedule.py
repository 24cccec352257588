"""When a job is due: the six forms of ``schedule``, on the clock of a time zone.

The rule for clock changes is that of Debian's cron, without its limit of three hours. A *fixed* time
(neither the minute nor the hour field starts with ``*``) runs exactly once for each wall time it names: one
that the clock skips in spring runs at the first instant after the gap, one that comes twice in autumn runs
the first time. Everything else follows *elapsed* time: it runs whenever the wall clock shows a match, which
is never for a skipped time and twice for a repeated one. Matches that fall on one instant are one slot.

Inside, an instant is an integer: seconds since 1970 in UTC. A zone is a row of spans between changes of its
offset; in a span the wall clock is the instant plus a constant, so that finding and counting slots is integer
arithmetic, exact over any absence.
"""

import difflib
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo, available_timezones

from jobsched.domain.cron import ALIASES, DAY, NEVER, Cron, parse_cron
from jobsched.domain.durations import looks_like_instant, parse_duration, parse_instant
from jobsched.errors import InvalidSchedule

LONGEST_TEXT = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_SECOND = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _SECOND


@dataclass(frozen=True, slots=True)
class Due:
    """Slots that have come due: how many, and the newest of them, oldest first."""

    slots: tuple[datetime, ...]
    count: int


class _Rule(Protocol):
    """What the kinds of schedule answer; meanings and units as in Schedule."""

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None: ...
    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due: ...
    def shortest_gap(self) -> timedelta | None: ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is due, as parse_schedule has read it.

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

    def shortest_gap(self) -> timedelta | None:
        """A lower bound on the time between two consecutive slots, at most 28 days for a cron expression.

        Clock changes count: a fixed time that a gap moves may come close to the next. None for one-off kinds.
        """
        return self._rule.shortest_gap()


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
    name = f"{job_id}/{(slot - _EPOCH) // timedelta(microseconds=1)}"
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    try:
        return slot + timedelta(milliseconds=number * span >> 64)
    except OverflowError:
        return slot


@lru_cache(maxsize=65_536)
def _parse(text: str, timezone: str) -> Schedule:
    text = text.strip()
    zone = _zone(timezone)
    if not text:
        raise InvalidSchedule("The schedule is empty.")
    if len(text) > LONGEST_TEXT:
        raise InvalidSchedule(f"The schedule is longer than {LONGEST_TEXT} characters.")
    if not (text.isascii() and text.replace("\t", " ").isprintable()):
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


class _Span(NamedTuple):
    """A time in which a zone keeps its offset; start and end in seconds since 1970, the end excluded."""

    start: int
    end: int
    offset: int
    shown: int
    """The wall time that the clock has reached before: less than at ``start`` in a gap, more in a fold."""


class _Zone:
    """The spans of a time zone, found from its offsets when they are first needed and then kept."""

    # Changes of offset are at least six days apart in all of tzdata, so looking every three days sees each.
    _BITS, _STEP, _KEPT = 25, 3 * DAY, 128
    _FIRST, _LAST = 2 * DAY - 62_135_596_800, _LAST_SECOND - 2 * DAY

    def __init__(self, key: str) -> None:
        self._info = ZoneInfo(key)
        self._pages: dict[int, list[_Span]] = {}

    def span(self, second: int) -> _Span:
        """The span that holds an instant. Pages of 388 days divide spans; such an end changes nothing."""
        page = self._pages.get(second >> self._BITS)
        if page is None:
            if len(self._pages) >= self._KEPT:  # all of time, of all zones, would fill gigabytes
                self._pages.clear()
            page = self._pages[second >> self._BITS] = self._page(second >> self._BITS)
        for span in page:
            if second < span.end:
                return span
        raise AssertionError("a page covers all its seconds")

    def _page(self, number: int) -> list[_Span]:
        start, end = number << self._BITS, (number + 1) << self._BITS
        since = start - self._STEP  # a fold may reach up to a day into the page
        offset = self._offset(since)
        shown, spans = since + offset, []
        for probe in range(start, end + self._STEP, self._STEP):
            while (until := self._end_of_offset(offset, since, min(probe, end))) is not None:
                spans.append(_Span(since, until, offset, shown))
                shown = max(shown, until + offset)
                since, offset = until, self._offset(until)
            if min(probe, end) == start and since < start:
                shown = max(shown, start + offset)
                since = start
        spans.append(_Span(since, end, offset, shown))
        return [span for span in spans if span.end > start]

    def _end_of_offset(self, offset: int, since: int, probe: int) -> int | None:
        """The first second after ``since`` with another offset, if the offset is another one at ``probe``."""
        if self._offset(probe) == offset:
            return None
        while probe - since > 1:
            middle = (since + probe) // 2
            since, probe = (middle, probe) if self._offset(middle) == offset else (since, middle)
        return probe

    def _offset(self, second: int) -> int:
        second = min(max(second, self._FIRST), self._LAST)
        offset = datetime.fromtimestamp(second, self._info).utcoffset() or timedelta()
        return offset // _SECOND

    def instant(self, wall: int) -> int:
        """The first instant at which the clock shows ``wall``, or the end of the gap that swallows it."""
        span = self.span(wall - DAY)
        while wall - span.offset >= span.end:
            span = self.span(span.end)
        return max(wall - span.offset, span.start)


@lru_cache(maxsize=1024)
def _zone(key: str) -> _Zone:
    # The set of names is asked instead of the file system: keys such as "../x" or "Europe" never become paths,
    # "right/…" counts leap seconds, and a disk that ignores case would accept "europe/berlin".
    if is_zone(key):
        try:
            return _Zone(key)
        except (OSError, ValueError, LookupError) as error:
            raise InvalidSchedule(f"The time zone data of {key} cannot be read.", "/timezone") from error
    wanted = key[:64].strip().lower()
    cities = {name.rsplit("/", 1)[-1].lower(): name for name in sorted(_zone_names())}
    by_lower = cities | {name.lower(): name for name in sorted(_zone_names())}
    close = difflib.get_close_matches(wanted, by_lower, 1, 0.75)
    hint = f"did you mean {by_lower[close[0]]}?" if close else "write an IANA name such as Europe/Berlin."
    raise InvalidSchedule(f"{key[:64]!r} is not a known time zone; {hint}", "/timezone")


def is_zone(key: str) -> bool:
    """Whether ``key`` names a time zone. Costs nothing; the hint in parse_schedule's error takes 3 ms."""
    return key in _zone_names()


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    names = available_timezones() - {"localtime", "posixrules", "Factory"}
    return frozenset(name for name in names if re.match(r"(?!posix/|right/)[A-Za-z]", name))


def _instant(text: str, zone: _Zone) -> datetime:
    instant = parse_instant(text)
    if instant.tzinfo is not None:
        return instant
    wall = (instant.replace(tzinfo=UTC) - _EPOCH) // _SECOND
    second = zone.instant(wall)
    shown = second + zone.span(second).offset == wall
    try:
        return _EPOCH + timedelta(seconds=second, microseconds=instant.microsecond if shown else 0)
    except OverflowError as error:
        raise InvalidSchedule(f"The instant {text!r} does not exist.") from error


class _ZonedCron:
    """A cron expression on the clock of a zone, with the rule for clock changes above."""

    def __init__(self, cron: Cron, zone: _Zone) -> None:
        self._cron = cron
        self._zone = zone

    def next_after(self, after: datetime, anchor: datetime) -> datetime | None:
        passed = after - _EPOCH
        second = self._next(passed.days * DAY + passed.seconds + 1)
        return None if second > _LAST_SECOND else _EPOCH + timedelta(seconds=second)

    def _next(self, second: int) -> int:
        """The first slot at or after ``second``, or NEVER."""
        start, end, offset, shown = self._zone.span(second)
        elapsed = self._cron.elapsed
        wall = second + offset
        if not elapsed:  # at a start, what a gap has swallowed comes due as well
            wall = shown if second == start else max(wall, shown)
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
        return max(found - offset, second)

    def due_slots(self, after: datetime, until: datetime, anchor: datetime, newest: int) -> Due:
        first = (after - _EPOCH) // _SECOND + 1
        end = (until - _EPOCH) // _SECOND + 1
        slots: list[int] = []
        while len(slots) <= newest and (slot := self._next(slots[-1] + 1 if slots else first)) < end:
            slots.append(slot)
        count = len(slots)
        if count > newest:  # too many to visit each: count them, then start where the newest begin
            count = self._count(first, end)
            slots = self._newest(first, end, newest, slots[-1] + 1 - first)
        return Due(tuple(_EPOCH + timedelta(seconds=slot) for slot in slots), count)

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

    def shortest_gap(self) -> timedelta:
        return timedelta(seconds=_cron_gap(self._cron, self._zone))


@lru_cache(maxsize=65_536)
def _cron_gap(cron: Cron, zone: _Zone) -> int:
    """In seconds: the shortest gap of the wall clock, or a shorter one at a clock change of 2000 to 2060."""
    gap, rule = cron.shortest_gap(), _ZonedCron(cron, zone)
    change = 946_684_800
    while change < 2_840_140_800 and gap > 1:
        slot = rule._next(change - gap)
        while slot <= change:
            following = rule._next(slot + 1)
            gap, slot = min(gap, following - slot), following
        change = zone.span(change).end
    return gap


class _Interval:
    """``@every``: the anchor plus whole multiples of the interval, from the first on; it never drifts."""

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

    def shortest_gap(self) -> timedelta:
        return self._every


class _Once:
    """``@at`` and bare instants: the instant. ``@in``: the anchor plus the delay."""

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

    def shortest_gap(self) -> None:
        return None

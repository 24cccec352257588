"""The clock of a time zone, as integers: seconds since 1970 in UTC, and what the clock on the wall shows then.

A zone is a row of spans between changes of its offset; in a span the wall clock is the instant plus a constant, so
that finding and counting slots is integer arithmetic, exact over any absence.
"""

import difflib
import re
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from jobsched.domain.cron import DAY
from jobsched.errors import InvalidSchedule

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

LAST_SECOND = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _SECOND
"""The last one that has a date."""


class Span(NamedTuple):
    """A time in which a zone keeps its offset; start and end in seconds since 1970, the end excluded."""

    start: int
    end: int
    offset: int
    shown: int
    """The wall time that the clock has reached before: less than at ``start`` in a gap, more in a fold."""


class Zone:
    """The spans of a time zone, found from its offsets when they are first needed and then kept."""

    # Changes of offset are at least six days apart in all of tzdata, so looking every three days sees each.
    _BITS, _STEP, _KEPT = 25, 3 * DAY, 128
    _FIRST, _LAST = 2 * DAY - 62_135_596_800, LAST_SECOND - 2 * DAY

    def __init__(self, key: str) -> None:
        self._info = ZoneInfo(key)
        self._pages: dict[int, list[Span]] = {}

    def span(self, second: int) -> Span:
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

    @cached_property
    def changes(self) -> tuple[int, ...]:
        """The instants of 2000 to 2060 at which a span begins: all changes of the clock, and the first instant."""
        found, change = [], 946_684_800
        while change < 2_840_140_800:
            found.append(change)
            change = self.span(change).end
        return tuple(found)

    @cached_property
    def jumps(self) -> tuple[int, ...]:
        """By how many seconds the clock jumps at those changes, back if negative: each length once."""
        offsets = ((self.span(change - 1).offset, self.span(change).offset) for change in self.changes)
        return tuple({after - before for before, after in offsets} - {0})

    def _page(self, number: int) -> list[Span]:
        start, end = number << self._BITS, (number + 1) << self._BITS
        since = start - self._STEP  # a fold may reach up to a day into the page
        offset = self._offset(since)
        shown, spans = since + offset, []
        for probe in range(start, end + self._STEP, self._STEP):
            while (until := self._end_of_offset(offset, since, min(probe, end))) is not None:
                spans.append(Span(since, until, offset, shown))
                shown = max(shown, until + offset)
                since, offset = until, self._offset(until)
            if min(probe, end) == start and since < start:
                shown = max(shown, start + offset)
                since = start
        spans.append(Span(since, end, offset, shown))
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
def zone_of(key: str) -> Zone:
    # The set of names is asked instead of the file system: keys such as "../x" or "Europe" never become paths,
    # "right/…" counts leap seconds, and a disk that ignores case would accept "europe/berlin".
    if is_zone(key):
        try:
            return Zone(key)
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

"""Time zones whose rules have changed: the next slots are computed anew when a poller starts.

A process keeps the rules that it has read until it ends, so a new tzdata takes effect with a restart. Each start
that is not behind what was applied last computes, not only the first with newer rules: while pollers are restarted
one after the other, an old one may still store a slot by old rules, and a distribution may mend rules without
giving them another version. By unchanged rules nothing moves, and that is found out for each schedule, not for each
job: those that share schedule, zone and next slot are judged together, and only where that finds a change each is read.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from jobsched.db import firing, zoned
from jobsched.db.claims import in_halves
from jobsched.db.connection import Link
from jobsched.db.firing import Advance
from jobsched.domain.zone_rules import (
    NextTimes,
    ZonedGroup,
    ZonedJob,
    all_right,
    is_older,
    times_by_present_rules,
)
from jobsched.errors import DatabaseRefused
from jobsched.log import get_logger
from jobsched.poller.tzdata import rules_version

#: Jobs that are read together, and judged together where they can be, in one round; how many of those that cannot be
#: are judged one by one in a round; and seconds between two rounds.
PAGE = 5000
BATCH = 500
PAUSE = 0.05

#: Groups that are remembered at most, so that those of other pages are not judged again.
_REMEMBERED = 10_000

#: Seconds until the next try: while another poller computes, and for rows that somebody else holds.
_AGAIN = 2.0
_LOCKED_AGAIN = 1.0

#: Ids that one line of the log names at most.
_MOST_IDS = 20

#: Advisory lock: one poller at a time computes.
_LOCK = 0x6A6F6273_0005

#: A nap of what has nothing more to do.
_FOR_EVER = 86_400.0

log = get_logger()


class ZoneRules:
    """Computes the next slots once, in bounded rounds beside firing. ``wake`` is called when some have moved."""

    def __init__(self, link: Link, wake: Callable[[], None] = lambda: None) -> None:
        self._link = link
        self._wake = wake
        self._rules = rules_version()  # before any zone is read: never newer than what is computed by
        self._applied: str | None = None
        self._up_to = 0
        #: Groups that were found right, with the earliest instant from which one of theirs counts.
        self._right: dict[tuple[object, ...], datetime] = {}
        #: Jobs to be judged one by one.
        self._doubtful: list[int] = []
        self._locked: list[int] = []
        self._looked = 0
        self._moved: list[int] = []
        self._begun = self._done = False

    def run_once(self) -> float:
        """One round; the seconds until the next."""
        if self._done:
            return _FOR_EVER
        # Asked for in each round: with a connection that broke the lock went, too.
        if not zoned.claim_turn(self._link, _LOCK):
            self._link.close()
            return _AGAIN
        if not self._begun:
            self._applied = zoned.applied_rules(self._link)
            self._begun = True
            if is_older(self._rules, self._applied):
                log.warning("zone_rules_older", rules=self._rules, applied=self._applied)
                return self._rest()
        if self._doubtful or self._sift():
            if doubtful := self._doubtful[:BATCH]:
                self._compute(doubtful)
                del self._doubtful[: len(doubtful)]
            return PAUSE
        if self._locked:
            again, self._locked = self._locked[:BATCH], self._locked[BATCH:]
            self._compute(again)
            return _LOCKED_AGAIN if self._locked else PAUSE
        self._note_applied()
        return self._rest()

    def _note_applied(self) -> None:
        """All jobs were looked at: remember by which rules, and tell."""
        if self._rules is not None and self._rules != self._applied:
            zoned.remember_rules(self._link, self._rules, self._applied)
        tell = log.info if self._moved or self._rules != self._applied else log.debug
        tell(
            "zone_rules_applied",
            rules=self._rules,
            before=self._applied,
            jobs=self._looked,
            moved=len(self._moved),
            job_ids=self._moved[:_MOST_IDS],
        )

    def _rest(self) -> float:
        """There is nothing more to do, for ever."""
        self._done = True
        self._right = {}
        self._link.close()
        return _FOR_EVER

    def _sift(self) -> bool:
        """Read a page, and set aside whom its groups do not clear. False if there was none any more."""
        page = zoned.page_after(self._link, self._up_to, PAGE)
        if page is None:
            return False
        self._up_to = page.end
        self._doubtful += page.single
        for group in page.groups:
            if self._is_right(group):
                self._looked += len(group.jobs)
            else:
                self._doubtful += group.jobs
        self._doubtful.sort()
        return True

    def _is_right(self, group: ZonedGroup) -> bool:
        key = (group.schedule, group.timezone, group.next_slot, group.start_at, group.end_at)
        known = self._right.get(key)
        if known is not None and known <= group.counted:
            return True
        try:
            right = all_right(group)
        except Exception as error:
            # Pure code on one group: each of its jobs is judged, and its fault told, by itself.
            log.debug("zone_rules_not_applied", job_id=group.jobs[0], error=str(error))
            return False
        if right:
            if len(self._right) >= _REMEMBERED:
                self._right = {}
            self._right[key] = group.counted
        return right

    def _compute(self, jobs: Sequence[int]) -> None:
        in_halves(self._move, jobs, _pass_by)

    def _move(self, jobs: Sequence[int]) -> None:
        with self._link.transaction() as cursor:
            present = zoned.to_come(cursor, jobs)
        changed = [job.job_id for job, _times in _changed(present)]
        locked: list[int] = []
        moves: list[Advance] = []
        if changed:
            with self._link.transaction() as cursor:
                locked = zoned.lock(cursor, changed)
                moves = [
                    Advance(job.job_id, times.next_slot, times.next_execution_time, job.last_slot, job.runs)
                    for job, times in _changed(zoned.to_come(cursor, locked))
                ]
                if moves:
                    firing.advance(cursor, moves)
        left = set(changed) - set(locked)
        self._looked += len(present) - len(left)
        self._locked += sorted(left)
        if moves:
            self._moved += sorted(move.job_id for move in moves)
            self._wake()


def _changed(jobs: Sequence[ZonedJob]) -> list[tuple[ZonedJob, NextTimes]]:
    found = []
    for job in jobs:
        try:
            times = times_by_present_rules(job)
        except Exception as error:
            # Pure code on one row: whatever it raises is that row's, and firing says so when it is due.
            log.debug("zone_rules_not_applied", job_id=job.job_id, error=str(error))
            continue
        if times is not None:
            found.append((job, times))
    return found


def _pass_by(job_id: int, error: DatabaseRefused) -> None:
    log.debug("zone_rules_not_applied", job_id=job_id, error=str(error))

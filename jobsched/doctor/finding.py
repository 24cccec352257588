"""What a look says, and what a check is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

#: ok; info: worth knowing, nothing to do; warn: it works, but not for long or not well; fail: something does not
#: work; fixed: did not, and does now; skipped: could not be looked at.
Level = Literal["ok", "info", "warn", "fail", "fixed", "skipped"]

#: With one of these, the doctor's exit code is 1.
TROUBLE = frozenset({"warn", "fail"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look has found: how bad, what in plain words, and what to do; ``did``: what was done about it."""

    level: Level = "ok"
    text: str = ""
    did: str = ""

    def after(self, did: str, now: "Finding") -> "Finding":
        """This finding once something was done about it and a second look said ``now``."""
        if now.level in TROUBLE:
            return replace(now, did=did)
        return Finding("fixed", self.text, did)


OK = Finding()


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is worth a line. Seconds, or shares of a whole."""

    watch: float = 5.0
    skew: float = 2.0
    overdue: float = 30.0
    waits: float = 60.0
    unserved: float = 10.0
    lost: float = 20.0
    idle: float = 60.0
    open: float = 600.0
    nearly: float = 0.8
    full: float = 0.95
    settle: float = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    ``name``: a sentence that is true where all is well. ``key``: its name for programs, and for the ``needs`` of
    others. ``fix`` mends what ``look`` has found and says what it did; an empty text: there was nothing to do.
    """

    key: str
    name: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    fix: Callable[[], str] | None = None


def warn(text: str) -> Finding:
    """It works, but not for long or not well."""
    return Finding("warn", text)


def fail(text: str) -> Finding:
    """Something does not work."""
    return Finding("fail", text)


def info(text: str) -> Finding:
    """Worth knowing; nothing to do."""
    return Finding("info", text)


def count(number: int, noun: str, many: str | None = None) -> str:
    """A number of things; ``many``: what more than one are called, if not with an s.

    >>> count(1, "row"), count(2000, "row"), count(2, "entry", "entries")
    ('1 row', '2,000 rows', '2 entries')
    """
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def lasting(seconds: float) -> str:
    """A length of time in one unit.

    >>> lasting(42.4), lasting(600), lasting(90_000)
    ('42 s', '10 min', '25 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"

"""Which fault strikes when: a shuffled deck, dealt so that no two faults are at one part at once."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.chaos.bench.faults import FAULTS

#: Slots of one kind that may be hit at the same time; one is always left alone. Of everything else there is one.
AT_ONCE = {"worker": 2}

#: Seconds between the end of one fault and the next one at the same part, for it to come to itself.
RESPITE = 1.0


class Kind(Protocol):
    """What a plan has to know of a fault."""

    @property
    def parts(self) -> Iterable[str]: ...
    @property
    def lasts(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault of ``kind`` strikes ``at`` so many seconds after the first moment of the plan."""

    at: float
    kind: str


def make_plan(
    seed: int, seconds: float, every: float = 5.0, kinds: Mapping[str, Kind] = FAULTS
) -> list[Planned]:
    """A fault every ``every`` seconds, all healed before ``seconds`` are over. The same seed, the same plan.

    Cards are dealt from a shuffled deck of all kinds, and a new deck follows when none of it fits.
    """
    chance = random.Random(seed)
    busy: dict[str, list[float]] = {}
    plan: list[Planned] = []
    deck = _shuffled(kinds, chance)
    for turn in range(int(seconds // every)):
        at = turn * every
        fitting = [kind for kind in deck if _fits(kinds[kind], at, seconds, busy)]
        if not fitting:
            more = [kind for kind in _shuffled(kinds, chance) if kind not in deck]
            fitting = [kind for kind in more if _fits(kinds[kind], at, seconds, busy)]
            deck += more
        if not fitting:
            continue
        kind = fitting[0]
        deck.remove(kind)
        for part in kinds[kind].parts:
            busy.setdefault(_place(part), []).append(at + kinds[kind].lasts + RESPITE)
        plan.append(Planned(at, kind))
    return plan


def chance_of(seed: int, index: int) -> random.Random:
    """The randomness of a plan's ``index``-th strike: its own, whatever the other strikes take from theirs."""
    return random.Random(f"{seed}/{index}")


def _shuffled(kinds: Mapping[str, Kind], chance: random.Random) -> list[str]:
    deck = sorted(kinds)
    chance.shuffle(deck)
    return deck


def _fits(kind: Kind, at: float, seconds: float, busy: Mapping[str, list[float]]) -> bool:
    return at + kind.lasts <= seconds and all(
        sum(until > at for until in busy.get(_place(part), ())) < AT_ONCE.get(_place(part), 1)
        for part in kind.parts
    )


def _place(part: str) -> str:
    return "poller" if part == "pollers" else part

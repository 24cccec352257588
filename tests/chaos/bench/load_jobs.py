"""The jobs of the load: which kinds there are, how many of each, and what a user remembers of one."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

#: What a kind's jobs are made of, besides their name, payload and times.
Fields = dict[str, Any]

_PRIORITIES = (5, 5, 5, 5, 9, 1)
_QUICK_RETRIES: Fields = {"minBackoffSeconds": 0.2, "maxBackoffSeconds": 1, "backoffFactor": 1.5}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of recurring job. ``share``: its jobs for each execution/s of the whole load."""

    name: str
    share: float
    make: Callable[[random.Random], Fields]

    @property
    def exclusive(self) -> bool:
        """Whether its jobs allow no overlaps."""
        return self.name.startswith("overlap")


def _slow(chance: random.Random) -> Fields:
    return {"schedule": "@every 1s", "api": f"/slow/{chance.choice((200, 500, 900, 1500, 3000))}"}


def _once(chance: random.Random) -> Fields:
    path = chance.choice(("/ok", "/ok", "/slow/500", "/slow/2500"))
    return {
        "schedule": "@every 1s",
        "api": path,
        "type": "AT_MOST_ONCE",
        "maxRetryCount": chance.choice((0, 3)),
    }


def _overlapping(policy: str) -> Callable[[random.Random], Fields]:
    def make(chance: random.Random) -> Fields:
        path = f"/slow/{chance.choice((1300, 1700, 2600))}"
        return {"schedule": "@every 1s", "api": path, "overlapPolicy": policy}

    return make


KINDS = {
    kind.name: kind
    for kind in (
        Kind("steady", 0.44, lambda _: {"schedule": "@every 1s", "api": "/ok"}),
        Kind("steady2", 0.18, lambda _: {"schedule": "@every 2s", "api": "/ok"}),
        Kind("cron", 0.05, lambda _: {"schedule": "* * * * * *", "api": "/ok"}),
        Kind("cron2", 0.04, lambda c: {"schedule": f"{c.randrange(2)}/2 * * * * *", "api": "/ok"}),
        Kind("slow", 0.12, _slow),
        Kind("once", 0.09, _once),
        Kind(
            "fails",
            0.05,
            lambda c: {
                "schedule": "@every 2s",
                "api": f"/fail/{c.choice((1, 2))}",
                "maxRetryCount": 5,
                **_QUICK_RETRIES,
            },
        ),
        Kind(
            "dies",
            0.03,
            lambda c: {
                "schedule": "@every 3s",
                "api": "/status/500",
                "maxRetryCount": c.choice((0, 1)),
                **_QUICK_RETRIES,
            },
        ),
        Kind("overlap-skip", 0.03, _overlapping("skip")),
        Kind("overlap-queue", 0.03, _overlapping("queue")),
        Kind("jitter", 0.03, lambda _: {"schedule": "@every 2s", "api": "/ok", "jitterSeconds": 1}),
        Kind(
            "counted", 0.02, lambda c: {"schedule": "@every 1s", "api": "/ok", "maxRuns": c.randrange(5, 40)}
        ),
    )
}


@dataclass(slots=True)
class KnownJob:
    """What its user knows of a job. ``version`` and ``fields`` are of the last answer."""

    id: int
    kind: str
    version: int
    fields: dict[str, Any]
    paused: bool = False
    runs: list[int] = field(default_factory=list)

    @property
    def key(self) -> str | None:
        """The user's own key for it."""
        found: str | None = self.fields.get("key")
        return found


class Recipes:
    """Makes the requests of one user: names are his own, so that nobody else's job is ever mistaken for his."""

    def __init__(self, user: str, target_url: str, until: float, chance: random.Random) -> None:
        self._user = user
        self._target_url = target_url
        self._until = until
        self._chance = chance
        self._made = 0

    def recurring(self, kind: str) -> Fields:
        """A job that ends by itself at the end of the load."""
        end = datetime.fromtimestamp(self._until, UTC)
        start = datetime.now(UTC) + timedelta(milliseconds=self._chance.randrange(200, 1800))
        return self._named(
            KINDS[kind].make(self._chance)
            | {
                "startAt": stamp(min(start, end)),
                "endAt": stamp(end),
                "priority": self._chance.choice(_PRIORITIES),
            }
        )

    def one_off(self) -> Fields:
        """A job with a single slot within some seconds."""
        delay = self._chance.choice(("500ms", "1s", "2s", "3s"))
        at = datetime.now(UTC) + timedelta(milliseconds=self._chance.randrange(300, 4000))
        schedule = self._chance.choice((f"@in {delay}", stamp(at), f"@at {stamp(at)}"))
        path = self._chance.choice(("/ok", "/ok", "/slow/300", "/fail/1"))
        kind = self._chance.choice(("AT_LEAST_ONCE", "AT_LEAST_ONCE", "AT_MOST_ONCE"))
        return self._named({"schedule": schedule, "api": path, "type": kind, **_QUICK_RETRIES})

    def payload(self) -> dict[str, Any]:
        """Something to send."""
        return {"from": self._user, "n": self._made, "text": "ä" * self._chance.randrange(20)}

    def _named(self, fields: Fields) -> Fields:
        self._made += 1
        return {
            "name": f"{self._user}-{self._made}",
            "tags": ["chaos"],
            "payload": self.payload(),
            **fields,
            "api": self._target_url + fields["api"],
        }


def fleet(rate: float, users: int, user: int) -> Iterator[str]:
    """The kinds of one user's recurring jobs, of all that ``users`` share to reach ``rate`` executions/s."""
    number = 0
    for kind in KINDS.values():
        for _ in range(max(1, round(kind.share * rate))):
            if number % users == user:
                yield kind.name
            number += 1


def stamp(instant: datetime) -> str:
    """An instant as the API writes it, in milliseconds."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The load: users on threads of their own, who do everything that the API offers, steadily.

Most of the rate comes from recurring jobs, which the users register first; all of them end by themselves at
``until``, so that the drain can come to zero.
"""

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.bench.actions import User
from tests.chaos.bench.load_calls import PATIENCE, Caller, CallLog
from tests.chaos.bench.load_jobs import KnownJob, Recipes, fleet
from tests.chaos.bench.records import Call

#: Clients at work, and how many things each does a second.
USERS = 4
PACE = 5.0

#: Executions/s that come from one-offs, bulks, runs by hand and what they lead to, at this pace.
_BY_HAND = 25.0

#: Executions/s of the recurring jobs for each unit of rate that ``fleet`` is given.
_PER_UNIT = 0.88


class Load:
    """Users of the API at ``urls``. ``rate``: executions/s to aim at. ``until``: ``time.time()`` of the end.

    ``log`` gets a JSON line a call.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        target_url: str,
        seed: int,
        *,
        until: float,
        rate: float = 150.0,
        log: Path | None = None,
    ) -> None:
        self._log = CallLog(log)
        self._stopping = threading.Event()
        self._until = until
        self._callers: list[Caller] = []
        self._users: list[User] = []
        self._threads: list[threading.Thread] = []
        #: What ended a user's thread before its time: a fault of the bench.
        self.broken: list[str] = []
        units = max(10.0, (rate - _BY_HAND) / _PER_UNIT)
        for number in range(USERS):
            chance = random.Random(f"{seed}-{number}")
            caller = Caller(list(urls), key, self._log, chance)
            user = User(caller, Recipes(f"user{number}-{seed}", target_url, until, chance), chance)
            kinds = list(fleet(units, USERS, number))
            self._callers.append(caller)
            self._users.append(user)
            self._threads.append(
                threading.Thread(
                    target=self._live, args=(user, kinds, chance), name=f"user{number}", daemon=True
                )
            )

    def start(self) -> None:
        """Begin. Returns at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more calls, and wait for those under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(4 * PATIENCE)
            if thread.is_alive():
                self.broken.append(f"{thread.name} does not end")
        for caller in self._callers:
            caller.close()
        self._log.close()

    @property
    def calls(self) -> list[Call]:
        """Every call so far, acknowledged or not."""
        return self._log.calls

    @property
    def jobs(self) -> dict[int, KnownJob]:
        """The jobs that users know and still edit."""
        return {id: job for user in self._users for id, job in list(user.jobs.items())}

    def _live(self, user: User, kinds: list[str], chance: random.Random) -> None:
        try:
            chance.shuffle(kinds)
            for kind in kinds:
                if self._stopping.is_set():
                    return
                user.create(kind)
            due = time.monotonic()
            while time.time() < self._until and not self._stopping.wait(max(0.0, due - time.monotonic())):
                user.act()
                # After a call that took long there is no rush to make up for it.
                due = max(due, time.monotonic() - 1.0) + chance.expovariate(PACE)
        except Exception as error:
            self.broken.append(f"{threading.current_thread().name}: {error!r}")

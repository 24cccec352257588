"""The states of an execution and every move between them: one table, and nothing else decides.

The CHECK constraints of the schema and docs/states.md agree with this table; a test holds the three together.
"""

from typing import Final, Literal

State = Literal[
    "pending", "queued", "running", "retrying", "blocked", "succeeded", "failed", "cancelled", "skipped"
]
Trigger = Literal["schedule", "manual", "redrive"]

LIVE: Final[tuple[State, ...]] = ("pending", "queued", "running", "retrying", "blocked")
FINAL: Final[tuple[State, ...]] = ("succeeded", "failed", "cancelled", "skipped")
STATES: Final[tuple[State, ...]] = LIVE + FINAL

#: Live states in which an execution waits and can be cancelled at once.
WAITING: Final[tuple[State, ...]] = ("pending", "queued", "retrying", "blocked")

TRIGGERS: Final[tuple[Trigger, ...]] = ("schedule", "manual", "redrive")

#: From each live state, where an execution may go. Final states are left never.
MOVES: Final[dict[State, tuple[State, ...]]] = {
    # waits for its due time or for room in its queue
    "pending": ("queued", "blocked", "cancelled", "skipped"),
    # handed to RQ
    "queued": ("running", "cancelled"),
    # claimed by a live worker; back to queued only when it was never sent
    "running": ("succeeded", "failed", "retrying", "queued", "cancelled"),
    # waits for its due time after a failed attempt, or until somebody asks for it now
    "retrying": ("queued", "cancelled"),
    # waits for its job's seat
    "blocked": ("pending", "cancelled"),
    "succeeded": (),
    "failed": (),
    "cancelled": (),
    "skipped": (),
}


def is_final(state: State) -> bool:
    """Whether an execution in ``state`` is over and stands in the history."""
    return state in FINAL


def may_move(source: State, target: State) -> bool:
    """Whether an execution may go from ``source`` to ``target``."""
    return target in MOVES[source]

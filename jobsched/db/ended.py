"""How attempts ended, and as what Postgres is told of many at once."""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from jobsched.db.arrays import bigints, blobs, booleans, floats, integers, jsons, texts

T = TypeVar("T")


class Ended(NamedTuple):
    """One attempt's end, ready to be recorded.

    ``state`` is succeeded, failed, retrying or cancelled; ``age`` the seconds since the attempt ended;
    ``delay`` the seconds from its end to the retry. ``headers`` and ``phases`` are JSON text; ``payload`` what
    was sent, given where the execution may be sent again.
    """

    id: int
    attempt: int
    state: str
    age: float
    duration_ms: float | None
    max_retry_count: int
    delay: float = 0.0
    spends: bool = False
    status: int | None = None
    headers: str | None = None
    body: bytes | None = None
    truncated: bool = False
    error_code: str | None = None
    error_message: str | None = None
    phases: str | None = None
    payload: str | None = None


def as_arrays(ended: Sequence[Ended]) -> dict[str, bytes]:
    """The batch as arrays of Postgres, a column each, in the order of ids.

    A column in which no row has anything to say is empty; ``unnest`` fills it up with NULL. Headers that many
    answers share are written, and parsed there, once: ``header_at`` says which are whose, from 1.
    """
    columns = zip(*sorted(ended, key=itemgetter(0)), strict=True)
    ids, attempts, outcomes, ages, durations, max_retries, delays, spends, statuses, *captured = columns
    headers, bodies, truncated, codes, messages, phases, sent = captured
    places = {text: place for place, text in enumerate(dict.fromkeys(headers), 1)}
    return {
        "ids": bigints(ids),
        "attempts": integers(attempts),
        "outcomes": texts(outcomes),
        "ages": floats(ages),
        "durations": floats(durations),
        "max_retries": integers(max_retries),
        "delays": floats(delays if any(delays) else ()),
        "spends": booleans(spends if any(spends) else ()),
        "statuses": integers(statuses),
        "headers": jsons(tuple(places)),
        "header_at": integers([places[text] for text in headers]),
        "bodies": blobs(bodies),
        "truncated": booleans(truncated if any(truncated) else ()),
        "error_codes": texts(_said(codes)),
        "error_messages": texts(_said(messages)),
        "phases": jsons(phases),
        "sent": texts(_said(sent)),
    }


def _said(values: Sequence[T | None]) -> Sequence[T | None]:
    return () if values.count(None) == len(values) else values

"""One session with Postgres that waits for no answer for ever.

A server that stands still (a stalled disk, a paused machine, one backend that was stopped) goes on acknowledging
packets, so that neither keepalives nor ``tcp_user_timeout`` end the wait, and it cannot time its own statement
out. Whoever waits for such an answer would wait until somebody looks: a request, a beat, a claim. So each wait has
a deadline of our own, a little after the one that the server itself would keep; then the session is given up.
"""

import select
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import peewee
import psycopg
from playhouse.pool import PooledPostgresqlDatabase
from psycopg import errors as pg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.types.json import set_json_loads

from jobsched.clock import monotonic, rfc3339
from jobsched.domain.json_text import parsed

T = TypeVar("T")
Row = tuple[Any, ...]

#: Seconds beyond the server's own limit of a statement.
BEYOND = 2.0

#: Seconds that the pool waits for a sign of life of a connection that lay idle.
PROBE = 2.0

#: Seconds for which a connection that has just been given back counts as alive, if its socket is quiet.
FRESH = 0.25

#: Seconds for which a connection goes from one block to the next, before the pool looks at it again.
KEEP = 60.0

#: What a session does not get over: a prepared statement that a migration or a pooler in between has spoilt, and a
#: server that only reads. Connecting anew finds the one that writes, once there has been a failover.
_SPOILING = (psycopg.NotSupportedError, pg.InvalidSqlStatementName, pg.ReadOnlySqlTransaction)


class Waits(Protocol):
    """How a session waits for its server where its thread has other things to do: jobsched.worker.strands.Strands."""

    def here(self) -> bool:
        """Whether the caller can wait so; else its thread waits."""

    def until_ready(self, fd: int, wanted: int, deadline: float) -> int:
        """Wait for a socket to be readable (1), writable (2) or both; which of them, 0 at ``deadline``."""

    def elsewhere(self, act: Callable[[], T]) -> T:
        """What ``act`` returns or raises, on another thread."""


class Session(psycopg.Connection[Row]):
    """A connection of psycopg whose every wait ends. ``spoilt``: it answers, but is of no use any more.

    With ``waits`` it is that which waits, wherever it can.
    """

    patience = float("inf")
    spoilt = False
    gave_up = False
    given_back = float("-inf")
    taken = float("-inf")
    waits: Waits | None = None
    _extended: float | None = None

    def extend(self, statement_timeout: float, *, patience: float | None = None) -> None:
        """Let statements take so many seconds until the end of the present transaction, here and on the server.

        ``patience``: the seconds for one exchange, where a statement has many (COPY).
        """
        self._extended = patience or statement_timeout + BEYOND
        self.execute(
            f"SET LOCAL statement_timeout = {int(statement_timeout * 1000)}; SET LOCAL lock_timeout = '10s'"
        )

    def is_quiet(self) -> bool:
        """Whether the server has said nothing unasked; at its end it says so, or the network does."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)

    def wait(self, gen: "Generator[Any, Any, T]", *args: Any, **kwargs: Any) -> T:
        """Run one exchange with the server, as psycopg does; OperationalError when its time is over."""
        if self._extended is not None and self.pgconn.transaction_status == TransactionStatus.IDLE:
            self._extended = None
        patience = self._extended or self.patience
        deadline = monotonic() + patience
        try:
            if self.waits is not None and self.waits.here():
                return _driven(gen, self.waits, self.fileno(), deadline)
            return super().wait(_bounded(gen, deadline), *args, **kwargs)
        except _Silent:
            self.gave_up = True
            self.pgconn.finish()
            # Of a class that Peewee knows.
            raise psycopg.OperationalError(
                f"no answer within {patience:g} s; the session was given up"
            ) from None
        except _SPOILING:
            self.spoilt = True
            raise


class _Silent(Exception):
    """The server has said nothing for too long."""


def _bounded(gen: "Generator[Any, Any, T]", deadline: float) -> "Generator[Any, Any, T]":
    """``gen``, given up at ``deadline``. psycopg wakes it every 0.1 s with nothing in its hands."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() >= deadline:
                raise _Silent
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


def _driven(gen: "Generator[Any, Any, T]", waits: Waits, fd: int, deadline: float) -> T:
    """Run ``gen`` to its end; each of its waits for the socket is one of ``waits``."""
    try:
        wanted = next(gen)
        while ready := waits.until_ready(fd, int(wanted), deadline):
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
    raise _Silent


def connect(url: str, *, statement_timeout: float, **options: Any) -> Session:
    """A session in autocommit mode; ``statement_timeout`` (seconds; 0: none) is what ``options`` tell the server."""
    session = Session.connect(url, autocommit=True, **options)
    if statement_timeout:
        session.patience = statement_timeout + BEYOND
    return session


class _AnyInstant(Loader):
    """Reads a timestamptz; one that Python has no date for (44 BC, infinity) becomes the nearest that it has.

    No API lets one in. But a single row that a hand has spoilt must not take a whole list from its readers.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._usual = _usual_instant(oid, context)

    def load(self, data: Buffer) -> datetime:
        try:
            instant: datetime = self._usual.load(data)
            return instant
        except psycopg.DataError:
            early = bytes(data).endswith(b"BC") or bytes(data).startswith(b"-")
            return (datetime.min if early else datetime.max).replace(tzinfo=UTC)


_INSTANTS = psycopg.postgres.types["timestamptz"].oid
_usual_instant: Any = psycopg.adapters.get_loader(_INSTANTS, Format.TEXT)


class ShownInstant(Loader):
    """Reads a timestamptz as the text that answers show, where nobody asks for more; a page has hundreds of them.

    A session of ours has UTC for its time zone, so the server's text has the digits in place, as a rule.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._any = _AnyInstant(oid, context)

    def load(self, data: Buffer) -> str:
        text = str(data, "ascii")
        if text[10:11] == " " and text[-3:] == "+00":
            if len(text) == len("2026-12-01 09:00:00.123456+00"):
                return f"{text[:10]}T{text[11:23]}Z"
            if len(text) == len("2026-12-01 09:00:00+00"):
                return f"{text[:10]}T{text[11:19]}.000Z"
        return rfc3339(self._any.load(data))


def show_instants(cursor: psycopg.Cursor[Row]) -> None:
    """Let ``cursor`` read instants as ShownInstant does."""
    cursor.adapters.register_loader(_INSTANTS, ShownInstant)


class _Adapter(peewee.Psycopg3Adapter):  # Peewee carries no types
    def connect(self, db: "Pool", **options: Any) -> Session:
        session = connect(db.database, statement_timeout=db.statement_timeout, **options)
        session.adapters.register_loader(_INSTANTS, _AnyInstant)
        set_json_loads(parsed, session)
        return session


class Pool(PooledPostgresqlDatabase):  # type: ignore[misc]
    """Peewee's pool of such sessions, opened with a URL."""

    psycopg3_adapter = _Adapter
    statement_timeout = 0.0
    may_keep = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._at_hand: list[Session] = []

    def kept(self) -> "_Kept":
        """One connection over a block.

        Where there are enough for all (``may_keep``) it stays at hand for the next block, if that comes soon, and the
        last used is the first to be used again. To give one back to the pool and take it out costs a tenth of a small
        request; and the pool would take the oldest, whose server process finds nothing of its own in the caches.
        """
        return _Kept(self)

    def _is_closed(self, conn: Session) -> bool:
        if monotonic() - conn.given_back < FRESH and not conn.closed and conn.is_quiet():
            return False
        usual, conn.patience = conn.patience, PROBE
        try:
            if not super()._is_closed(conn):
                return False
        finally:
            conn.patience = usual
        if conn.gave_up:
            # Not the next one: the pool's lock is held meanwhile, and they will all be silent.
            raise psycopg.OperationalError("the database gives no sign of life")
        return True

    def _hold(self) -> None:
        now = monotonic()
        while self._at_hand:
            try:
                conn = self._at_hand.pop()
            except IndexError:  # another thread was quicker
                break
            self._state.set_connection(conn)
            fresh = now - conn.given_back < FRESH and now - conn.taken < KEEP
            if fresh and not conn.closed and conn.is_quiet():
                return
            self.close()
        self.connect()
        self.connection().taken = now

    def _let_go(self) -> None:
        if self.is_closed():
            return
        conn: Session = self.connection()
        if self.may_keep and not (conn.spoilt or conn.closed) and not conn.pgconn.transaction_status:
            conn.given_back = monotonic()
            self._state.reset()
            self._at_hand.append(conn)
        else:
            self.close()

    def _can_reuse(self, conn: Session) -> bool:
        conn.given_back = monotonic()
        return not conn.spoilt and bool(super()._can_reuse(conn))


class _Kept:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        self._pool._hold()

    def __exit__(self, *_error: object) -> None:
        self._pool._let_go()

"""Connections to Postgres: a pool for the API, one connection of its own for each hot loop.

A hot loop never goes through the pool: checking out probes with a query of its own, and a loop that waits
for another's connection is late. Foreign errors are converted here, at the boundary, into the three that
callers can act on: unavailable (try again), refused (this data never goes in), schema mismatch.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import peewee
import psycopg
from psycopg import errors as pg

from jobsched.db.models import MODELS
from jobsched.db.numbered import Numbered
from jobsched.db.session import Pool, Row, Session, Waits, connect
from jobsched.errors import (
    DatabaseContended,
    DatabaseError,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaMismatch,
)

__all__ = ["Cursor", "Link", "Row", "convert", "converted", "open_pool", "repeated", "session_options"]

Cursor = psycopg.Cursor[Row]
P = ParamSpec("P")
T = TypeVar("T")

# A half-open connection is noticed within about 10 s.
_NETWORK = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

_TRANSIENT = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    pg.ReadOnlySqlTransaction,
    pg.QueryCanceled,
    pg.LockNotAvailable,
    pg.IdleInTransactionSessionTimeout,
    psycopg.InternalError,
    psycopg.NotSupportedError,
    pg.InsufficientPrivilege,
    pg.InvalidSqlStatementName,
    peewee.OperationalError,
    peewee.InterfaceError,
)
#: Undone by the server in favour of somebody else: the same again succeeds as a rule.
_CONTENDED = (pg.DeadlockDetected, pg.SerializationFailure)
_TRIES = 3
_SCHEMA = (pg.UndefinedTable, pg.UndefinedColumn, pg.UndefinedFunction)


def convert(error: BaseException) -> DatabaseError:
    """The error of ours that says what a caller can do about ``error``, one of psycopg's or Peewee's."""
    cause = _first(error)
    # Not str(cause): its details quote the row, and with it headers, payloads and answers.
    said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    text = " ".join((said or str(cause)).split()) or type(cause).__name__
    if isinstance(cause, _SCHEMA):
        return SchemaMismatch(
            f"The database's schema is not the one of this version: {text}. Run `jobsched migrate`."
        )
    if isinstance(cause, pg.ProgramLimitExceeded | pg.StatementTooComplex):
        return DatabaseRefused(text)
    if isinstance(cause, _CONTENDED):
        return DatabaseContended(f"The database preferred somebody else: {text}")
    if isinstance(cause, _TRANSIENT):
        return DatabaseUnavailable(f"The database does not answer as it should: {text}")
    return DatabaseRefused(text)


def _first(error: BaseException) -> BaseException:
    """What happened before ``error`` and is the reason for it.

    Peewee raises its own errors while it handles psycopg's, without a "from". And where a session dies inside a
    transaction, the last that is said is that nothing could be rolled back, for "the connection is closed".
    """
    first = error
    while isinstance(error, peewee.PeeweeException) or (
        isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    ):
        before = error.__cause__ or error.__context__
        if not isinstance(before, psycopg.Error | peewee.PeeweeException):
            break
        first = error = before
    return first


def session_options(
    application: str, statement_timeout: float, lock_timeout: float = 0.0, *, by_index: bool = False
) -> dict[str, Any]:
    """Keyword arguments of psycopg.connect that every connection of ours shares. Times in seconds; 0: none.

    ``by_index``: never read a table from end to end. A plan that was made, and kept, while the table was nearly empty
    would do so when it is full.
    """
    milliseconds = int(statement_timeout * 1000)
    plans = " -c enable_seqscan=off" if by_index else ""
    return {
        **_NETWORK,
        "application_name": f"jobsched-{application}",
        # A cluster made under LC_ALL=C is SQL_ASCII, and its text would arrive as bytes.
        "client_encoding": "utf8",
        "options": (
            f"-c timezone=UTC -c statement_timeout={milliseconds} -c lock_timeout={int(lock_timeout * 1000)} "
            f"-c idle_in_transaction_session_timeout=10000 -c client_min_messages=warning -c jit=off{plans}"
        ),
    }


class Link:
    """One connection that belongs to one loop. It connects when first used and again after it broke.

    ``on_connect`` runs on each new connection, before its first use (the check of the incarnation). ``waits``
    waits for the server, where the loop does more than that. ``by_index`` as in ``session_options``.
    Not thread-safe, except ``close`` and ``cancel``.
    """

    def __init__(
        self,
        url: str,
        application: str,
        *,
        statement_timeout: float = 5.0,
        on_connect: Callable[[Cursor], None] | None = None,
        waits: Waits | None = None,
        by_index: bool = False,
    ) -> None:
        self._url = url
        self._statement_timeout = statement_timeout
        self._options = session_options(application, statement_timeout, by_index=by_index)
        self._on_connect = on_connect
        self._waits = waits
        self._connection: Session | None = None
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor inside BEGIN … COMMIT; rolled back when the block raises. Inside another it is a savepoint.

        Raises DatabaseUnavailable, DatabaseRefused or SchemaMismatch for what Postgres or the network did.
        """
        try:
            connection = self._connected()
            with connection.transaction(), connection.cursor() as cursor:
                yield cursor
        except (psycopg.Error, UnicodeEncodeError) as error:
            self._drop_if_broken()
            raise convert(error) from error

    def execute(self, statement: str, parameters: Any = None) -> list[Row]:
        """Run one statement in a transaction of its own and return its rows."""
        try:
            connection = self._connected()
            if isinstance(statement, Numbered):
                query, parameters = statement.by_number, statement.values(parameters)
                cursor: Cursor = psycopg.RawCursor(connection)
            else:
                query, cursor = statement.encode(), connection.cursor()
            with cursor:
                cursor.execute(query, parameters)
                return cursor.fetchall() if cursor.description else []
        except (psycopg.Error, UnicodeEncodeError) as error:
            self._drop_if_broken()
            raise convert(error) from error

    @property
    def raw(self) -> psycopg.Connection[Row]:
        """The psycopg connection itself, for LISTEN. Connects if need be."""
        try:
            return self._connected()
        except psycopg.Error as error:
            raise convert(error) from error

    def close(self) -> None:
        """Close the connection; the next use would open another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Session:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        waits = self._waits
        connection = waits.elsewhere(self._open) if waits is not None and waits.here() else self._open()
        connection.waits = waits
        with self._lock:
            self._connection = connection
        return connection

    def _open(self) -> Session:
        connection = connect(self._url, statement_timeout=self._statement_timeout, **self._options)
        if self._on_connect is not None:
            try:
                with connection.cursor() as cursor:
                    self._on_connect(cursor)
            except BaseException:
                connection.close()
                raise
        return connection

    def _drop_if_broken(self) -> None:
        connection = self._connection
        if connection is not None and (connection.closed or connection.broken or connection.spoilt):
            self.close()


def open_pool(
    url: str,
    application: str,
    size: int,
    *,
    statement_timeout: float = 10.0,
    lock_timeout: float = 4.0,
    may_keep: bool = False,
) -> Pool:
    """A pool of at most ``size`` connections for Peewee, with the models bound to it.

    A thread that finds no free connection waits for 5 s; a statement that finds a lock, for ``lock_timeout``
    seconds. One process has one such pool. ``may_keep``: there are more than threads that use ``Pool.kept``.
    """
    database = Pool(
        url,
        max_connections=size,
        stale_timeout=300,
        timeout=5,
        prefer_psycopg3=True,
        **session_options(application, statement_timeout, lock_timeout),
    )
    database.statement_timeout = statement_timeout
    database.may_keep = may_keep
    database.bind(MODELS, bind_refs=False, bind_backrefs=False)
    return database


def converted() -> "_Converted":
    """Turn the errors of Peewee and psycopg inside the block into ours."""
    return _CONVERTED


class _Converted:
    """Holds nothing, so that one serves all: each request enters it several times."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, peewee.PeeweeException | psycopg.Error):
            raise convert(error) from error
        # playhouse.pool.MaxConnectionsExceeded is a plain ValueError.
        if type(error).__name__ == "MaxConnectionsExceeded":
            raise DatabaseUnavailable("All database connections of this process are busy.") from error


_CONVERTED = _Converted()


def repeated(transaction: Callable[P, T]) -> Callable[P, T]:
    """``transaction``, a function that is one transaction or savepoint, up to three times where others win.

    Of a deadlock or a serialization failure nothing is left, so the same may be tried again; what the function
    does besides must be harmless to repeat.
    """

    @wraps(transaction)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, _TRIES):
            try:
                return transaction(*args, **kwargs)
            except DatabaseContended:
                # Apart from each other, or the same two meet again.
                threading.Event().wait(random.uniform(0.01, 0.05) * attempt)
        return transaction(*args, **kwargs)

    return again

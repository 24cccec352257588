"""Waking the pollers: NOTIFY, sent after the commit, on a connection of its own.

Never inside the writing transaction and never from a trigger: Postgres takes one lock for the whole
installation at the commit of a transaction that has notified, so all such commits queue up (10,300 → 4,070
transactions/s with 16 clients). A notification that is lost costs nothing but time: the pollers look every
JOBSCHED_POLL_INTERVAL anyway.
"""

import os
import select
import threading

import psycopg

from jobsched.db.connection import Cursor, Link, Row, convert
from jobsched.errors import DatabaseError
from jobsched.log import get_logger

CHANNEL = "jobsched"
"""The channel that pollers LISTEN on. The payload is always empty: it says "look", not what."""

LISTENING_ROUND = 1.0
"""Seconds that one call of ``Listener.wait`` lasts at most, so that a stop is noticed."""

SPACING = 0.005
"""Seconds between two notifications: what is written meanwhile shares the next one."""

_RETRY_FIRST, _RETRY_LAST = 0.1, 2.0


class Notifier:
    """Sends one NOTIFY for any number of ``wake`` calls that fall into the same 5 ms.

    Its thread starts at the first call, so that it can be built before a fork and used after it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked = False
        self._signal = threading.Event()
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def wake(self) -> None:
        """Ask for a notification soon. Returns at once and never raises; call it after the commit."""
        self._asked = True
        self._signal.set()
        if self._thread is None or self._pid != os.getpid():
            self._start()

    def close(self, timeout: float = 1.0) -> None:
        """Send what was asked for, once, and stop; waits at most ``timeout`` seconds."""
        self._stopping.set()
        self._signal.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(timeout)

    def _start(self) -> None:
        with self._starting:
            if (self._thread is not None and self._pid == os.getpid()) or self._stopping.is_set():
                return
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
            try:
                self._thread.start()
            except (
                RuntimeError
            ):  # no more threads, or the interpreter is ending: the pollers look by themselves
                self._thread = None

    def _run(self) -> None:
        link = Link(self._url, "notify")
        log = get_logger(component="notify")
        pause = _RETRY_FIRST
        while True:
            self._signal.wait()
            self._signal.clear()
            last = self._stopping.is_set()
            failed = False
            if self._asked:
                # Before the statement: who asks while it is on its way gets another.
                self._asked = False
                try:
                    link.execute(f"NOTIFY {CHANNEL}")
                except DatabaseError as error:
                    log.debug("notify_failed", error=str(error))
                    failed = self._asked = True
                    self._signal.set()
            if last:
                break
            self._stopping.wait(pause if failed else SPACING)
            pause = min(pause * 2, _RETRY_LAST) if failed else _RETRY_FIRST
        link.close()


class Listener:
    """Hears what Notifiers say. Belongs to one thread; connects when first used and again after it broke."""

    def __init__(self, url: str, application: str) -> None:
        self._link = Link(url, application, on_connect=_listen)

    def wait(self) -> bool:
        """Wait for a notification, a second at most; whether one came. Raises DatabaseUnavailable.

        What is said while nobody listens is lost: whoever gets an error looks for himself.
        """
        try:
            session = self._link.raw
            if _said(session):
                return True
            # psycopg would wake up ten times a second to look whether it was interrupted.
            poll = select.poll()
            poll.register(session.fileno(), select.POLLIN)
            return bool(poll.poll(LISTENING_ROUND * 1000)) and _said(session)
        except psycopg.Error as error:
            self._link.close()
            raise convert(error) from error

    def close(self) -> None:
        """Stop listening."""
        self._link.close()


def _said(session: "psycopg.Connection[Row]") -> bool:
    """Whether a notification is here already."""
    return any(True for _ in session.notifies(timeout=0, stop_after=1))


def _listen(cursor: Cursor) -> None:
    cursor.execute(f"LISTEN {CHANNEL}")

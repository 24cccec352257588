"""A TCP proxy that does what networks do: loses an answer, stands still, breaks off, refuses."""

import select
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Toxic:
    """Stands before a server. ``url`` is the server's, through the proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname, url
        self._to = (parts.hostname, parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        account, at, _host = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{port}"))
        self._passing = threading.Event()
        self._passing.set()
        self._lose = False
        self._lost = threading.Event()
        self._refusing = False
        self._open: set[socket.socket] = set()
        self._closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._passing.set()
        self._listener.close()
        self.cut()

    def lose_next_answer(self) -> None:
        """Let the next request through, then break the connection instead of passing on what is answered."""
        self._lost.clear()
        self._lose = True

    def has_lost(self, timeout: float = 10.0) -> bool:
        """Wait until an answer was lost."""
        return self._lost.wait(timeout)

    def hold(self) -> None:
        """Pass nothing on, in either direction; connections stay and are still accepted."""
        self._passing.clear()

    def go_on(self) -> None:
        """End ``hold`` and ``refuse``."""
        self._refusing = False
        self._passing.set()

    def refuse(self) -> None:
        """Break all connections and every new one."""
        self._refusing = True
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        for one in list(self._open):
            _shut(one)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._to) as server:
            ends = {client: server, server: client}
            self._open |= {client, server}
            try:
                while True:
                    self._passing.wait()
                    ready, _, _ = select.select(list(ends), [], [], 0.05)
                    if not self._passing.is_set():
                        continue
                    for one in ready:
                        data = one.recv(65536)
                        if not data:
                            return
                        if one is server and self._lose:
                            self._lose = False
                            self._lost.set()
                            return
                        ends[one].sendall(data)
            except (OSError, ValueError):
                return
            finally:
                self._open -= {client, server}


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return

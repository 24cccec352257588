"""Hops carried by libcurl: TLS, proxies, and names with several addresses.

One multi handle, driven by ``socket_action`` on a watch of our own, and easy handles (``handle``) that are used for
one hop after the other.
"""

import ssl
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import certifi
import pycurl

from jobsched.callback.flight import Flight
from jobsched.callback.handle import Handle
from jobsched.callback.kept import Kept
from jobsched.callback.loop import Watch
from jobsched.callback.model import Result
from jobsched.domain.targets import TargetUrl

# Where distributions keep the certificates that an operator adds to; certifi is the last resort.
_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Libcurl:
    """Carries hops, as ``wire.Wire`` does; belongs to one thread.

    Its sockets are watched by ``watch``, and what that finds ready is told to ``act``; ``collect`` then passes each
    flight whose hop has ended to ``on_end``, with the call's result, or None where its next request is to be sent.
    ``most`` connections are kept.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        clock: Callable[[], float],
        check: Callable[[str], str | None],
        on_end: Callable[[Flight, Result | None, float], None],
        capture_bytes: int,
        read_limit: int,
        most: int,
        proxy: str | None,
        ca_bundle: str | None,
    ) -> None:
        self._watch = watch
        self._clock = clock
        self._check = check
        self._on_end = on_end
        self._capture_bytes = capture_bytes
        self._read_limit = read_limit
        self._fixed: tuple[tuple[int, Any], ...] = (
            # Empty strings, not unset options: those mean "as the environment says".
            (pycurl.PROXY, proxy or ""),
            (pycurl.NOPROXY, ""),
            (pycurl.CAINFO, ca_bundle or _system_ca_bundle()),
        )
        self._free: list[Handle] = []
        self._kept = Kept(watch.is_silent)
        self.due = inf
        """When ``run_timers`` wants to be called, on the monotonic clock."""
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, watch.on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, most)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self.act: Callable[[int, int], object] = self._multi.socket_action
        """Go on with a socket of libcurl's, by what is ready on it (pycurl.CSELECT_*)."""

    def launch(self, flight: Flight, target: TargetUrl, pin: list[str] | None, now: float) -> None:
        """Carry the present hop of ``flight``; ``pin`` as in ``Handle.launch``.

        Raises ValueError or pycurl.error for what cannot be sent.
        """
        handle = self._free.pop() if self._free else self._new_handle()
        try:
            handle.launch(flight, target, pin, now)
        except (ValueError, pycurl.error):
            self._free.append(handle)
            raise

    def run_timers(self, now: float) -> None:
        """Let libcurl do what is due."""
        if self.due > now:
            return
        # First forgotten, then run: libcurl calls _on_timer with the next one while it runs.
        self.due = inf
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        if self.due == inf and (left := self._multi.timeout()) >= 0:
            # It does not call for a timer that it believes is still set.
            self.due = now + max(left, 1) / 1000

    def collect(self) -> None:
        """Pass on the hops that libcurl is done with."""
        _, succeeded, failed = self._multi.info_read()
        for curl in succeeded:
            self._land(curl.handle, 0, "")
        for curl, number, detail in failed:
            self._land(curl.handle, number, detail)

    def close(self) -> None:
        """Give everything back. Nothing may be under way any more."""
        for handle in self._free:
            handle.close()
        self._free.clear()
        self._multi.close()

    def _on_timer(self, milliseconds: int) -> None:
        self.due = inf if milliseconds < 0 else self._clock() + milliseconds / 1000

    def _land(self, handle: Handle, number: int, detail: str) -> None:
        now, flight = self._clock(), handle.flight
        result = handle.land(number, detail, now)
        handle.detach()
        self._on_end(flight, result, now)

    def _new_handle(self) -> Handle:
        return Handle(
            self._multi,
            check=self._check,
            fixed=self._fixed,
            kept=self._kept,
            on_socket_opened=self._watch.opened,
            on_detached=self._free.append,
            capture_bytes=self._capture_bytes,
            read_limit=self._read_limit,
        )


def _system_ca_bundle() -> str:
    of_python = ssl.get_default_verify_paths().cafile
    return next(
        (path for path in (of_python, *_CA_BUNDLES) if path and Path(path).is_file()), certifi.where()
    )

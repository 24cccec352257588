"""One call in flight, whatever carries its hops: how much time it has, what it has been answered, how it ends.

Its hops are carried by libcurl (``handle``) or, where a target speaks plain HTTP, by connections of our own (``wire``).
"""

from dataclasses import replace
from itertools import count
from typing import Protocol

from jobsched.callback.answer import Headers
from jobsched.callback.failure import Failure
from jobsched.callback.model import Call, Phases, Result
from jobsched.callback.redirect import MAX_REDIRECTS, Request, location_of, next_request
from jobsched.domain.targets import TargetUrl

_TOO_MANY = Failure("protocol_error", f"The target redirected more than {MAX_REDIRECTS} times.", False)


#: Hops are numbered, those of all calls, so that what comes late is known as late.
_numbers = count(1)


class Carrier(Protocol):
    """What carries the present hop of a flight."""

    def drop(self, flight: "Flight") -> bool:
        """End the present hop of ``flight``; whether any of its request may have been sent."""


class Flight:
    """One call from its start to its result.

    A hop is one request and its answer; redirects that are followed make several.
    """

    __slots__ = (
        "answering",
        "body",
        "call",
        "carrier",
        "connect",
        "deadline",
        "dns",
        "first_byte",
        "fresh",
        "hop",
        "received",
        "redirects",
        "request",
        "sent_before",
        "started",
        "target",
        "tls",
        "waiting_since",
    )

    def __init__(self, call: Call, now: float) -> None:
        self.call = call
        self.request = Request(call.method, call.url, call.job_headers, call.own_headers, call.body)
        self.started = now
        self.deadline = now + call.timeout_seconds
        self.redirects = 0
        self.fresh = False
        """This hop goes out on a new connection: the kept one it was to go out on was dead."""
        self.sent_before = False
        self.dns = self.connect = self.tls = self.first_byte = 0.0
        self.enter_hop(now)

    def enter_hop(self, now: float) -> None:
        """Forget the answer of the hop before; ``request`` is what the next one sends."""
        self.hop = next(_numbers)
        """No other hop has the same."""
        self.carrier: Carrier | None = None
        self.target: TargetUrl | None = None
        self.waiting_since: float | None = now
        self.body = b""
        self.received = 0
        self.answering = False
        """Something of the answer has come."""

    def aim(self, target: TargetUrl, now: float) -> None:
        """It is known where this hop goes; the name lookup, if any, ended at ``now``."""
        self.target = target
        if self.waiting_since is not None:
            self.dns += now - self.waiting_since
            self.waiting_since = None

    @property
    def on_new_connection(self) -> bool:
        """Whether this hop must not go out on a kept connection.

        libcurl repeats a request without a body by itself where a kept connection turns out dead.
        """
        return self.fresh or self.call.fresh_connection or not self.request.body

    def answered(self, status: int, headers: Headers, now: float) -> Result | None:
        """The hop has been answered. None: ``request`` is what the next one sends."""
        self.sent_before = True
        if self.call.follow_redirects and (location := location_of(status, headers)) is not None:
            if self.redirects == MAX_REDIRECTS:
                return self.result(_TOO_MANY, now)
            try:
                self.request = next_request(self.request, status, location)
            except ValueError as error:
                return self.result(Failure("target_refused", str(error), False), now)
            self.redirects += 1
            self.fresh = False
            return None
        truncated = self.received > len(self.body)
        return Result(self.call, status, headers, self.body, truncated, None, None, True, self._phases(now))

    def result(self, failure: Failure, now: float) -> Result:
        """The call ended without an answer."""
        if failure.unfit and self.sent_before:
            # The target was called, so this is an attempt like others. As "interrupted" it would be repeated at once
            # and without end, and the first hop called each time.
            failure = replace(failure, code="connect_failed")
        return Result(
            call=self.call,
            status=None,
            headers=(),
            body=self.body,
            truncated=self.received > len(self.body),
            error_code=failure.code,
            error_message=failure.message,
            sent=self.sent_before or not failure.before_request,
            phases=self._phases(now),
            unfit=failure.unfit,
        )

    def timed_out(self, sent: bool, now: float) -> Result:
        """The whole call's time is over."""
        where = (
            "while its name was looked up"
            if self.waiting_since is not None
            else "before it was sent"
            if not sent
            else "inside its answer"
            if self.answering
            else "waiting for an answer"
        )
        message = f"The call ended after its timeout of {self.call.timeout_seconds:g} s, {where}."
        return self.result(Failure("timeout", message, not sent), now)

    def not_connected_in_time(self, now: float) -> Result:
        """The time for connecting is over."""
        assert self.target is not None
        where = f"{self.target.host} port {self.target.port}"
        message = f"No connection to {where} within {self.call.connect_timeout_seconds:g} s."
        return self.result(Failure("connect_failed", message, True), now)

    def _phases(self, now: float) -> Phases:
        if self.waiting_since is not None:
            self.dns += now - self.waiting_since
        return Phases(
            self.dns * 1000,
            self.connect * 1000,
            self.tls * 1000,
            self.first_byte * 1000,
            (now - self.started) * 1000,
        )

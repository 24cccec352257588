"""``Idempotency-Key``: a POST that is sent again gets the answer of the first and does nothing twice.

The request is handled inside one transaction, which also keeps the answer; what the view writes joins it. So a
server that dies, or a commit whose answer is lost, leaves the work and the answer, or neither. What must come
after the commit (waking the pollers) is put off until then.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from flask import Response, g, request

from jobsched.db.idempotency import IdempotencyKeys, KeptAnswer, RequestKey, Undo
from jobsched.errors import Fault, InvalidInput
from jobsched.web.auth import principal
from jobsched.web.body import read_bytes
from jobsched.web.errors import RequestRefused

KEY: Final = "Idempotency-Key"
# werkzeug's headers take six times as long to look one up.
_KEY_IN_ENVIRON: Final = "HTTP_IDEMPOTENCY_KEY"
REPLAYED: Final = "Idempotent-Replayed"

_SANE_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_KEPT_HEADERS: Final = ("Content-Type", "Location", "ETag")


class Once:
    """Handles requests that carry a key at most once."""

    def __init__(self, keys: IdempotencyKeys) -> None:
        self._keys = keys

    def handle(self, act: Callable[[], Response], *, max_body: int, secret_answer: bool) -> Response:
        """The answer of ``act``, or the one that the same request got before.

        ``max_body``: bytes; ``secret_answer``: what a 2xx says is never stored, and a repetition is refused.
        Raises RequestRefused: ``idempotency_in_progress``, ``idempotency_mismatch``,
        ``idempotency_secret_answer``; InvalidInput for an impossible key; and what ``act`` raises.
        """
        given: str | None = request.environ.get(_KEY_IN_ENVIRON)
        if given is None:
            return act()
        if not _SANE_KEY.fullmatch(given):
            fault = Fault(KEY, "must have 1 to 255 printable ASCII characters", parameter=True)
            raise InvalidInput([fault], f"The header {KEY} is not valid.")
        key = RequestKey(principal().project_id, request.path, given)
        # All of the body first: a transaction does not wait for a slow caller.
        fingerprint = _fingerprint(read_bytes(max_body))
        with _after_commit(), self._keys.transaction():
            running = not self._keys.lock(key)
            # Also where the lock is taken: a repetition that is being answered holds it, too.
            kept = self._keys.find(key)
            if kept is not None:
                return _replay(kept, fingerprint)
            if running:
                detail = f"A request with this {KEY} is still running. Repeat yours when it is over."
                raise RequestRefused(409, "idempotency_in_progress", detail)
            response = act()
            if not 200 <= response.status_code < 300:
                raise Undo
            self._keys.keep(key, _kept(fingerprint, response, secret=secret_answer))
        return response


def after_commit(act: Callable[[], None]) -> Callable[[], None]:
    """``act``, put off until the request's transaction is over where there is one."""

    def now_or_then() -> None:
        put_off: list[Callable[[], None]] | None = g.get("after_commit")
        if put_off is None:
            act()
        elif act not in put_off:
            put_off.append(act)

    return now_or_then


@contextmanager
def _after_commit() -> Iterator[None]:
    """Do what was put off inside the block at its end; also when the commit failed, for it may have happened."""
    put_off: list[Callable[[], None]] = []
    g.after_commit = put_off
    try:
        yield
    finally:
        del g.after_commit
        for act in put_off:
            act()


def _fingerprint(body: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (
        request.method.encode(),
        request.query_string,
        request.headers.get("Content-Type", "").encode(),
    ):
        digest.update(b"%d:%b," % (len(part), part))
    digest.update(body)
    return digest.digest()


def _replay(kept: KeptAnswer, fingerprint: bytes) -> Response:
    if kept.fingerprint != fingerprint:
        detail = f"This {KEY} was sent to this path with another body, query string or Content-Type."
        raise RequestRefused(422, "idempotency_mismatch", detail)
    if kept.body is None:
        detail = (
            f"The request with this {KEY} has succeeded. Its answer held a secret, which is not kept: "
            "read what it made, or send the request under a new key."
        )
        raise RequestRefused(409, "idempotency_secret_answer", detail)
    return Response(kept.body, status=kept.status, headers={**kept.headers, REPLAYED: "true"})


def _kept(fingerprint: bytes, response: Response, *, secret: bool) -> KeptAnswer:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return KeptAnswer(
        fingerprint, response.status_code, headers, None if secret else bytes(response.get_data())
    )

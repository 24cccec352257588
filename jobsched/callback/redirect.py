"""What a redirect leads to. Pure; only asked where the job wishes redirects to be followed.

Not libcurl's FOLLOWLOCATION: it would look names up by itself, and it strips only Authorization and Cookie
on the way to another origin, not the headers that a job calls its secrets.
"""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, urljoin

from jobsched.callback.answer import Headers, header
from jobsched.callback.model import pairs_of
from jobsched.domain.targets import parse_url

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ASCII = "".join(map(chr, range(0x21, 0x7F)))

# Another origin gets what describes the request and names the execution, and nothing that the job set for
# the first one: which of those headers are secrets cannot be known for certain.
_FOR_ANYONE = frozenset(
    {"accept", "accept-encoding", "content-type", "idempotency-key", "traceparent", "user-agent"}
)
_OURS = ("jobsched-", "webhook-")


class Request(NamedTuple):
    """What one hop of a call sends."""

    method: str
    url: str
    headers: Headers
    own_headers: str
    body: bytes | None


def location_of(status: int, headers: Headers) -> str | None:
    """Where an answer redirects to; None when it does not."""
    return header(headers, "location") if status in _REDIRECTS else None


def next_request(request: Request, status: int, location: str) -> Request:
    """The request that follows ``request`` after a redirect. Raises ValueError with one sentence for the user.

    303 turns into GET, as 301 and 302 do for POST (RFC 9110, section 15.4); 307 and 308 repeat the body, but
    never from https to http, where anyone could read it.
    """
    here = parse_url(request.url)
    try:
        # Latin-1 gives back the bytes as they came; browsers percent-encode them likewise.
        there = parse_url(urljoin(request.url, quote(location.encode("latin-1", "replace"), safe=_ASCII)))
    except ValueError as error:
        raise ValueError(f"The target redirects to an address that cannot be called: {error}") from None
    if here.scheme == "https" and there.scheme == "http":
        raise ValueError("The target redirects from https to http, which would send the call in the clear.")
    method, body = request.method, request.body
    headers = request.headers + pairs_of(request.own_headers)
    if _becomes_get(method, status):
        method = "GET"
        if body is not None:
            # The signature covers the body that is no longer sent.
            headers = _without(headers, lambda name: name in {"content-type", "webhook-signature"})
            body = None
    if there.origin != here.origin:
        headers = _without(headers, lambda name: name not in _FOR_ANYONE and not name.startswith(_OURS))
    return Request(method, str(there), headers, "", body)


def _becomes_get(method: str, status: int) -> bool:
    if status == 303:
        return method not in {"GET", "HEAD"}
    return status in {301, 302} and method == "POST"


def _without(headers: Headers, unwanted: Callable[[str], bool]) -> Headers:
    return tuple((name, value) for name, value in headers if not unwanted(name.lower()))

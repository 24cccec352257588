"""One HTTP call: encode, send, try safe ones again, turn what went wrong into the client's errors.

What is decided here and why:

- After a lost answer nobody knows whether a call was carried out; a job created twice is worse than an error. So
  only what may be repeated is tried again by itself: GET, PUT, DELETE, and a POST with an ``Idempotency-Key``,
  which the server carries out once. The methods that create, run, cancel or redrive send such a key of their
  own making when they are given none.
- A PUT with ``If-Match`` or ``If-None-Match`` is sent once: its repetition would be refused because of what it did
  itself.
  A repeated DELETE that finds nothing has done its work before.
- Redirects are not followed: requests would turn a redirected POST into a GET (RFC 9110 allows it), so that a
  create answers with a list; and the key would already have travelled to the wrong place.
- The key is given as ``auth=``, not as a header: requests lets an entry in ~/.netrc replace the header.
- Proxies of the environment are used, except towards this machine: a company's proxy cannot reach a
  ``jobsched up`` on 127.0.0.1.
"""

import random
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from jobsched.client.discovery import is_loopback
from jobsched.client.errors import ApiError, NotFound, Unreachable, error_for
from jobsched.client.naming import Value, encode, query

#: A parameter that was not given, where None has a meaning of its own (a payload may be null).
UNSET: Final[Any] = object()

_KEY: Final = "Idempotency-Key"
_TRY_AGAIN = frozenset({502, 503, 504})
#: 409: the first sending of a request, whose connection broke, is being carried out at this moment.
_IN_PROGRESS = "urn:jobsched:error:idempotency_in_progress"
_RETRIES = 3
_FIRST_DELAY = 0.25
#: A server that asks for a longer wait than this gets its error passed on: a caller must not seem to hang.
_LONGEST_DELAY = 10.0


class Transport:
    """A connection pool to one server, with its key. Like requests' sessions, for one thread at a time."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        self.url = url
        self._timeout = (min(timeout, 10.0), timeout)
        self._session = requests.Session()
        self._session.auth = _Bearer(api_key)
        self._session.headers["User-Agent"] = f"jobsched-client/{_version()}"
        self._session.headers["Accept"] = "application/json"
        direct: Any = {"http": None, "https": None, "all": None}
        self._proxies = direct if is_loopback(urlsplit(url).hostname) else None

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Value | Iterable[str]] | None = None,
        body: Any = UNSET,
        headers: Mapping[str, str] | None = None,
        expect: Collection[int] = (),
        repeat: bool | None = None,
    ) -> Any:
        """Send one request and return what its answer's JSON holds, None for an empty one and for 304.

        ``body`` is encoded as JSON, unless it is bytes, which are JSON already. ``expect`` names statuses that
        are an answer and no error, although they are not 2xx. ``repeat`` says whether the call may be tried
        again; by default its method and headers tell. Raises ApiError or one of its kinds.
        """
        sent = dict(headers or {})
        data = None
        if body is not UNSET:
            data = body if isinstance(body, bytes) else encode(body)
            sent["Content-Type"] = "application/json"
        if repeat is None:
            repeat = _may_be_repeated(method, sent)
        maybe_done = False
        for delay in self._delays() if repeat else (None,):
            try:
                response = self._send(method, path, query(params or {}), data, sent)
            except Unreachable as error:
                if delay is None or not _may_pass(error.__cause__):
                    raise
                maybe_done = maybe_done or not _never_sent(error.__cause__)
                time.sleep(delay)
                continue
            wait = _retry_after(response, delay) if delay is not None else None
            again = response.status_code in _TRY_AGAIN or _in_progress(response)
            if not again or response.status_code in expect or wait is None:
                try:
                    return self._result(response, expect)
                except NotFound as error:
                    if method == "DELETE" and maybe_done and error.request_id:
                        return None
                    raise
            maybe_done = True
            time.sleep(wait)
        raise AssertionError("the last delay is None, which returns or raises")

    def post_once(
        self,
        path: str,
        *,
        params: Mapping[str, Value | Iterable[str]] | None = None,
        body: Any = UNSET,
        idempotency_key: str | None = None,
    ) -> Any:
        """A POST that is carried out once however often it is sent: with the key given, or one made for it.

        Raises ValueError for a key that no header can carry, and what ``call`` raises.
        """
        headers = key_header(uuid.uuid4().hex if idempotency_key is None else idempotency_key)
        return self.call("POST", path, params=params, body=body, headers=headers)

    def pages(self, path: str, params: Mapping[str, Value | Iterable[str]]) -> Iterator[Any]:
        """Every row of a listing, fetching page after page as they are asked for."""
        cursor: str | None = None
        while True:
            page = self.call("GET", path, params={**params, "cursor": cursor} if cursor else params)
            yield from page["items"]
            cursor = page.get("nextCursor")
            if not cursor:
                return

    def close(self) -> None:
        """Close the pool's connections."""
        self._session.close()

    @staticmethod
    def _delays() -> Iterator[float | None]:
        for number in range(_RETRIES):
            yield _FIRST_DELAY * 2**number * random.uniform(0.8, 1.2)
        yield None

    def _send(
        self, method: str, path: str, params: Any, data: bytes | None, headers: Mapping[str, str]
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                params=params,
                data=data,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                proxies=self._proxies,
            )
        except requests.RequestException as error:
            detail = f"Cannot reach {self.url}: {_reason(error, self._timeout[1])}."
            if method != "GET" and not _never_sent(error):
                detail += " The request may have been carried out."
            raise Unreachable(0, {"title": "Not reachable", "detail": detail}) from error

    def _result(self, response: requests.Response, expect: Collection[int]) -> Any:
        status = response.status_code
        if status in {204, 304} or (200 <= status < 300 and not response.content):
            return None
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            raise self._foreign(response) from None
        if 200 <= status < 300:
            return answer
        if not isinstance(answer, dict):
            raise self._foreign(response)
        # A problem document carries its status as a number; an expected answer words it.
        if status in expect and isinstance(answer.get("status"), str):
            return answer
        raise error_for(status, answer)

    def _foreign(self, response: requests.Response) -> ApiError:
        """The error for an answer that jobsched cannot have written: a proxy's page, or another server."""
        status = response.status_code
        if status in _TRY_AGAIN:
            return Unreachable(
                status, {"detail": f"Cannot reach {self.url}: what stands in front of it says {status}."}
            )
        if 300 <= status < 400:
            target = response.headers.get("Location", "elsewhere")
            return ApiError(
                status, {"detail": f"{self.url} redirects to {target}; give the final address as the URL."}
            )
        return error_for(
            status,
            {"detail": f"{self.url} answered {status}, but not as jobsched does. Is the address right?"},
        )


class _Bearer(AuthBase):
    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_key is not None:
            request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def key_header(key: str) -> dict[str, str]:
    """The header that makes a POST repeatable. Raises ValueError for a key that it cannot carry."""
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable() and key == key.strip()):
        raise ValueError(
            "An idempotency key has 1 to 255 printable ASCII characters and no space at its ends."
        )
    return {_KEY: key}


def _may_be_repeated(method: str, headers: Mapping[str, str]) -> bool:
    if method == "PUT":
        return not headers.keys() & {"If-Match", "If-None-Match"}
    return method in {"GET", "DELETE"} or _KEY in headers


def _in_progress(response: requests.Response) -> bool:
    if response.status_code != 409:
        return False
    try:
        problem = response.json()
    except requests.JSONDecodeError:
        return False
    return isinstance(problem, dict) and problem.get("type") == _IN_PROGRESS


def _retry_after(response: requests.Response, delay: float) -> float | None:
    """How long to wait before the next try: at least ``delay``; None if the server asks for too long."""
    text = response.headers.get("Retry-After", "").strip()
    asked = 0.0
    if text.isascii() and text.isdigit():
        asked = float(text)
    elif text:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return delay
        asked = (
            (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)
        ).total_seconds()
    return max(asked, delay) if asked <= _LONGEST_DELAY else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The errors inside an error of requests, which hides them in arguments, reasons and contexts."""
    seen: list[BaseException] = [] if error is None else [error]
    for one in seen:
        yield one
        inner = [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
        seen += [item for item in inner if isinstance(item, BaseException) and item not in seen]


def _may_pass(error: BaseException | None) -> bool:
    """Whether another try may help: not after a wait of the whole timeout, nor with a wrong certificate."""
    return not isinstance(error, requests.ReadTimeout | requests.exceptions.SSLError)


def _never_sent(error: BaseException | None) -> bool:
    """Whether the connection was never made, so that the request was certainly not carried out."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    return any(isinstance(one, ConnectionRefusedError | socket.gaierror) for one in _causes(error))


def _reason(error: requests.RequestException, timeout: float) -> str:
    for one in _causes(error):
        if isinstance(one, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(one, ConnectionRefusedError):
            return "connection refused"
    if isinstance(error, requests.ReadTimeout):
        return f"no answer within {timeout:g} s"
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within 10 s" if timeout > 10 else f"no connection within {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        words = [str(one) for one in _causes(error)]
        return f"the TLS connection failed ({min(words, key=len)})"
    for one in _causes(error):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror[:1].lower() + one.strerror[1:]
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "the connection was closed before the answer was complete"
    return str(error)


def _version() -> str:
    try:
        return metadata.version("jobsched")
    except metadata.PackageNotFoundError:  # vendored, or run from a checkout that is not installed
        return "unknown"

"""Which headers a job may set: pure rules, used when a job is written and again when a request is built."""

import re
from functools import lru_cache

FORBIDDEN_HEADERS = frozenset(
    {
        # Framing and hop-by-hop (RFC 9110, section 7.6.1): the HTTP client's own business. A second
        # Transfer-Encoding beside our Content-Length is request smuggling.
        "host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive",
        "expect", "http2-settings",
        # Ours: what a target relies on to tell calls apart must not be forged by a job.
        "idempotency-key", "traceparent", "accept-encoding",
    }
)  # fmt: skip
FORBIDDEN_PREFIXES = ("jobsched-", "webhook-", "proxy-")

ALWAYS_SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


@lru_cache(maxsize=4096)
def check_header(name: str, value: str) -> str | None:
    """Why a job must not set this header, in one sentence; None when it may.

    Names are tokens, values visible ASCII, spaces and tabs (RFC 9110, sections 5.1 and 5.5; its obs-text is
    not taken, because receivers disagree on what it means). The reason never quotes the value.
    """
    if not _TOKEN.fullmatch(name):
        return "A header's name consists of letters, digits and !#$%&'*+.^_`|~- only."
    lower = name.lower()
    if lower in FORBIDDEN_HEADERS or lower.startswith(FORBIDDEN_PREFIXES):
        return f"The header {name} is set by jobsched itself or belongs to the connection."
    if not _VALUE.fullmatch(value):
        return f"The value of {name} has characters other than visible ASCII, spaces and tabs."
    return None

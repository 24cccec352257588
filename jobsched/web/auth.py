"""Who calls, and whether they may: bearer keys and three roles.

The key is looked at before the path is: without one, a caller does not learn which paths exist (401 comes
before 404 and 405).
"""

from typing import Final

from flask import Flask, g, request
from werkzeug.routing import Rule

from jobsched.db.keys import Keys, Principal, Role
from jobsched.errors import Forbidden, Unauthorized

OPEN_PATHS: Final = frozenset({"/health", "/ready", "/openapi.json", "/docs", "/docs/style.css"})

_RANK: Final[dict[Role, int]] = {"read": 0, "write": 1, "admin": 2}
_LONGEST_KEY = 512


def register(app: Flask, keys: Keys, roles: dict[str, Role]) -> None:
    """Ask every request but those to OPEN_PATHS for a key; ``roles`` holds each endpoint's smallest role."""

    def check() -> None:
        if request.path in OPEN_PATHS:
            return
        g.principal = caller = _authenticate(keys)
        rule: Rule | None = request.url_rule
        needed = roles.get(rule.endpoint) if rule is not None and request.method != "OPTIONS" else None
        if needed is not None and _RANK[caller.role] < _RANK[needed]:
            raise Forbidden(f"This needs a key of role {needed}; the one sent has the role {caller.role}.")

    app.before_request(check)


def principal() -> Principal:
    """Who sent the present request."""
    caller: Principal = g.principal
    return caller


def given_key() -> str:
    """The key that the request carries, whether or not it is known. Raises Unauthorized."""
    given: str | None = g.get("given_key")
    if given is not None:
        return given
    header: str | None = request.environ.get("HTTP_AUTHORIZATION")
    if not header:
        raise Unauthorized("Send an API key: `Authorization: Bearer <key>`.")
    scheme, _, key = header.partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("The Authorization header must read `Bearer <key>`.")
    if len(key) > _LONGEST_KEY or not key.isascii():
        raise _unknown()
    g.given_key = key
    return key


def _authenticate(keys: Keys) -> Principal:
    caller = keys.authenticate(given_key())
    if caller is None:
        raise _unknown()
    return caller


def _unknown() -> Unauthorized:
    return Unauthorized("The API key is not known, or it was revoked.")

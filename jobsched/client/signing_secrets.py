"""``client.signing_secrets``: what callbacks are signed with. Needs an admin key."""

from typing import cast

from jobsched.client.transport import Transport, key_header
from jobsched.client.types import SigningSecretList

_PATH = "/api/v1/signing-secrets"


class SigningSecrets:
    """Read the secrets with which receivers verify callbacks, and replace them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> SigningSecretList:
        """All secrets that are valid now, newest first."""
        return cast(SigningSecretList, self._transport.call("GET", _PATH))

    def rotate(
        self, grace: float | str | None = None, *, idempotency_key: str | None = None
    ) -> SigningSecretList:
        """Make a new secret; the old ones stay valid for ``grace`` more, seconds or text such as ``"24h"``.

        No key is made by itself: the server keeps no answer that holds a secret, so that a repetition could
        only be refused. After Unreachable, ``list`` tells whether it was done. With a key of yours, Conflict
        says that the first try succeeded.
        """
        params = None if grace is None else {"grace": grace}
        headers = {} if idempotency_key is None else key_header(idempotency_key)
        return cast(
            SigningSecretList,
            self._transport.call("POST", f"{_PATH}/rotate", params=params, headers=headers),
        )

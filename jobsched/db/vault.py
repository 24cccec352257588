"""Secrets at rest: AES-256-GCM under a key derived from JOBSCHED_SECRET_KEY.

A sealed text reads ``v1:<key id>:<Base64 of nonce and ciphertext>``. The key id tells "another key" from
"damaged". What the text is for (table, project) is bound to it, so that a row copied into another's place
cannot be opened. Without JOBSCHED_SECRET_KEY texts are stored as they are; such a text stays readable when a
key is given later.

The library is loaded with a key only: it takes 6 MB of each process.
"""

import base64
import binascii
import os
from typing import TYPE_CHECKING

from pydantic import SecretStr

from jobsched.errors import SecretsUnreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SEALED = "v1:"
_NONCE_BYTES = 12


class Vault:
    """Seals and opens texts with ``secret_key``; passes them on as they are without one. Thread-safe."""

    def __init__(self, secret_key: SecretStr | None) -> None:
        self._cipher: AESGCM | None = None
        self._key_id = ""
        if secret_key is not None:
            from cryptography.hazmat.primitives.ciphers import aead

            source = secret_key.get_secret_value().encode()
            self._cipher = aead.AESGCM(_derived(source, b"jobsched vault v1: key", 32))
            self._key_id = _derived(source, b"jobsched vault v1: id", 4).hex()

    def seal(self, text: str, purpose: str) -> str:
        """``text`` as it is stored."""
        if self._cipher is None:
            return text
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())
        return f"{_SEALED}{self._key_id}:{base64.b64encode(sealed).decode()}"

    def open(self, stored: str, purpose: str) -> str:
        """The text that was sealed for ``purpose``. Raises SecretsUnreadable."""
        if not stored.startswith(_SEALED):
            return stored
        key_id, _, encoded = stored.removeprefix(_SEALED).partition(":")
        if self._cipher is None:
            raise SecretsUnreadable(
                "Stored secrets are encrypted, but JOBSCHED_SECRET_KEY is not set. Give this process the key "
                "that encrypted them."
            )
        if key_id != self._key_id:
            raise SecretsUnreadable(
                "Stored secrets are encrypted with another JOBSCHED_SECRET_KEY than that of this process. Give "
                "it the key that encrypted them."
            )
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(encoded, validate=True)
            nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, ciphertext, purpose.encode()).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise SecretsUnreadable(
                f"The stored {purpose} is damaged, or not where it was written."
            ) from None


def _derived(source: bytes, info: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(source)

"""Signatures of callbacks, after Standard Webhooks 1.0.0: HMAC-SHA256 over ``id.timestamp.body``. Pure."""

import hmac
from binascii import b2a_base64
from collections.abc import Sequence

from jobsched.callback.request import Sign


def sign(keys: Sequence[bytes]) -> Sign:
    """What signs with every one of ``keys``: during a rotation a receiver may know any of them.

    The value of ``webhook-signature`` is one ``v1,<Base64>`` a key, spaces between.
    """

    def signatures(message_id: str, timestamp: int, body: bytes) -> str:
        content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        return " ".join(
            "v1," + b2a_base64(hmac.digest(key, content, "sha256"), newline=False).decode() for key in keys
        )

    return signatures

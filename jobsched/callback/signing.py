"""Signatures of callbacks, after Standard Webhooks 1.0.0: HMAC-SHA256 over ``id.timestamp.body``. Pure."""

import hmac
from binascii import b2a_base64
from collections.abc import Sequence

from jobsched.callback.request import Sign


def sign(keys: Sequence[bytes]) -> Sign:
    """What signs with every one of ``keys``: during a rotation a receiver may know any of them.

    The value of ``webhook-signature`` is one ``v1,<Base64>`` a key, spaces between.
    """

    # What is the same in every signature is computed once: half of the cost of a short one.
    begun = [hmac.new(key, digestmod="sha256") for key in keys]

    def signature(started: "hmac.HMAC", content: bytes) -> str:
        mine = started.copy()
        mine.update(content)
        return "v1," + b2a_base64(mine.digest(), newline=False).decode()

    def signatures(message_id: str, timestamp: int, body: bytes) -> str:
        content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        return " ".join([signature(started, content) for started in begun])

    return signatures

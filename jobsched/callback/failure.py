"""What ends a call without an answer, in our terms: what to call it, what to tell the user, whether anything left.

Only resolve, connect and TLS errors are certain to have happened before the request. Everything else may have
reached the target, 55, 56 and 65 (sending, receiving, rewinding) in particular: their end is unknown.
"""

import errno
import os
from dataclasses import dataclass

import pycurl

from jobsched.callback.reply import CUT_IN_BODY, NO_ANSWER

_CONNECT = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY, 97})  # 97: E_PROXY
_TLS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
NO_DESCRIPTORS = "This worker has no file descriptors left to open a connection with."
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SEND_BROKE = "The connection broke while the request was sent."
RECEIVE_BROKE = "The connection broke before the answer was complete."
_SENTENCES = {
    pycurl.E_GOT_NOTHING: NO_ANSWER,
    pycurl.E_PARTIAL_FILE: CUT_IN_BODY,
    pycurl.E_SEND_ERROR: SEND_BROKE,
    pycurl.E_RECV_ERROR: RECEIVE_BROKE,
    pycurl.E_SEND_FAIL_REWIND: "The target closed the connection while the request was under way.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer.

    ``before_request``: certainly nothing of the request was sent; ``unfit``: for want of descriptors of our own.
    """

    code: str
    message: str
    before_request: bool
    unfit: bool = False


def for_want_of_descriptors() -> Failure:
    """Nothing is said of the target; its execution waits for a worker that can call it."""
    return Failure("interrupted", NO_DESCRIPTORS, True, unfit=True)


def out_of_descriptors() -> bool:
    """Whether this process, or the machine, has no descriptor left."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in OUT_OF_DESCRIPTORS
    return False


def no_connection(host: str, port: int, reason: int) -> Failure:
    """``reason`` is the system's error number, 0 if none."""
    if reason in OUT_OF_DESCRIPTORS:
        return for_want_of_descriptors()
    why = os.strerror(reason) if reason else "the host cannot be reached"
    return Failure("connect_failed", f"No connection to {host} port {port}: {why}.", True)


def cannot_open(error: OSError) -> Failure:
    """There is no socket to be had."""
    if error.errno in OUT_OF_DESCRIPTORS:
        return for_want_of_descriptors()
    return Failure("connect_failed", f"This worker cannot open a socket: {error.strerror}.", True)


def classify(number: int, detail: str, *, reason: int, host: str, port: int) -> Failure:
    """The failure behind libcurl's ``number`` and its own words ``detail``; a timeout is not judged here.

    ``reason`` is the system's error number, 0 if none.
    """
    if number == pycurl.E_COULDNT_RESOLVE_HOST:
        return Failure("dns_failed", f"The name {host} cannot be resolved.", True)
    if reason in OUT_OF_DESCRIPTORS and number in _CONNECT | _TLS:
        return for_want_of_descriptors()
    if number in _CONNECT:
        return no_connection(host, port, reason)
    if number in _TLS:
        return Failure("tls_failed", f"TLS with {host} failed: {_sentence(detail)}", True)
    # CURLE_UNSUPPORTED_PROTOCOL also stands for an HTTP/0.9 answer.
    message = _SENTENCES.get(number) or f"The answer is not valid HTTP: {_sentence(detail)}"
    return Failure("protocol_error", message, False)


def _sentence(detail: str) -> str:
    text = "".join(character for character in detail.strip() if character.isprintable())[:300]
    return text if text.endswith(".") else f"{text}."

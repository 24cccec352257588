"""Where an answer ends, and what is no answer: RFC 9112, sections 2 to 7."""

import http.client
import io
import time
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsched.callback.reply import NotHttp, Reply

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"


def reply(*, bodyless=False, capture=8192, limit=1_048_576):
    return Reply(bodyless=bodyless, capture=capture, limit=limit)


def read(pieces, closed, **given):
    """Feed ``pieces`` until the answer is complete, and the end of the connection where it is ``closed``."""
    answer = reply(**given)
    for piece in pieces:
        if answer.feed(piece):
            return answer
    if closed:
        answer.end()
        return answer
    return None


def split(data):
    """``data`` whole, byte by byte, and in two at each place."""
    yield [data]
    yield [data[n : n + 1] for n in range(len(data))]
    yield from ([data[:n], data[n:]] for n in range(1, len(data)))


@pytest.mark.parametrize(
    ("data", "status", "body", "reusable"),
    [
        (_OK + b"Content-Length: 3\r\n\r\nok\n", 200, b"ok\n", True),
        (_OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
        (_OK + b"content-length:3,3\r\nCONTENT-LENGTH: 3\r\n\r\nabc", 200, b"abc", True),
        (_OK + b"Content-Length: 3\r\nConnection: x, Close\r\n\r\nabc", 200, b"abc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 101, b"", False),
        (b"HTTP/1.1 599\r\nContent-Length: 1\r\n\r\nx", 599, b"x", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + _OK + b"Content-Length: 1\r\n\r\nx",
         200, b"x", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", 200, b"abc", True),
        (_CHUNKED + b"2\r\nhi\r\n3;name=value\r\nabc\r\n0\r\n\r\n", 200, b"hiabc", True),
        (_CHUNKED + b"0A \r\n0123456789\r\n000\r\nX-Trailer: 1\r\nY: 2\r\n\r\n", 200, b"0123456789", True),
        (_OK + b"Transfer-Encoding: , Chunked,\r\n\r\n001\r\nx\r\n0\r\n\r\n", 200, b"x", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
         200, b"x", False),
        (_OK + b"Content-Length:\r\n 3\r\n\r\nabc", 200, b"abc", True),
        (_OK + b"Content-Length: 0000000000000000000003\r\nX-Empty:\r\n\r\nabc", 200, b"abc", True),
        # With both, the length may be meant for somebody between: it does not count, and the connection is not kept.
        (_OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200, b"x", False),
    ],
)  # fmt: skip
def test_an_answer_ends_where_its_framing_says_however_it_comes(data, status, body, reusable):
    for pieces in split(data):
        answer = read(pieces, closed=False)
        assert answer is not None, pieces
        assert (answer.head.status, answer.body, answer.received) == (status, body, len(body))
        assert answer.reusable == reusable


@pytest.mark.parametrize(
    "data",
    [
        _OK + b"\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
def test_without_a_length_an_answer_ends_with_its_connection(data):
    for pieces in split(data):
        assert read(pieces, closed=False) is None
        answer = read(pieces, closed=True)
        assert (answer.head.status, answer.body, answer.reusable) == (200, b"hello", False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HT",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        _OK + b"Content-Length: 3\r\n\r\nab",
        _CHUNKED,
        _CHUNKED + b"3\r\nab",
        _CHUNKED + b"3\r\nabc\r\n",
        _CHUNKED + b"3\r\nabc\r\n0\r\n",
    ],
)
def test_an_answer_that_is_cut_off_is_none(data):
    for pieces in split(data):
        with pytest.raises(NotHttp, match=r"\.$"):
            read(pieces, closed=True)


@pytest.mark.parametrize(
    "data",
    [
        b"hello world",
        b"\r\n" + _OK + b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        _OK + b"X: a\0b\r\n\r\n",
        _OK + b"X: a\rb\r\n\r\n",
        _OK + b"X\r\n\r\n",
        _OK + b": x\r\n\r\n",
        _OK + b"Content-Length : 3\r\n\r\nabc",
        _OK + b"Content\x01-Length: 3\r\n\r\nabc",
        _OK + b"X: y\r\r\n\r\n",
        _OK + b"Content-Length: 3\r\nHTTP/1.1 404 x\r\n\r\nabc",
        _OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
        _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        _OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        _OK + b"Content-Length: x\r\n\r\n",
        _OK + b"Content-Length: -1\r\n\r\n",
        _OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        _OK + b"Content-Length: 3, 4\r\n\r\nabc",
        _OK + b"Content-Length:\r\n\r\n",
        _OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        _CHUNKED + b"nonsense\r\n",
        _CHUNKED + b"-1\r\n",
        _CHUNKED + b" 1\r\nx\r\n",
        # A little body with endless words about it (as in CVE-2023-39326).
        _CHUNKED + (b"1;" + b"x" * 4000 + b"\r\nx\r\n") * 20,
        _CHUNKED + b"0x1\r\nx\r\n",
        _CHUNKED + b"\r\n",
        _CHUNKED + b"1\r\nxy\r\n",
        _CHUNKED + b"f" * 16 + b"\r\n",
        _CHUNKED + b"1;" + b"x" * 5000,
        _CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000,
        _OK + b"X: y\r\n" * 20_000,
        (b"HTTP/1.1 102 Processing\r\nX: " + b"y" * 1000 + b"\r\n\r\n") * 80,
    ],
)  # fmt: skip
def test_what_is_no_http_is_said_at_once(data):
    with pytest.raises(NotHttp, match=r"\.$"):
        read([data], closed=False)
    with pytest.raises(NotHttp, match=r"\.$"):
        read([data[n : n + 7] for n in range(0, len(data), 7)], closed=False)


def test_a_head_that_comes_byte_by_byte_is_not_searched_anew_with_each():
    head = _OK + b"X: y\r\n" * 10_000 + b"Content-Length: 1\r\n\r\nx"
    began = time.thread_time()
    answer = read([head[n : n + 1] for n in range(len(head))], closed=False)
    assert (answer.head.status, len(answer.head.headers)) == (200, 10_001)
    # A tenth of that; searched from its beginning each time, 15 times that.
    assert time.thread_time() - began < 2.0


def test_a_body_of_tiny_chunks_is_not_copied_anew_with_each():
    chunks = b"1\r\nx\r\n" * 300_000
    began = time.thread_time()
    answer = read([_CHUNKED, *(chunks[n : n + 16_384] for n in range(0, len(chunks), 16_384))],
                  closed=False, capture=1_000_000)  # fmt: skip
    assert answer is None
    assert time.thread_time() - began < 3.0


def test_the_answer_to_head_has_no_body_whatever_its_length_says():
    answer = read([_OK + b"Content-Length: 10\r\n\r\n"], closed=False, bodyless=True)
    assert (answer.body, answer.received, answer.reusable) == (b"", 0, True)


@pytest.mark.parametrize(
    "whole", [_OK + b"Content-Length: 3\r\n\r\nabc", _CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"]
)
def test_what_follows_an_answer_unasked_spoils_the_connection(whole):
    answer = read([whole + b"HTTP/1.1 201 Forged\r\n\r\n"], closed=False)
    assert (answer.head.status, answer.body, answer.reusable) == (200, b"abc", False)


@pytest.mark.parametrize("head", [_OK + b"Content-Length: 90\r\n\r\n", _OK + b"\r\n", _CHUNKED + b"5a\r\n"])
def test_reading_stops_at_the_limit_and_only_the_first_bytes_are_kept(head):
    answer = read([head, b"x" * 15, b"x" * 15, b"x" * 60], closed=False, capture=10, limit=20)
    assert (answer.body, answer.received, answer.reusable) == (b"x" * 10, 30, False)


@given(
    body=st.binary(max_size=300),
    sizes=st.lists(st.integers(1, 60), max_size=12),
    cuts=st.lists(st.integers(0, 600), max_size=12),
    chunked=st.booleans(),
    status=st.sampled_from([200, 201, 299, 400, 404, 500, 599]),
)
def test_any_answer_in_any_pieces_reads_as_the_standard_library_reads_it(body, sizes, cuts, chunked, status):
    head = b"HTTP/1.1 %d Some Reason\r\nX-A: b\r\n" % status
    if chunked:
        data = head + b"Transfer-Encoding: chunked\r\n\r\n"
        left = body
        for size in sizes:
            if not left:
                break
            piece, left = left[:size], left[size:]
            data += b"%x\r\n%s\r\n" % (len(piece), piece)
        if left:
            data += b"%X\r\n%s\r\n" % (len(left), left)
        data += b"0\r\n\r\n"
    else:
        data = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    places = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
    answer = read([data[a:b] for a, b in pairwise(places)], closed=False)
    theirs = http.client.HTTPResponse(_Socket(data))  # type: ignore[arg-type]
    theirs.begin()
    assert (answer.head.status, answer.body, answer.reusable) == (theirs.status, theirs.read(), True)
    assert answer.head.headers == tuple(theirs.getheaders())


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 ", _OK, _CHUNKED]))
def test_no_bytes_at_all_do_anything_but_end_or_be_refused(tail, begin):
    answer = reply()
    with suppress(NotHttp):
        if not (begin + tail and answer.feed(begin + tail)):
            answer.end()
        assert 101 <= answer.head.status <= 999


class _Socket:
    def __init__(self, data):
        self._data = data

    def makefile(self, _mode):
        return io.BytesIO(self._data)

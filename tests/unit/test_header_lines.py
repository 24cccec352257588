import pytest

from jobsched.callback.header_lines import header_lines, request_head
from jobsched.callback.redirect import Request
from jobsched.domain.targets import parse_url


def test_headers_go_together_but_for_what_libcurl_would_add_or_leave_out() -> None:
    headers = (("X-A", "1"), ("accept", "*/*"), ("X-Empty", ""), ("User-Agent", "u"), ("X-B", "2"))
    assert header_lines(headers) == [
        "Expect:",
        "accept: */*",
        "X-Empty;",
        "User-Agent: u",
        "X-A: 1\r\nX-B: 2",
    ]


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb", "a\0b"])
@pytest.mark.parametrize("name", ["X-A", "Accept"])
def test_no_header_becomes_two(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        header_lines((("X-First", "1"), (name, text)))
    with pytest.raises(ValueError, match="line break"):
        header_lines(((f"X{text}", ""),))


def test_a_head_is_the_request_line_the_host_and_all_headers() -> None:
    request = Request("PUT", "", (("X-A", "1"), ("X-Empty", "")), "webhook-id: a\r\nX-B: 2", b"body")
    assert request_head(request, parse_url("http://Example.com/p/../q?x=%20#fragment")) == (
        b"PUT /p/../q?x=%20 HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\nX-Empty:\r\nwebhook-id: a\r\nX-B: 2\r\n"
        b"Content-Length: 4\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.example:80/", "a.example"),
        ("http://a.example:8080", "a.example:8080"),
        ("http://[::1]:81/", "[::1]:81"),
        ("http://127.1/", "127.0.0.1"),
    ],
)
def test_the_host_is_named_as_it_is_dialled(url: str, host: str) -> None:
    head = request_head(Request("GET", url, (), "", None), parse_url(url))
    assert head == f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("POST", None, 0),
        ("PATCH", None, 0),
        ("DELETE", None, None),
        ("DELETE", b"x", 1),
        ("HEAD", b"x", None),
    ],
)
def test_a_length_is_said_where_a_body_may_be_expected(
    method: str, body: bytes | None, length: int | None
) -> None:
    head = request_head(Request(method, "", (), "", body), parse_url("http://a.example/"))
    assert (b"Content-Length: %d\r\n" % (length or 0) in head) == (length is not None)


@pytest.mark.parametrize("bad", [("X-A", "a\r\nX-Evil: 1"), ("X-A\n", "b"), ("X-A", "a\0b"), ("X-A", "ü")])
def test_a_head_that_cannot_be_sent_is_refused(bad: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"line break|ascii"):
        request_head(Request("GET", "", (bad,), "", None), parse_url("http://a.example/"))

import pytest

from jobsched.callback.header_lines import header_lines


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

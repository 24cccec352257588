"""A request's headers as libcurl takes them."""

from jobsched.callback.answer import Headers

#: Headers that libcurl adds where it finds none, by their length.
_OF_LIBCURL = {len(name): name for name in ("accept", "user-agent")}


def header_lines(headers: Headers) -> list[str]:
    """libcurl's HTTPHEADER. Raises ValueError where a header would become two."""
    # libcurl formats, allocates and looks through every entry, and passes what is in one on as it is: most headers
    # go together. Apart go those that it would send a second time, and "Name;", which sends an empty one. An empty
    # Expect keeps it from asking for 100-continue, after whose refusal (417) it repeats the request by itself.
    apart, together = ["Expect:"], []
    for name, value in headers:
        if not value:
            apart.append(f"{name};")
        elif len(name) in _OF_LIBCURL and name.lower() == _OF_LIBCURL[len(name)]:
            apart.append(f"{name}: {value}")
        else:
            together.append(f"{name}: {value}")
    text = "\r\n".join(together)
    breaks = max(0, len(together) - 1)
    alone = "".join(apart)
    if (
        text.count("\n") != breaks
        or text.count("\r") != breaks
        or "\0" in text
        or any(end in alone for end in "\n\r\0")
    ):
        # One header would become two.
        raise ValueError("a header has a line break")
    if together:
        apart.append(text)
    return apart

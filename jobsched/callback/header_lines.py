"""A request's headers as libcurl takes them."""

from functools import lru_cache

from jobsched.callback.answer import Headers

#: Headers that libcurl adds where it finds none, by their length.
_OF_LIBCURL = {len(name): name for name in ("accept", "user-agent")}


def header_lines(job_headers: Headers, own_headers: str = "") -> list[str]:
    """libcurl's HTTPHEADER. ``own_headers`` are lines already. Raises ValueError where a header would become two."""
    apart, together = _of_job(job_headers)
    if own_headers:
        together = f"{together}\r\n{own_headers}" if together else own_headers
    return [*apart, together] if together else [*apart]


# Many calls come from one job, and many jobs give the same.
@lru_cache(maxsize=4096)
def _of_job(headers: Headers) -> tuple[tuple[str, ...], str]:
    """The lines that go apart, and the others as one text."""
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
    if any(end in line for line in (*apart, *together) for end in "\n\r\0"):
        raise ValueError("a header has a line break")
    return tuple(apart), "\r\n".join(together)

"""A request's head: as libcurl takes its headers, and as it is sent without libcurl. Pure."""

from functools import lru_cache

from jobsched.callback.answer import Headers
from jobsched.callback.redirect import Request
from jobsched.domain.targets import TargetUrl

#: Methods of which a target expects a length even where there is no body (RFC 9110, section 8.6).
UPLOADS = frozenset({"POST", "PUT", "PATCH"})

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


def request_head(request: Request, target: TargetUrl) -> bytes:
    """The request line and all header lines, with the blank line after them, as they are sent to ``target``.

    Raises ValueError where a header would become two or cannot be sent.
    """
    head = f"{request.method} {target.rest} HTTP/1.1\r\nHost: {target.authority}\r\n{_lines(request.headers)}"
    if request.own_headers:
        head = f"{head}{request.own_headers}\r\n"
    if request.method != "HEAD" and (request.body is not None or request.method in UPLOADS):
        return f"{head}Content-Length: {len(request.body or b'')}\r\n\r\n".encode("ascii")
    return f"{head}\r\n".encode("ascii")


@lru_cache(maxsize=4096)
def _lines(headers: Headers) -> str:
    lines = [f"{name}: {value}" if value else f"{name}:" for name, value in headers]
    if any(end in line for line in lines for end in "\n\r\0"):
        raise ValueError("a header has a line break")
    return "".join(f"{line}\r\n" for line in lines)

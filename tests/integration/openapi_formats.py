"""What no JSON Schema can say of a request, for schemathesis: formats as strategies, and rules between fields.

The API's document names formats of its own (``"format": "schedule"``) where a pattern falls short of the rule. Each
has a strategy here that makes values of every kind that the rule allows, so that "a valid request is accepted" means
something. They are written from docs/schedules.md and docs/api.md, not from the code that they test.

``settle`` does the same for rules between fields (jitter is less than the shortest time between two slots): it
changes a generated, valid request so that those hold too, and leaves deliberately wrong requests alone.
"""

import base64
import json
import string
from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import strategies as st

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEK = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def field(low: int, high: int, names: list[str] | None = None) -> st.SearchStrategy[str]:
    """One field of a cron expression: stars, steps, ranges that go up, lists, names in any case."""
    number = st.integers(low, high)
    text = number.map(str)
    if names:
        text |= st.sampled_from(names) | st.sampled_from(names).map(str.lower)
    span = st.tuples(number, number).map(sorted)
    part = (
        text
        | st.integers(1, high - low).map("*/{}".format)
        | span.map(lambda ends: f"{ends[0]}-{ends[1]}")
        | span.filter(lambda ends: ends[0] < ends[1]).flatmap(
            lambda ends: st.integers(1, ends[1] - ends[0]).map(lambda step: f"{ends[0]}-{ends[1]}/{step}")
        )
    )
    return st.just("*") | part | st.lists(part, min_size=2, max_size=4).map(",".join)


# A day up to 28 is in every month; what never comes (30 February) is refused.
minutes, hours, days = field(0, 59), field(0, 23), field(1, 28)
months, weekdays = field(1, 12, MONTHS), field(0, 7, WEEK)
cron = st.tuples(minutes, hours, days, months, weekdays).map(" ".join)
cron_with_seconds = st.tuples(field(0, 59), cron).map(" ".join)
aliases = st.sampled_from(
    ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "@Daily"]
)

# Go's time.ParseDuration, in hours to milliseconds, of at least a second and less than a century.
duration = st.builds(
    lambda hours, minutes, seconds: f"{hours}h{minutes}m{seconds}s",
    st.integers(0, 800_000),
    st.integers(0, 100),
    st.integers(1, 100),
) | st.sampled_from(["1s", "1000ms", "1.5h", "90s", "+2m", "1h0.25s", "01m"])

offsets = st.sampled_from(["Z", "z", "+00:00", "+05:30", "-11:00", "+14:00"])
# Years without the first and the last: with an offset they may leave the calendar.
naive_instants = st.builds(
    lambda day, clock, mark: f"{day}{mark}{clock}",
    st.dates().filter(lambda day: 1 < day.year < 9999).map(str),
    st.builds(
        lambda clock, digits: f"{clock}{digits}",
        st.times().map(lambda clock: clock.strftime("%H:%M:%S")),
        st.sampled_from(["", ".5", ".123456", ".123456789"]),
    )
    | st.times().map(lambda clock: clock.strftime("%H:%M")),
    st.sampled_from("Tt "),
)
instants = naive_instants | st.builds("{}{}".format, naive_instants, offsets)

schedules = (
    cron
    | cron_with_seconds
    | aliases
    | duration.map("@every {}".format)
    | duration.map("@in {}".format)
    | instants
    | instants.map("@at {}".format)
)

zones = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Africa/Casablanca",
        "Etc/GMT+12",
    ]
)

# Addresses that are refused everywhere (loopback, private ones) have tests of their own.
hosts = st.sampled_from(
    [
        "example.com",
        "a.b-c.example.org",
        "8.8.8.8",
        "[2001:4860:4860::8888]",
        "xn--mnchen-3ya.example",
        "EXAMPLE.com.",
    ]
)
paths = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%é日", max_size=20).map(
    "/{}".format
)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    hosts,
    st.sampled_from(["", ":80", ":8443", ":65535"]),
    st.just("") | paths | paths.map("{}?a=b&c".format),
)

token = string.ascii_letters + string.digits + "!#$%&'*+.^_`|~-"
# A prefix of its own keeps clear of the names that are ours or the connection's.
header_names = st.sampled_from(["Content-Type", "Accept", "User-Agent", "Authorization", "Cookie"]) | st.text(
    token, min_size=1, max_size=20
).map("X-{}".format)

status_ranges = st.integers(100, 599).map(str) | st.tuples(st.integers(100, 599), st.integers(100, 599)).map(
    lambda ends: "{}-{}".format(*sorted(ends))
)

# At most a week.
graces = st.integers(0, 604_800).map(str) | st.sampled_from(["0.5", "24h", "1h30m", "+1.5h", "100ms", "168h"])


def cursors(kind: str) -> st.SearchStrategy[str]:
    """What ``nextCursor`` of a list may hold."""
    return st.integers(1, 2**63 - 1).map(
        lambda id: base64.urlsafe_b64encode(f"{kind}:{id}".encode()).decode().rstrip("=")
    )


FORMATS = {
    "schedule": schedules,
    "time-zone": zones,
    "instant": instants,
    "callback-url": urls,
    "http-header-name": header_names,
    "status-range": status_ranges,
    "seconds-or-duration": graces,
    "jobs-cursor": cursors("jobs"),
    "executions-cursor": cursors("executions"),
    "dead-letters-cursor": cursors("dead-letters"),
}


def register() -> None:
    """Make schemathesis know the formats, and how a list is sent as NDJSON."""
    for name, strategy in FORMATS.items():
        schemathesis.openapi.format(name, strategy)
    schemathesis.serializer("application/x-ndjson")(lines)


def lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """One JSON value a line."""
    return "\n".join(json.dumps(item) for item in (value if isinstance(value, list) else [value])).encode()


#: Fields whose rules look at the stored job as well, by the operation that changes or runs it: whether the method
#: carries a payload, how far apart the slots are, which bound is first, which header was a secret.
JUDGED_WITH_WHAT_IS_STORED = {
    "run_job": {"/payload"},
    "redrive_dead_letters": {"/payload"},
    "update_job": {"/payload", "/jitterSeconds", "/isRecurring", "/endAt", "/secretHeaders"},
}


def drawn_by_format(schema: Any) -> Any:
    """A document without the patterns and lengths that stand beside a format of ours.

    schemathesis would draw from the pattern, which is the weaker of the two, and search for values of each length.
    ``test_what_no_pattern_allows_is_refused`` tries what the patterns forbid.
    """
    if isinstance(schema, list):
        return [drawn_by_format(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = ("pattern", "minLength", "maxLength") if schema.get("format") in FORMATS else ()
    return {name: drawn_by_format(value) for name, value in schema.items() if name not in dropped}


def settle_job(job: dict[str, Any]) -> dict[str, Any]:
    """A job (or a patch of one) of which also the rules between fields hold."""
    job = dict(job)
    if job.get("jitterSeconds") or job.get("isRecurring"):
        # Jitter is less than the shortest time between two slots; only what recurs can be told to.
        job["schedule"] = "@every 48h"
    if job.get("startAt") and job.get("endAt"):
        job["endAt"] = "9999-12-30T00:00:00Z"
    if isinstance(job.get("headers"), dict):
        # Names of headers are the same in any case of letters.
        job["headers"] = {**{name.lower(): value for name, value in job["headers"].items()}}
    return job


def settle_preview(preview: dict[str, Any]) -> dict[str, Any]:
    """The bounds of a preview in their order."""
    if preview.get("startAt") and preview.get("endAt"):
        return preview | {"endAt": "9999-12-30T00:00:00Z"}
    return preview


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """``fields`` but one: a job's key, which the path gives, or which another item of a bulk may have."""
    return {other: value for other, value in fields.items() if other != name}


SETTLE: dict[str, Callable[[Any], Any]] = {
    "create_job": settle_job,
    "replace_job": settle_job,
    "update_job": settle_job,
    "put_job_by_key": lambda job: without(settle_job(job), "key"),
    "create_jobs": lambda jobs: [without(settle_job(job), "key") for job in jobs],
    "preview_schedule": settle_preview,
}


def settle(operation_id: str, body: Any) -> Any:
    """``body`` so that also those rules hold that the schema of the operation cannot say."""
    change = SETTLE.get(operation_id)
    return body if change is None or not isinstance(body, dict | list) else change(body)

"""Whatever job the API takes comes back as it was, however often it is read and written; and cron always goes on.

100 jobs, always the same ones; 1,000 with ``--full``.
"""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsched.domain.spec_fields import JobCreate
from tests.integration import openapi_formats as formats
from tests.integration.api_rig import Api, api, assert_problem

__all__ = ["api"]

SETTINGS = settings(
    max_examples=1000 if settings.get_current_profile_name() == "full" else 100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# No string holds NUL or half a surrogate pair.
characters = st.characters(codec="utf-8", exclude_characters="\0")


def text(longest: int, shortest: int = 0) -> st.SearchStrategy[str]:
    return st.text(characters, min_size=shortest, max_size=min(longest, 40)) | st.text(
        "é🙂a\u202e\n", min_size=longest - 1, max_size=longest
    )


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(-int(-low // 1), int(high)) | st.floats(low, high)


payloads = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text(40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text(20), inner, max_size=4),
    max_leaves=15,
)

#: Values of every field of a job. Rules between them are left to ``formats.settle_job``.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "key": st.none() | text(200, 1),
    "name": st.none() | text(200),
    "description": st.none() | text(2000),
    "schedule": formats.schedules,
    "timezone": formats.zones,
    "isRecurring": st.none() | st.booleans(),
    "isActive": st.booleans(),
    "api": formats.urls,
    "method": st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    "headers": st.dictionaries(
        formats.header_names,
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40),
        max_size=5,
    ),
    "secretHeaders": st.lists(formats.header_names | text(200, 1), max_size=5),
    "payload": payloads,
    "type": st.sampled_from(["AT_LEAST_ONCE", "AT_MOST_ONCE"]),
    "maxRetryCount": st.integers(0, 100),
    "minBackoffSeconds": number(0, 86_400),
    "maxBackoffSeconds": number(0, 604_800),
    "backoffFactor": number(1, 10),
    "backoffJitter": number(0, 1),
    "timeoutSeconds": number(0.1, 1800),
    "successStatus": st.lists(formats.status_ranges, min_size=1, max_size=50),
    "noRetryStatus": st.lists(formats.status_ranges, max_size=50),
    "followRedirects": st.booleans(),
    "misfirePolicy": st.sampled_from(["fire_once", "fire_all", "skip"]),
    "misfireGraceSeconds": number(0, 604_800),
    "overlapPolicy": st.sampled_from(["allow", "skip", "queue"]),
    "priority": st.integers(0, 10),
    "pool": st.text("abcxyz019_-", min_size=1, max_size=50),
    "tags": st.lists(text(50, 1), max_size=50),
    "startAt": st.none() | formats.instants,
    "endAt": st.none() | formats.instants,
    "maxRuns": st.none() | st.integers(1, 10**9),
    "jitterSeconds": number(0, 86_400),
}


def settled(job: dict[str, Any]) -> dict[str, Any]:
    """``job`` so that the rules between its fields hold."""
    if job.get("method") in ("GET", "HEAD"):
        job.pop("payload", None)
    return formats.settle_job(job)


required = {name: FIELDS[name] for name in ("schedule", "api")}
jobs = st.fixed_dictionaries(
    required, optional={name: values for name, values in FIELDS.items() if name not in required}
).map(settled)


def test_every_field_of_a_job_is_tried() -> None:
    assert FIELDS.keys() == {field.alias or name for name, field in JobCreate.model_fields.items()}


def test_a_job_survives_being_read_and_written(api: Api) -> None:
    @SETTINGS
    @given(jobs, text(200))
    def run(job: dict[str, Any], name: str) -> None:
        created = api.call("POST", "/api/v1/jobs", json=job)
        assert created.status_code == 201, (job, created.text)
        path = created.headers["Location"]

        def same(answer: Any) -> bool:
            """The very text, but for what counts and dates edits."""
            return without_edits(answer.get_json()) == without_edits(created.get_json())

        assert api.call("GET", path).data == created.data
        for given_name, value in job.items():
            if given_name not in ("startAt", "endAt", "isRecurring", "headers", "schedule"):
                assert created.get_json()[given_name] == value

        # What was read may be sent back whole, what only the server writes and masked secrets included.
        stored = api.sql("SELECT headers::text FROM job WHERE id = %s", (created.get_json()["id"],))
        replaced = api.call("PUT", path, json=created.get_json())
        assert replaced.status_code == 200, replaced.text
        assert same(replaced)

        changed = api.call("PATCH", path, json={"name": name})
        assert changed.get_json()["name"] == name
        back = api.call("PATCH", path, json={"name": created.get_json()["name"]})
        assert same(back)
        assert same(api.call("GET", path))
        assert api.sql("SELECT headers::text FROM job WHERE id = %s", (created.get_json()["id"],)) == stored
        assert api.call("DELETE", path).status_code == 204

    run()


def without_edits(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name not in ("version", "updatedAt")}


def test_any_cron_that_the_api_accepts_has_a_next_run(api: Api) -> None:
    # Some months lack some of these days: what never comes is refused.
    days = formats.field(1, 31)
    dates = st.tuples(formats.minutes, formats.hours, days, formats.months, formats.weekdays)

    @SETTINGS
    @given(dates.map(" ".join) | formats.cron_with_seconds | formats.aliases, formats.zones)
    def run(schedule: str, zone: str) -> None:
        job = {"schedule": schedule, "timezone": zone, "api": "https://example.com/hook"}
        created = api.call("POST", "/api/v1/jobs", json=job)
        if created.status_code == 201:
            assert created.get_json()["nextExecutionTime"] is not None
        else:
            problem = assert_problem(created, 422)
            assert [fault["pointer"] for fault in problem["errors"]] == ["/schedule"]
            assert "never" in problem["errors"][0]["message"], problem

    run()

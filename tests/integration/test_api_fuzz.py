"""Whatever is sent: no 5xx, and every error is a problem document."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsched.domain.spec_fields import JobCreate
from tests.integration.api_rig import JOB, Api, api
from tests.integration.test_api_requests import READS, WRITES

__all__ = ["api"]

FIELDS = [field.alias or name for name, field in JobCreate.model_fields.items()]
QUICK = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = (
    st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.sampled_from([0, 1, -1, 2**31, 2**63])
)
texts = st.text(max_size=20) | st.sampled_from(
    [
        "@daily",
        "* * * * *",
        "@every 1s",
        "@in 99999h",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "\x00",
        "\ud800",
        "Europe/Berlin",
        "https://example.com",
        "http://[::1]/",
        "***",
        "GET",
        "default",
        "é" * 300,
        "🙂",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
jobs = st.dictionaries(st.sampled_from(FIELDS) | texts, values, max_size=6).map(
    lambda given: {**JOB, **given}
)
calls = st.sampled_from(READS + WRITES)


def check(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert answer.content_type == "application/problem+json"
        assert json.loads(answer.data)["status"] == answer.status_code


def test_any_job_is_stored_or_refused(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}"

    @QUICK
    @given(jobs, values)
    def run(job: dict[str, Any], other: Any) -> None:
        for method, target, body in (
            ("POST", "/api/v1/jobs", job),
            ("PUT", path, job),
            ("PATCH", path, other),
            ("POST", f"{path}/run", other),
        ):
            # json.dumps keeps lone surrogates and infinities, as a careless client would.
            answer = api.call(method, target, data=json.dumps(body), content_type="application/json")
            check(answer)
            if answer.status_code == 201:
                read = api.call("GET", answer.headers["Location"])
                assert read.get_json() == answer.get_json()

    run()


def test_any_bytes_are_a_body(api: Api) -> None:
    @QUICK
    @given(
        calls, st.binary(max_size=60), st.sampled_from(["application/json", "text/plain", "", "a/b;c=\xff"])
    )
    def run(call: tuple[str, str], body: bytes, content_type: str) -> None:
        check(api.call(*call, data=body, headers={"Content-Type": content_type}))

    run()


def test_any_path_query_and_header_is_answered(api: Api) -> None:
    query = st.dictionaries(
        st.sampled_from(["limit", "cursor", "q", "state", "from", "jobId", "tag", "isActive"]) | texts,
        texts,
        max_size=3,
    )
    visible = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20)
    names = st.sampled_from(
        ["If-Match", "X-Request-Id", "Accept", "Host", "Authorization", "Cookie", "Range", "Expect"]
    )

    @QUICK
    @given(calls, st.text(max_size=8), query, st.dictionaries(names, visible, max_size=3))
    def run(call: tuple[str, str], tail: str, query: dict[str, str], headers: dict[str, str]) -> None:
        method, path = call
        tail = tail.encode("utf-8", "replace").decode()
        query = {
            name.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace")
            for name, value in query.items()
        }
        check(
            api.call(
                method, path + tail.replace("?", "").replace("#", ""), query_string=query, headers=headers
            )
        )
        environ = {
            "PATH_INFO": (path + tail).encode("utf-8").decode("latin-1") + "\xff",
            "QUERY_STRING": tail.encode().decode("latin-1"),
        }
        check(api.call(method, "/", environ_overrides=environ))

    run()

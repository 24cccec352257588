"""Next runs of a job, and schedules looked at before there is one."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.integration.api_rig import Api, api, assert_problem

__all__ = ["api"]

PREVIEW = "/api/v1/schedules/preview"


def coming(api: Api, job: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = api.call("GET", f"/api/v1/jobs/{job['id']}/next", key="read", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def preview(api: Api, **fields: Any) -> dict[str, Any]:
    answer = api.call("POST", PREVIEW, json=fields, key="read")
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def times(answer: dict[str, Any], name: str = "scheduledFor") -> list[datetime]:
    return [datetime.fromisoformat(item[name]) for item in answer["items"]]


def test_the_first_of_the_next_runs_is_the_next_execution(api: Api) -> None:
    for fields in (
        {"schedule": "@every 90s"},
        {"schedule": "*/5 9-17 * * MON-FRI", "timezone": "Europe/Berlin"},
        {"schedule": "@daily", "jitterSeconds": 3600},
        {"schedule": "@in 10m"},
        {"schedule": "@daily", "startAt": "2099-01-01T00:00:00Z"},
    ):
        job = api.create(**fields)
        answer = coming(api, job)
        assert len(answer["items"]) == (1 if fields["schedule"] == "@in 10m" else 10)
        assert answer["items"][0]["dueAt"] == job["nextExecutionTime"]
        assert all(later > sooner for sooner, later in pairwise(times(answer)))
        assert [datetime.fromisoformat(item["local"]) for item in answer["items"]] == times(answer)


def test_an_interval_goes_on_from_its_anchor(api: Api) -> None:
    slots = times(coming(api, api.create(schedule="@every 90s"), n=100))
    assert len(slots) == 100
    assert {later - sooner for sooner, later in pairwise(slots)} == {timedelta(seconds=90)}


def test_bounds_and_runs_count(api: Api) -> None:
    assert len(coming(api, api.create(schedule="@daily", maxRuns=3))["items"]) == 3
    job = api.create(schedule="@daily", maxRuns=5)
    api.sql("UPDATE job_schedule SET runs = 3 WHERE job_id = %s", (job["id"],))
    assert len(coming(api, job)["items"]) == 2
    end = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    assert len(coming(api, api.create(schedule="@daily", endAt=end))["items"]) == 3
    once = coming(api, api.create(schedule="@daily", isRecurring=False))
    assert (len(once["items"]), once["description"]) == (1, "At 00:00 every day; only the next time")


def test_a_paused_or_finished_job_has_no_next_runs(api: Api) -> None:
    answer = coming(api, api.create(schedule="@hourly", isActive=False))
    assert answer == {"items": [], "description": "Every hour; paused"}
    job = api.create(schedule="2099-01-01T00:00:00Z")
    api.sql("UPDATE job_schedule SET next_slot = NULL, next_execution_time = NULL")
    assert coming(api, job)["items"] == []


def test_the_number_of_runs_has_bounds(api: Api) -> None:
    path = f"/api/v1/jobs/{api.create()['id']}/next"
    for query in ("n=0", "n=101", "n=x", "n=1&n=2", "m=1"):
        assert_problem(api.call("GET", f"{path}?{query}"), 422)
    assert_problem(api.call("GET", "/api/v1/jobs/999999/next"), 404)


def test_a_preview_shows_runs_words_and_remarks(api: Api) -> None:
    answer = preview(
        api, schedule="30 2 * * *", timezone="Europe/Berlin", n=3, startAt="2027-03-27T12:00:00Z"
    )  # fmt: skip
    assert answer == {
        "items": [
            {
                "scheduledFor": "2027-03-28T01:00:00.000Z",
                "dueAt": "2027-03-28T01:00:00.000Z",
                "local": "2027-03-28T03:00:00.000+02:00",
                "remark": "02:30 does not exist on this day (the clock jumps from 02:00 to 03:00); it runs at the "
                "first instant after the gap.",
            },
            {
                "scheduledFor": "2027-03-29T00:30:00.000Z",
                "dueAt": "2027-03-29T00:30:00.000Z",
                "local": "2027-03-29T02:30:00.000+02:00",
                "remark": None,
            },
            {
                "scheduledFor": "2027-03-30T00:30:00.000Z",
                "dueAt": "2027-03-30T00:30:00.000Z",
                "local": "2027-03-30T02:30:00.000+02:00",
                "remark": None,
            },
        ],
        "description": "At 02:30 every day",
    }


def test_a_preview_writes_nothing_and_has_defaults(api: Api) -> None:
    answer = preview(api, schedule="@hourly")
    assert len(answer["items"]) == 10
    assert answer["description"] == "Every hour"
    assert api.sql("SELECT count(*) FROM job") == [(0,)]
    assert len(preview(api, schedule="@hourly", maxRuns=2)["items"]) == 2
    assert preview(api, schedule="@every 1h", endAt="2020-01-01T00:00:00Z")["items"] == []


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/schedule"}),
        ({"schedule": "61 * * * *"}, {"/schedule"}),
        ({"schedule": ""}, {"/schedule"}),
        ({"schedule": "0 0 31 2 *"}, {"/schedule"}),
        ({"schedule": "@hourly", "timezone": "Mars/Base"}, {"/timezone"}),
        ({"schedule": "@hourly", "n": 0, "colour": 1}, {"/n", "/colour"}),
        ({"schedule": "@hourly", "n": "5"}, {"/n"}),
        ({"schedule": "x", "startAt": "noon"}, {"/schedule", "/startAt"}),
        (
            {"schedule": "@daily", "startAt": "2027-01-02T00:00:00Z", "endAt": "2027-01-01T00:00:00Z"},
            {"/endAt"},
        ),
        ([], {""}),
    ],
)
def test_a_preview_of_what_is_wrong_names_it(api: Api, body: Any, pointers: set[str]) -> None:
    problem = assert_problem(api.call("POST", PREVIEW, json=body), 422)
    assert {fault["pointer"] for fault in problem["errors"]} == pointers


def test_a_time_that_has_passed_is_remarked(api: Api) -> None:
    [item] = preview(api, schedule="2020-01-01T00:00:00Z")["items"]
    assert item["remark"] == "This time has passed: it is due at once, and the misfire policy decides."

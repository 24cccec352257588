"""Rows that only a hand in the tables can make do not take lists and figures from everybody else."""

import pytest

from tests.integration.api_rig import api  # noqa: F401

_SPOILT = (
    "UPDATE execution SET scheduled_for = '0044-03-15 BC'",
    "UPDATE execution SET due_at = 'infinity'",
    "UPDATE execution SET due_at = '-infinity'",
    "UPDATE job_schedule SET next_execution_time = 'infinity'",
    "UPDATE job SET created_at = '0001-01-01 BC', updated_at = 'infinity'",
    "UPDATE job SET timeout_seconds = 'NaN', backoff_jitter = 'Infinity'",
)


@pytest.mark.parametrize("spoil", _SPOILT)
def test_a_row_with_an_instant_or_a_number_that_nobody_can_write_is_still_listed(api, spoil):  # noqa: F811
    job = api.create()["id"]
    execution = api.call("POST", f"/api/v1/jobs/{job}/run").get_json()["id"]
    api.sql(spoil)
    for path, expected in (
        ("/api/v1/executions", execution),
        ("/api/v1/jobs", job),
        (f"/api/v1/executions/{execution}", execution),
        (f"/api/v1/jobs/{job}", job),
    ):
        answer = api.call("GET", path)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        told = answer.get_json()
        assert expected in [one["id"] for one in told.get("items", [told])]
    for path in ("/queue/stats", "/metrics"):
        assert api.call("GET", path).status_code == 200

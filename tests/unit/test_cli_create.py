"""``jobs create``: files, many jobs at once, and jobs that may exist already."""

import json
from typing import Any

import pytest

from tests.unit.canned_api import JOB

BULK = "/api/v1/jobs/bulk"
DAILY: dict[str, Any] = {"schedule": "@daily", "api": "https://example.com"}


def ndjson(*jobs: object) -> str:
    return "".join(f"{json.dumps(job)}\n" for job in jobs)


def test_a_file_with_one_job_creates_it_and_options_change_it(api, run, tmp_path):
    api.answer("POST", "/api/v1/jobs", JOB, 201)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(DAILY, indent=2))
    assert run("jobs", "create", "-f", str(file), "--key", "k", "--pool", "eu").exit_code == 0
    assert api.asked[0].body == {**DAILY, "key": "k", "pool": "eu"}


@pytest.mark.parametrize("text", [json.dumps([DAILY, DAILY], indent=2), ndjson(DAILY, DAILY)])
def test_several_jobs_are_one_request_and_options_count_for_each(api, run, text):
    answer = {"created": 2, "ids": [8, 9], "errors": []}
    api.answer("POST", BULK, answer, 201)
    assert run("jobs", "create", "-f", "-", input=text).stdout == "Created 2 jobs: 8, 9.\n"
    assert json.loads(run("jobs", "create", "-f", "-", "--pool", "eu", "--json", input=text).stdout) == answer
    assert [(asked.query, asked.body) for asked in api.asked] == [
        ([], [DAILY, DAILY]),
        ([], [{**DAILY, "pool": "eu"}] * 2),
    ]


@pytest.mark.parametrize(("args", "text"), [((), json.dumps([DAILY])), (("--partial",), ndjson(DAILY))])
def test_an_array_and_a_partial_creation_answer_as_bulk_does_even_for_one(api, run, args, text):
    api.answer("POST", BULK, {"created": 1, "ids": [8], "errors": []}, 201)
    assert run("jobs", "create", "-f", "-", *args, input=text).stdout == "Created 1 job: 8.\n"


def test_many_ids_are_not_all_shown(api, run):
    api.answer("POST", BULK, {"created": 5000, "ids": [*range(1, 5001)], "errors": []}, 201)
    assert run("jobs", "create", "-f", "-", input=ndjson({}, {})).stdout == (
        "Created 5,000 jobs: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, … 5000 (--json lists all).\n"
    )


def test_one_refused_job_refuses_all_and_is_named_by_its_place(api, run):
    faults = [
        {"pointer": "/0/api", "message": "is missing"},
        {"pointer": "/1/headers/X~1A", "message": "is ours"},
        {"pointer": "/1", "message": "must be a JSON object"},
        {"pointer": "", "message": "is odd"},
    ]
    api.problem("POST", BULK, 422, "The jobs are not valid.", errors=faults)
    result = run("jobs", "create", "-f", "-", input='\n\n{"a":\n 1}\n{"b": 2}\n')
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "jobsched: No job was created.\n"
        "  The jobs are not valid.\n"
        "  standard input, line 3: api: is missing\n"
        "  standard input, line 5: headers/X/A: is ours\n"
        "  standard input, line 5: must be a JSON object\n"
        "  is odd\n"
    )


def test_partial_creates_the_valid_ones_and_reports_the_others(api, run, tmp_path):
    errors = [{"index": 1, "errors": [{"pointer": "/api", "message": "is missing"}]}]
    api.answer("POST", BULK, {"created": 1, "ids": [8], "errors": errors})
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([{}, {}]))
    result = run("jobs", "create", "-f", str(file), "--partial", "--idempotency-key", "k")
    assert (result.exit_code, result.stdout) == (1, "Created 1 job: 8.\n")
    assert result.stderr == (
        f"jobsched: {file}, item 2 is refused.\n  api: is missing\n"
        "jobsched: 1 of 2 jobs refused; the others were created.\n"
    )
    assert (api.asked[0].query, api.asked[0].headers["idempotency-key"]) == ([("partial", "true")], "k")


def test_more_than_ten_thousand_are_only_created_partially(api, run):
    text = ndjson(*[{}] * 10_001)
    result = run("jobs", "create", "-f", "-", input=text)
    assert (result.exit_code, api.asked) == (2, [])
    assert "10,001 jobs cannot be created all or none, only 10,000." in result.stderr
    api.answer("POST", BULK, {"created": 10_000, "ids": [1], "errors": []})
    api.problem("POST", BULK, 500, "Oh.")
    result = run("jobs", "create", "-f", "-", "--partial", input=text)
    assert (result.exit_code, result.stdout, len(api.asked)) == (1, "", 2)
    assert result.stderr == "jobsched: 10,000 jobs created, then it stopped.\njobsched: Oh.\n"


def test_a_broken_line_is_named(run):
    result = run("jobs", "create", "-f", "-", input='{"a": 1}\n\n{"b": [\n1]}\n{broken\n')
    assert "standard input, line 5: this is not JSON" in result.stderr
    result = run("jobs", "create", "-f", "-", input='{"a": 1}\n\n{"b": [\n1]}\n\n7\n')
    assert "standard input, line 6: a job is a JSON object" in result.stderr


@pytest.mark.parametrize("text", ['{"a": 1}\n{broken\n', "[1]", "", '"text"', "[" * 100_000])
def test_a_broken_file_sends_nothing(api, run, text):
    result = run("jobs", "create", "-f", "-", input=text)
    assert (result.exit_code, api.asked) == (2, [])
    assert "Traceback" not in result.stderr


UPSERTED = [
    (None, JOB | {"version": 1}, "Created job 7 (nightly report)."),
    (JOB, JOB | {"version": 5}, "Changed job 7 (nightly report)."),
    (JOB, JOB, "Unchanged: job 7 (nightly report)."),
    (JOB | {"id": 6}, JOB, "Changed job 7 (nightly report)."),
]


@pytest.mark.parametrize(("before", "after", "said"), UPSERTED)
def test_upsert_puts_by_key_and_says_what_it_did(api, run, before, after, said):
    if before:
        api.answer("GET", "/api/v1/jobs/key/nightly", before)
    api.answer("PUT", "/api/v1/jobs/key/nightly", after, 200 if before else 201)
    result = run(
        "jobs", "create", "--upsert", "--key", "nightly", "--schedule", "@daily", "--api", "https://a"
    )
    assert (result.exit_code, result.stdout.partition(" Next run")[0]) == (0, said)
    assert api.asked[-1].body == {"schedule": "@daily", "api": "https://a"}


def test_upsert_of_a_file_goes_on_after_a_job_that_is_refused(api, run):
    api.problem(
        "PUT", "/api/v1/jobs/key/a", 422, "Not valid.", errors=[{"pointer": "/api", "message": "is odd"}]
    )
    api.answer("PUT", "/api/v1/jobs/key/b", JOB, 201)
    text = ndjson({"key": "a"}, {"key": "b"})
    result = run("jobs", "create", "--upsert", "-f", "-", "--json", input=text)
    assert (result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]) == (1, [JOB])
    assert result.stderr == (
        "jobsched: standard input, line 1: Not valid.\n  api: is odd\n"
        "jobsched: 1 of 2 jobs refused; the others are done.\n"
    )


def test_upsert_of_a_file_stops_where_nothing_after_could_succeed(api, run):
    api.answer("PUT", "/api/v1/jobs/key/a", JOB, 201)
    api.problem("GET", "/api/v1/jobs/key/b", 401, "The key was revoked.")
    text = ndjson({"key": "a"}, {"key": "b"}, {"key": "c"})
    result = run("jobs", "create", "--upsert", "-f", "-", input=text)
    assert (result.exit_code, len(api.asked)) == (5, 3)
    assert result.stderr.startswith(
        "jobsched: 1 of 3 jobs done, then it stopped at standard input, line 2.\n"
    )


def test_upsert_of_a_version_is_refused_for_another(api, run):
    api.answer("GET", "/api/v1/jobs/key/k", JOB)
    api.problem("PUT", "/api/v1/jobs/key/k", 412, "Edited meanwhile.")
    result = run("jobs", "create", "--upsert", "-f", "-", "--version", "3", input=ndjson({"key": "k"}))
    assert (result.exit_code, api.asked[-1].headers["if-match"]) == (1, '"3"')


@pytest.mark.parametrize(
    "args",
    [
        ("--schedule", "@daily", "--api", "https://a", "--partial"),
        ("--schedule", "@daily", "--api", "https://a", "--upsert"),
        ("--schedule", "@daily", "--api", "https://a", "--version", "3"),
        ("-f", "-", "--upsert"),
        ("-f", "-", "--upsert", "--partial"),
        ("-f", "-", "--key", "k"),
        ("-f", "-", "--upsert", "--idempotency-key", "k"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(api, run, args):
    result = run("jobs", "create", *args, input=ndjson(DAILY, DAILY))
    assert (result.exit_code, api.asked) == (2, [])
